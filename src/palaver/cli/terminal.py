"""What commands print: answers on standard output, everything else on standard error.

For people on a terminal in colour and with tables; in a pipe plain lines, columns apart by tabs.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console(markup=False, highlight=False, emoji=False)
err = Console(markup=False, highlight=False, emoji=False, stderr=True)


def prepare() -> None:
    """Let no character of an answer break a command on a terminal that cannot show it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str = "", style: str = "") -> None:
    """A line of the answer."""
    if out.is_terminal:
        out.print(Text(text, style=style), soft_wrap=True)
    else:  # as it is: rich would make spaces of tabs
        out.file.write(f"{text}\n")


def say_json(value: Any) -> None:
    """The answer for a script: one line."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Something to know that is not the answer."""
    err.print(Text(text, style="yellow"), soft_wrap=True)


def complain(text: str) -> None:
    """What went wrong, in one line."""
    err.print(Text(f"palaver: {' / '.join(text.split(chr(10)))}", style="red"), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, nothing: str) -> None:
    """``rows``, or the line ``nothing`` on standard error when there are none."""
    if not rows:
        note(nothing)
    elif out.is_terminal:
        drawn = Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        for row in rows:
            drawn.add_row(*(Text(shown(cell), overflow="fold") for cell in row))
        out.print(drawn)
    else:
        for row in rows:
            say("\t".join(" ".join(shown(cell).split()) for cell in row))


def shown(cell: object) -> str:
    match cell:
        case None:
            return ""
        case bool():
            return "yes" if cell else "no"
        case list() | tuple():
            return ", ".join(str(entry) for entry in cell)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case _:
            return str(cell)
