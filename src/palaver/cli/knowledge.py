"""``palaver knowledge``: knowledge bases and their documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palaver.cli.command import AnyApp, App, Json, Yes, on_admin
from palaver.cli.terminal import err, print_json, print_line, print_note, table
from palaver.core.admin.admin import Admin
from palaver.core.ports.admin import IngestProgress, IngestReport, KnowledgeBase
from palaver.core.types import Application, Passage

group = typer.Typer(
    name="knowledge", help="Manage knowledge bases: the documents that agents answer from.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the knowledge base.", show_default=False)]


@group.command()
@on_admin
async def add(
    admin: Admin,
    name: Name,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", exists=True, help="Files and folders to add.", show_default=False)
    ],
    *,
    app: App = "demo",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove documents that no longer exist in the folders they came from.")
    ] = False,
    json: Json = False,
) -> None:
    """Add Markdown, text and HTML files to a knowledge base, creating it if needed. Unchanged files are skipped."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("reading", total=None)

        def show(progress: IngestProgress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, description=_short(progress.name))

        owner, report = await admin.knowledge_bases.add(app, name, paths, show, prune=prune)
    if json:
        print_json(_report_json(name, owner, report))
    else:
        _print(name, report)
    if report.skipped and not (report.added or report.replaced or report.unchanged):
        raise typer.Exit(1)


@group.command("list")
@on_admin
async def list_(admin: Admin, *, app: AnyApp = None, json: Json = False) -> None:
    """List the knowledge bases."""
    bases = await admin.knowledge_bases.list_all(app)
    if json:
        print_json(
            [
                {"app": name, "id": base.id, "uid": base.uid.hex, "name": base.name, **_size(base)}
                for name, base in bases
            ]
        )
        return
    table(
        ("APP", "ID", "NAME", "DOCUMENTS", "PASSAGES"),
        [(name, base.id, base.name, base.documents, base.passages) for name, base in bases],
        nothing="No knowledge bases yet; create one with 'palaver knowledge add NAME PATH'.",
    )


@group.command()
@on_admin
async def documents(admin: Admin, name: Name, *, app: App = "demo", json: Json = False) -> None:
    """List the documents of a knowledge base."""
    stored = await admin.knowledge_bases.list_documents(app, name)
    if json:
        print_json(
            [
                {"source": one.source, "title": one.title, "kind": one.kind, "passages": one.passages, "root": one.root}
                for one in stored
            ]
        )
        return
    folders = ("FOLDER",) if len({one.source for one in stored}) < len(stored) else ()
    table(
        ("SOURCE", "TITLE", "PASSAGES", *folders),
        [(one.source, one.title, one.passages, *(one.root for _ in folders)) for one in stored],
        nothing=f"{name!r} is empty.",
    )


@group.command()
@on_admin
async def search(
    admin: Admin,
    name: Name,
    query: Annotated[str, typer.Argument(metavar="QUERY", show_default=False)],
    *,
    app: App = "demo",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Maximum number of passages.")] = 5,
    json: Json = False,
) -> None:
    """Show the passages that an agent would find for a question."""
    passages = await admin.knowledge_bases.search(app, name, query, limit)
    if json:
        print_json([_passage_json(passage) for passage in passages])
        return
    for passage in passages:
        place = " › ".join(part for part in (passage.title, passage.heading) if part)
        print_line(f"{passage.score:.2f}  {passage.source}  {place}", style="bold")
        print_line(f"{passage.text}\n")
    if not passages:
        print_note("No results.")


def _passage_json(passage: Passage) -> dict[str, str | float | None]:
    """A passage in ``--json`` output; ``page`` is reserved for documents with pages."""
    return {
        "document": passage.source,
        "heading": passage.heading,
        "page": None,
        "score": passage.score,
        "content": passage.text,
    }


@group.command()
@on_admin
async def remove(
    admin: Admin,
    name: Name,
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE…]", help="Documents to remove; default: the whole knowledge base.", show_default=False
        ),
    ] = None,
    *,
    app: App = "demo",
    yes: Yes = False,  # noqa: ARG001  its callback prompts
    json: Json = False,
) -> None:
    """Remove documents from a knowledge base, or the whole knowledge base."""
    base, removed = await admin.knowledge_bases.remove(app, name, source or ())
    if json:
        print_json({"name": base.name, "removed": removed})
    else:
        print_line(f"Removed {_count(len(removed), 'document')} from {base.name!r}.")


def _size(base: KnowledgeBase) -> dict[str, int]:
    return {"documents": base.documents, "passages": base.passages}


def _report_json(name: str, app: Application, report: IngestReport) -> dict[str, object]:
    return {
        "app": app.name,
        "name": name,
        "id": report.base,
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": [{"name": one.name, "reason": one.reason} for one in report.skipped],
        "passages": report.passages,
    }


def _print(name: str, report: IngestReport) -> None:
    for one in report.skipped:
        print_note(f"skipped {one.name}: {one.reason}")
    counts = [
        (len(report.added), "added"),
        (len(report.replaced), "replaced"),
        (len(report.unchanged), "unchanged"),
        (len(report.removed), "removed"),
        (len(report.skipped), "skipped"),
    ]
    summary = ", ".join(f"{count} {outcome}" for count, outcome in counts if count) or "no documents found"
    print_line(f"{name}: {summary}; {_count(report.passages, 'passage')} written")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _short(name: str, width: int = 40) -> str:
    return name if len(name) <= width else f"…{name[-width + 1 :]}"
