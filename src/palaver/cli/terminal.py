"""What commands print: answers on standard output, everything else on standard error.

For people on a terminal in colour and with tables; in a pipe plain lines, columns apart by tabs.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

WHOLE = frozenset({"ID", "UID", "SECRET", "NAME", "APP", "SETTING", "SOURCE"})
"""Columns whose cells are copied or typed again: never broken over two lines."""

out = Console(markup=False, highlight=False, emoji=False)
err = Console(markup=False, highlight=False, emoji=False, stderr=True)


def prepare() -> None:
    """Let no character of an answer break a command on a terminal that cannot show it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_line(text: str = "", style: str = "") -> None:
    """A line of the answer."""
    if out.is_terminal:
        out.print(Text(text, style=style), soft_wrap=True)
    else:  # as it is: rich would make spaces of tabs
        out.file.write(f"{text}\n")


def print_json(value: Any) -> None:
    """The answer for a script: one line."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_note(text: str) -> None:
    """Something to know that is not the answer."""
    err.print(Text(text, style="yellow"), soft_wrap=True)


def print_error(text: str) -> None:
    """What went wrong, in one line."""
    err.print(Text(f"palaver: {' / '.join(text.split(chr(10)))}", style="red"), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, nothing: str) -> None:
    """``rows``, or the line ``nothing`` on standard error when there are none."""
    if not rows:
        print_note(nothing)
    elif out.is_terminal:
        drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for column in columns:  # what is copied must be whole, also where the terminal is narrow
            drawn.add_column(column, no_wrap=column in WHOLE, overflow="ignore" if column in WHOLE else "fold")
        for row in rows:
            drawn.add_row(*(format_cell(cell) for cell in row))
        out.print(drawn, width=max(out.width, _least_width(columns, rows)), crop=False, soft_wrap=True)
    else:
        for row in rows:
            print_line("\t".join(" ".join(format_cell(cell).split()) for cell in row))


def _least_width(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """How wide a table must be for its whole columns, and a word of every other one."""
    width = 0
    for number, column in enumerate(columns):
        cells = [cell_len(format_cell(row[number])) for row in rows] if column in WHOLE else [8]
        width += max(cell_len(column), *cells) + 2
    return width


def day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def moment(at: datetime) -> str:
    """To the minute, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def format_cell(cell: object) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case list() | tuple():
            return ", ".join(str(entry) for entry in cell)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            return str(cell)
