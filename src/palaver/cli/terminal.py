"""Output of commands: results on standard output, everything else on standard error.

On a terminal with colours and tables; in a pipe as plain lines, with columns separated by tabs.
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
"""Columns whose cells are meant to be copied: never wrapped."""
MAX_UNWRAPPED = 24
"""Characters up to which the cells of other columns are not wrapped either."""

out = Console(markup=False, highlight=False, emoji=False)
err = Console(markup=False, highlight=False, emoji=False, stderr=True)


def prepare() -> None:
    """Escape characters that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_line(text: str = "", style: str = "") -> None:
    """Print a line of the result."""
    if out.is_terminal:
        out.print(Text(text, style=style), soft_wrap=True)
    else:  # unchanged: rich would convert tabs to spaces
        out.file.write(f"{text}\n")


def print_json(value: Any) -> None:
    """Print the result as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_note(text: str) -> None:
    """Print a hint that is not part of the result."""
    err.print(Text(text, style="yellow"), soft_wrap=True)


def print_error(text: str) -> None:
    """Print an error message on one line."""
    err.print(Text(f"palaver: {' / '.join(text.split(chr(10)))}", style="red"), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, nothing: str) -> None:
    """Print ``rows``, or ``nothing`` on standard error if there are none."""
    if not rows:
        print_note(nothing)
    elif out.is_terminal:
        drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        least_width = 0
        for number, column in enumerate(columns):
            widest = max(cell_len(column), *(cell_len(format_cell(row[number])) for row in rows))
            whole = column in WHOLE or widest <= MAX_UNWRAPPED
            drawn.add_column(column, no_wrap=whole, overflow="ignore" if whole else "fold")
            least_width += (widest if whole else max(cell_len(column), 8)) + 2
        for row in rows:
            drawn.add_row(*(format_cell(cell) for cell in row))
        if least_width > out.width:  # rich would truncate; the terminal wraps instead
            drawn.width = least_width
        out.print(drawn, crop=False, soft_wrap=True)
    else:
        for row in rows:
            print_line("\t".join(" ".join(format_cell(cell).split()) for cell in row))


def day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def moment(at: datetime) -> str:
    """Date and time to the minute, in UTC."""
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
