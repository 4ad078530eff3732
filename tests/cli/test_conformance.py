"""``palaver conformance``; nothing is opened for it, so it runs in this process."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest

from palaver.app import all_dialects
from palaver.cli import conformance, main
from palaver.cli.conformance import deviations
from palaver.wire.contract import Dialect
from palaver.wire.requirements import Kind, Requirement, choice, deviation, open_point

NAMES = [dialect.name for dialect in all_dialects()]


class Said:
    """The command's answers."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def by(self, *words: str, code: int = 0) -> str:
        """What the command says: its answer, or why there is none."""
        self._monkeypatch.setattr(sys, "argv", ["palaver", "conformance", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capsys.readouterr()
        assert ended.value.code == code, said.err
        return said.err if code else said.out


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    return Said(capsys, monkeypatch)


def _with(*rows: Requirement) -> Dialect:
    """A dialect of which nothing but its rows matters."""
    return replace(all_dialects()[0], name="fifth", requirements=rows)


def test_json_is_one_line_with_every_row_of_every_dialect(said: Said) -> None:
    (line,) = said.by("--json").splitlines()
    rows = json.loads(line)
    assert list(rows[0]) == ["dialect", "id", "kind", "source", "words"]
    assert [row["dialect"] for row in rows] == [each.name for each in all_dialects() for _ in each.requirements]
    assert {row["kind"] for row in rows} == set(get_args(Kind))
    assert len({(row["dialect"], row["id"]) for row in rows}) == len(rows)
    assert [row for row in rows if not row["words"] or not row["id"]] == []


@pytest.mark.parametrize("name", NAMES)
def test_one_dialect_s_rows_end_with_how_many_there_are_of_each_kind(said: Said, name: str) -> None:
    *rows, total = said.by("--dialect", name).splitlines()
    (dialect,) = (each for each in all_dialects() if each.name == name)
    assert [row.split("\t")[0] for row in rows] == [f"{name}.{row.id}" for row in dialect.requirements]
    assert {len(row.split("\t")) for row in rows} == {4}
    kinds = Counter(row.split("\t")[1] for row in rows)
    said_kinds = ", ".join(f"{kinds[kind]} {kind}" for kind in get_args(Kind) if kinds[kind])
    assert total == f"{name}: {len(rows)} requirements: {said_kinds}"


def test_without_a_name_all_dialects_are_listed(said: Said) -> None:
    totals = [line.split(":")[0] for line in said.by().splitlines() if "\t" not in line]
    assert totals == NAMES


def test_a_dialect_there_is_not_is_told(said: Said) -> None:
    assert "there is no dialect 'frob'" in said.by("--dialect", "frob", code=2)


def test_markdown_is_the_deviations_alone(said: Said) -> None:
    assert said.by("--markdown", "--dialect", "wps") == f"{deviations(_named('wps'))}\n"


def _named(name: str) -> Dialect:
    (dialect,) = (each for each in all_dialects() if each.name == name)
    return dialect


def test_a_deviation_is_a_sentence_of_markdown() -> None:
    dialect = _with(
        open_point("1", "nothing is <said> of [this]*"), choice("no deviation"), deviation("2", "chatId is `absent`")
    )
    lines = [line for line in deviations(dialect).splitlines() if line.startswith("- ")]
    assert lines == [r"- Nothing is \<said> of \[this]\*.", r"- chatId is \`absent\`."]


def test_a_dialect_without_a_manifest_has_none_to_show(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = _with()
    monkeypatch.setattr(conformance, "all_dialects", lambda: (bare,))
    assert said.by() == ""
    assert said.by("--json") == "[]\n"
    assert said.by("--markdown") == "None is known.\n"
