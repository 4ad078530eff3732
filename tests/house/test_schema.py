"""The schema: everything belongs to an application, and says so first in its keys."""

from __future__ import annotations

import re

from support.survey import SOURCE

SCHEMA = SOURCE / "store" / "schema"
UNOWNED = {"meta", "application", "migration", "audit"}
"""About the server, the owners themselves, what ``migrate`` keeps, and what outlives an application."""
UNIQUE_EVERYWHERE = {"credential"}
"""A caller is known by its credential before its application is: ``(dialect, id)`` is unique in the whole database."""


def _sql() -> str:
    return "\n".join(re.sub(r"--[^\n]*", "", path.read_text()) for path in sorted(SCHEMA.glob("*.sql")))


def _tables() -> dict[str, str]:
    return dict(re.findall(r"(?ims)^CREATE TABLE (?:IF NOT EXISTS )?(\w+) \((.*?)^\)", _sql()))


def _first_columns(kind: str, body: str) -> list[str]:
    return re.findall(rf"(?i){kind}\s*\(\s*(\w+)", body)


def test_no_two_migrations_have_one_number() -> None:
    names = sorted(path.name for path in SCHEMA.iterdir())
    assert [name for name in names if not re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name)] == []
    assert len({name[:4] for name in names}) == len(names)


def test_every_table_is_read_by_these_tests() -> None:
    assert len(_tables()) == len(re.findall(r"(?i)CREATE\s+(?:\w+\s+)?TABLE", _sql()))


def test_every_primary_key_begins_with_the_application() -> None:
    wrong = [
        name
        for name, body in _tables().items()
        if name not in UNOWNED and _first_columns("PRIMARY KEY", body) != ["app"]
    ]
    assert wrong == []


def test_every_foreign_key_begins_with_the_application() -> None:
    for name, body in _tables().items():
        assert set(_first_columns("FOREIGN KEY", body)) <= {"app"}, name
        composite = len(re.findall(r"(?i)REFERENCES\s+\w+\s*\(\s*app\b", body))
        owner = len(re.findall(r"(?im)^\s*app\s.*REFERENCES application\b", body))
        assert composite + owner == len(re.findall(r"(?i)\bREFERENCES\b", body)), name


def test_every_unique_key_begins_with_the_application() -> None:
    wrong = [
        name
        for name, body in _tables().items()
        if name not in UNOWNED | UNIQUE_EVERYWHERE and set(_first_columns("UNIQUE", body)) - {"app"}
    ]
    assert wrong == []
    assert re.findall(r"(?i)CREATE UNIQUE INDEX", _sql()) == []
