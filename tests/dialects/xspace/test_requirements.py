"""Requirements and tests match."""

from __future__ import annotations

from pathlib import Path

from support.requirements import audit, rows

from palaver.dialects.xspace import requirements


def test_every_requirement_has_a_test_and_every_test_a_requirement() -> None:
    assert audit(Path(__file__).parent, requirements) == []


def test_requirements_are_unique() -> None:
    texts = [(row.kind, row.source, row.words) for row in rows(requirements).values()]
    assert len(texts) == len(set(texts))
