"""``palaver knowledge``: the documents that agents answer from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from palaver.app import Core
from palaver.cli.command import AnyApp, App, Json, Yes, checked_name, on_core, only_app, records_audit, the_app
from palaver.cli.terminal import err, print_json, print_line, print_note, table
from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Application, Passage
from palaver.knowledge.ingest import IngestProgress as Done
from palaver.knowledge.ingest import IngestReport, ingest
from palaver.store.knowledge import Document, KnowledgeBase

group = typer.Typer(
    name="knowledge", help="Manage knowledge bases: the documents that agents answer from.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the knowledge base.", show_default=False)]


@group.command()
@on_core
@records_audit("knowledge add", "name", "paths", "prune")
async def add(
    core: Core,
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
    owner = await core.store.applications.get_or_create(checked_name(app))
    shelf = core.store.knowledge
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("reading", total=None)

        def show(done: Done) -> None:
            bar.update(task, completed=done.done, total=done.total, description=_short(done.name))

        report = await ingest(shelf, owner.id, name, paths, show, prune=prune)
    if json:
        print_json(_as_json(name, owner, report))
    else:
        _print(name, report)
    if report.skipped and not (report.added or report.replaced or report.unchanged):
        raise typer.Exit(1)


@group.command("list")
@on_core
async def list_(core: Core, *, app: AnyApp = None, json: Json = False) -> None:
    """List the knowledge bases."""
    only = await only_app(core, app)
    owners = await core.store.applications.list_all() if only is None else [only]
    bases = [(owner.name, base) for owner in owners for base in await core.store.knowledge.list_bases(owner.id)]
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
@on_core
async def documents(core: Core, name: Name, *, app: App = "demo", json: Json = False) -> None:
    """List the documents of a knowledge base."""
    base = await _base(core, await the_app(core, app), name)
    found = await core.store.knowledge.list_documents(base.app, base.id)
    if json:
        print_json(
            [
                {"source": one.source, "title": one.title, "kind": one.kind, "passages": one.passages, "root": one.root}
                for one in found
            ]
        )
        return
    folders = ("FOLDER",) if len({one.source for one in found}) < len(found) else ()
    table(
        ("SOURCE", "TITLE", "PASSAGES", *folders),
        [(one.source, one.title, one.passages, *(one.root for _ in folders)) for one in found],
        nothing=f"{name!r} is empty.",
    )


@group.command()
@on_core
async def search(
    core: Core,
    name: Name,
    query: Annotated[str, typer.Argument(metavar="QUERY", show_default=False)],
    *,
    app: App = "demo",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Maximum number of passages.")] = 5,
    json: Json = False,
) -> None:
    """Show the passages that an agent would find for a question."""
    base = await _base(core, await the_app(core, app), name)
    found = await core.knowledge.search(base.app, [base.name], query, limit)
    if json:
        print_json([_found(passage) for passage in found])
        return
    for passage in found:
        place = " › ".join(part for part in (passage.title, passage.heading) if part)
        print_line(f"{passage.score:.2f}  {passage.source}  {place}", style="bold")
        print_line(f"{passage.text}\n")
    if not found:
        print_note("No results.")


def _found(passage: Passage) -> dict[str, str | float | None]:
    """A passage as scripts read it; ``page`` is for documents that have pages."""
    return {
        "document": passage.source,
        "heading": passage.heading,
        "page": None,
        "score": passage.score,
        "content": passage.text,
    }


@group.command()
@on_core
@records_audit("knowledge remove", "name", "source")
async def remove(
    core: Core,
    name: Name,
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE…]", help="Documents to remove; default: the whole knowledge base.", show_default=False
        ),
    ] = None,
    *,
    app: App = "demo",
    yes: Yes = False,  # noqa: ARG001  asked before
    json: Json = False,
) -> None:
    """Remove documents from a knowledge base, or the whole knowledge base."""
    base = await _base(core, await the_app(core, app), name)
    shelf = core.store.knowledge
    documents = await shelf.list_documents(base.app, base.id)
    if source:
        removed = await shelf.delete_documents(base.app, base.id, [_named(one, documents) for one in source])
    else:
        removed = [one.source for one in documents]
        await shelf.delete(base.app, base.id)
    if json:
        print_json({"name": base.name, "removed": removed})
    else:
        print_line(f"Removed {_count(len(removed), 'document')} from {base.name!r}.")


def _named(name: str, documents: Sequence[Document]) -> tuple[str, str]:
    """Folder and source of the document that ``name`` means: its source, or where that lies."""
    found = {(one.root, one.source) for one in documents if name in {one.source, f"{one.root}/{one.source}"}}
    if not found:
        raise NotFound(noun="document", ref=name)
    if len(found) > 1:
        places = ", ".join(sorted(f"{root}/{source}" for root, source in found))
        raise Invalid(field="SOURCE", rule="type", detail=f"{name!r} is in several folders; specify one of {places}")
    return found.pop()


async def _base(core: Core, app: Application, name: str) -> KnowledgeBase:
    base = await core.store.knowledge.get(app.id, name)
    if base is None:
        raise NotFound(noun="knowledge", ref=name)
    return base


def _size(base: KnowledgeBase) -> dict[str, int]:
    return {"documents": base.documents, "passages": base.passages}


def _as_json(name: str, app: Application, report: IngestReport) -> dict[str, object]:
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
    said = ", ".join(f"{count} {what}" for count, what in counts if count) or "no documents found"
    print_line(f"{name}: {said}; {_count(report.passages, 'passage')} written")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _short(name: str, width: int = 40) -> str:
    return name if len(name) <= width else f"…{name[-width + 1 :]}"
