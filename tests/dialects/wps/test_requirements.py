"""The manifest is complete, both ways."""

from __future__ import annotations

from pathlib import Path

from support.requirements import audit, rows

from palaver.dialects.wps import requirements


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    assert audit(Path(__file__).parent, requirements) == []


def test_no_two_rows_say_the_same() -> None:
    stated = [(row.kind, row.source, row.words) for row in rows(requirements).values()]
    assert len(stated) == len(set(stated))
