"""What the inspector looks at: files, syntax trees, headings, tables and code blocks of documents."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "palaver"
TESTS = ROOT / "tests"

_FENCE = re.compile(r"^(`{3,}|~{3,})(.*)$")
_HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*$")
_RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+\s*")


@dataclass(frozen=True, slots=True)
class Import:
    """``names`` is empty for a plain ``import module``; ``line`` is where it stands."""

    module: str
    names: tuple[str, ...]
    line: int


@cache
def tracked() -> tuple[Path, ...]:
    """Every file of the project: what git tracks, and what it would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return tuple(path for name in sorted(filter(None, listed.split("\0"))) if (path := ROOT / name).is_file())


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python(folder: Path) -> list[Path]:
    """The Python files below ``folder``."""
    return [path for path in tracked() if path.suffix == ".py" and path.is_relative_to(folder)]


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def functions(path: Path) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...]:
    return tuple(node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@cache
def imports(node: ast.AST) -> tuple[Import, ...]:
    return tuple(one for inner in ast.walk(node) for one in _imported(inner))


def imports_in_functions(path: Path) -> Iterator[Import]:
    pending: list[tuple[ast.AST, bool]] = [(tree(path), False)]
    while pending:
        node, inside = pending.pop()
        if inside:
            yield from _imported(node)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        pending += [(child, inside) for child in ast.iter_child_nodes(node)]


def _imported(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, (), node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        names = tuple(alias.name for alias in node.names)
        yield Import("." * node.level + (node.module or ""), names, node.lineno)


def rooms() -> list[Path]:
    """The packages below palaver, palaver's own folder first."""
    return sorted({path.parent for path in python(SOURCE)})


def dialects() -> list[Path]:
    return [folder for folder in rooms() if folder.parent == SOURCE / "dialects"]


# Documents ----------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(fence the line is in, line): the fence is empty for prose, else the whole line that opened it."""
    opened = mark = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line.strip())
        if not opened and fence:
            opened, mark = line.strip(), fence[1]
        elif opened and fence and fence[1].startswith(mark) and not fence[2].strip():
            opened = ""
        else:
            yield opened, line


def headings(path: Path) -> list[tuple[int, str]]:
    """(level, text) of every heading."""
    matches = (_HEADING.match(line) for fence, line in _lines(path) if not fence)
    return [(len(match[1]), match[2]) for match in matches if match]


def prose(path: Path) -> str:
    """The document without its code blocks."""
    return "\n".join(line for fence, line in _lines(path) if not fence)


def blocks(path: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced code block, in order."""
    fenced = r"(?ms)^(?P<mark>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=mark)[ \t]*$"
    matches = re.finditer(fenced, path.read_text(encoding="utf-8"))
    return [(match["language"].strip(), match["text"]) for match in matches]


def tables(path: Path) -> list[list[list[str]]]:
    """Every table: rows of cells, the head's first, code marks left as they are."""
    all_tables: list[list[list[str]]] = []
    rows: list[list[str]] = []
    for line in [*prose(path).splitlines(), ""]:
        if line.startswith("|"):
            if not _RULE.fullmatch(line):
                rows.append([cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            all_tables.append(rows)
            rows = []
    return all_tables


def table(path: Path, first: str) -> list[list[str]]:
    """The rows, without the head, of the table of ``path`` whose first column is headed ``first``."""
    matching = [rows[1:] for rows in tables(path) if rows[0][0] == first]
    assert len(matching) == 1, f"{shown(path)} needs one table whose first column is {first!r}, has {len(matching)}"
    return matching[0]


def bare(cell: str) -> str:
    """A cell that holds one piece of code, without its marks."""
    return cell.strip("`")
