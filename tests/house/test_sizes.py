"""Sizes. A red one is a design question, not a reason to split at random."""

from __future__ import annotations

import pytest
from support.survey import SOURCE, TESTS, functions, python, shown

LINES = 600
LONG = 80
SHORT = 40


def _sizes() -> list[tuple[int, str]]:
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{shown(path)}:{node.lineno} {node.name}")
        for path in (*python(SOURCE), *python(TESTS))
        for node in functions(path)
    ]


def test_no_file_has_more_than_600_lines() -> None:
    sizes = {shown(path): len(path.read_text().splitlines()) for path in (*python(SOURCE), *python(TESTS))}
    assert {name: size for name, size in sizes.items() if size > LINES} == {}


def test_no_function_has_more_than_80_lines() -> None:
    assert [size for size in _sizes() if size[0] > LONG] == []


@pytest.mark.parametrize("folder", ["src/", "tests/"])
def test_nine_functions_of_ten_have_fewer_than_40_lines(folder: str) -> None:
    sizes = [size for size in _sizes() if size[1].startswith(folder)]
    longer = sorted((size for size in sizes if size[0] >= SHORT), reverse=True)
    assert len(longer) * 10 <= len(sizes), longer
