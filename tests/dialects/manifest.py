"""A dialect's manifest: one row for every promise, and which tests show it.

``behaviours.py`` of a dialect's folder assigns rows to names; a test says ``@shows(behaviours.name, …)``. A row that no
test shows fails, and so does a test that shows none: ``audit`` finds both without running anything.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One promise. ``source`` is the page or section it stands in, empty for what is our own."""

    kind: Literal["seed", "spec", "ours", "open point", "differs"]
    source: str
    words: str


def seed(page: str, words: str) -> Row:
    """The vendor's promise; ``page`` is the heading it stands under."""
    return Row(kind="seed", source=page, words=words)


def spec(section: str, words: str) -> Row:
    """What the wire specification says; ``section`` is ``3``, ``4.2`` … of the dialect's file, ``README 5`` of the
    shared one."""
    return Row(kind="spec", source=section, words=words)


def ours(words: str) -> Row:
    """A choice of ours where nobody says anything."""
    return Row(kind="ours", source="", words=words)


def open_point(section: str, words: str) -> Row:
    """A gap or a contradiction in what we go by, and how it is read here."""
    return Row(kind="open point", source=section, words=words)


def differs(section: str, words: str) -> Row:
    """A known deviation from what we go by."""
    return Row(kind="differs", source=section, words=words)


def shows(*rows: Row) -> Callable[[F], F]:
    """Marks a test as showing these rows."""
    assert rows, "a test shows at least one row"

    def mark(test: F) -> F:
        return test

    return mark


def rows(behaviours: ModuleType) -> dict[str, Row]:
    """The manifest's rows by name, in their order."""
    return {name: value for name, value in vars(behaviours).items() if isinstance(value, Row)}


def audit(folder: Path, behaviours: ModuleType) -> list[str]:
    """What is wrong between the rows and the tests in ``folder``: nothing, when all is well."""
    known = rows(behaviours)
    shown: set[str] = set()
    wrong: list[str] = []
    for path in sorted(folder.rglob("test_*.py")):
        for test, names in _tests(path):
            shown.update(names)
            where = f"{path.name}: {test}"
            if not names:
                wrong.append(f"{where} shows no row")
            wrong += [f"{where} shows {name!r}, which is no row" for name in names if name not in known]
    return wrong + [f"no test shows {name!r}: {row.words}" for name, row in known.items() if name not in shown]


def _tests(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(test, names of the rows it shows) of every test of the file, ``test_manifest`` aside."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names = [name for decorator in node.decorator_list for name in _named(decorator)]
            if path.name != "test_manifest.py":
                yield node.name, names


def _named(decorator: ast.expr) -> list[str]:
    match decorator:
        case ast.Call(func=ast.Name(id="shows"), args=args):
            return [arg.attr for arg in args if isinstance(arg, ast.Attribute)]
        case _:
            return []
