"""``palaver conformance``: the documented requirements of the dialects, one per row."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, get_args

import typer

from palaver.app import all_dialects
from palaver.cli.command import Json
from palaver.cli.key import dialect_named
from palaver.cli.terminal import print_json, print_line, table
from palaver.wire.contract import Dialect
from palaver.wire.requirements import Kind, Requirement

_SPECIAL = re.compile(r"([\\`*<\[])")
_WORD = re.compile(r"[a-z]+(?=[ ,:'])")
_LISTS: tuple[tuple[Kind, str], ...] = (
    ("open point", "Where the vendor's documentation is silent or contradictory, palaver interprets it as follows:"),
    ("deviation", "Known differences:"),
)


def add_to(cli: typer.Typer) -> None:
    cli.command()(conformance)


def conformance(
    *,
    dialect: Annotated[
        Dialect | None,
        typer.Option(parser=dialect_named, metavar="DIALECT", help="Only this dialect.", show_default=False),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print only the deviations, formatted as in the dialect's README.")
    ] = False,
    json: Json = False,
) -> None:
    """List the requirements of every dialect: vendor, specification, palaver's choices, known deviations."""
    dialects = all_dialects() if dialect is None else (dialect,)
    if json:
        print_json([_record(each, row) for each in dialects for row in each.requirements])
    elif markdown:
        print_line("\n\n".join(map(deviations, dialects)))
    else:
        for each in dialects:
            _print(each)


def deviations(dialect: Dialect) -> str:
    """The open points and deviations, as in the dialect's README."""
    lists = [
        "\n".join([heading, "", *(f"- {_sentence(row.words)}" for row in dialect.requirements if row.kind == kind)])
        for kind, heading in _LISTS
        if any(row.kind == kind for row in dialect.requirements)
    ]
    return "\n\n".join(lists) or "None is known."


def _sentence(words: str) -> str:
    """``words`` as Markdown. Only a word of plain letters gets a capital: ``targetId`` is a name."""
    first = _WORD.match(words)
    begun = f"{words[0].upper()}{words[1:]}" if first else words
    return _SPECIAL.sub(r"\\\1", begun) + "."


def _record(dialect: Dialect, row: Requirement) -> dict[str, str]:
    return {"dialect": dialect.name, "id": row.id, "kind": row.kind, "source": row.source, "words": row.words}


def _print(dialect: Dialect) -> None:
    rows = [(f"{dialect.name}.{row.id}", row.kind, row.source, row.words) for row in dialect.requirements]
    table(("ID", "KIND", "SOURCE", "WORDS"), rows, nothing=f"The dialect {dialect.name!r} lists no requirements.")
    if rows:
        count = Counter(row.kind for row in dialect.requirements)
        kinds = ", ".join(f"{count[kind]} {kind}" for kind in get_args(Kind) if count[kind])
        print_line(f"{dialect.name}: {len(rows)} requirements: {kinds}", style="bold")
