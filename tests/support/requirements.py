"""Which tests show the rows of a dialect's manifest.

A test says ``@shows(requirements.name, …)``. A row that no test shows fails, and so does a test that shows none:
``audit`` finds both without running anything.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from palaver.wire.requirements import Requirement, collect_requirements

F = TypeVar("F", bound=Callable[..., None])


def shows(*rows: Requirement) -> Callable[[F], F]:
    """Marks a test as showing these rows."""
    assert rows, "a test shows at least one row"

    def mark(test: F) -> F:
        return test

    return mark


def rows(module: ModuleType) -> dict[str, Requirement]:
    """The manifest's rows by name, in their order."""
    return {row.id: row for row in collect_requirements(module)}


def audit(folder: Path, module: ModuleType) -> list[str]:
    """What is wrong between the rows and the tests in ``folder``: nothing, when all is well."""
    known = rows(module)
    shown_names: set[str] = set()
    wrong: list[str] = []
    for path in sorted(folder.rglob("test_*.py")):
        for test, names in _tests(path):
            shown_names.update(names)
            where = f"{path.name}: {test}"
            if not names:
                wrong.append(f"{where} shows no row")
            wrong += [f"{where} shows {name!r}, which is no row" for name in names if name not in known]
    return wrong + [f"no test shows {name!r}: {row.words}" for name, row in known.items() if name not in shown_names]


def _tests(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(test, names of the rows it shows) of every test of the file, ``test_requirements`` aside."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names = [name for decorator in node.decorator_list for name in _named(decorator)]
            if path.name != "test_requirements.py":
                yield node.name, names


def _named(decorator: ast.expr) -> list[str]:
    match decorator:
        case ast.Call(func=ast.Name(id="shows"), args=args):
            return [arg.attr for arg in args if isinstance(arg, ast.Attribute)]
        case _:
            return []
