"""Command lines that cannot be understood, and ``--help``; nothing is opened for them, so they run in this process."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import palaver
from palaver.cli import cli, main
from palaver.cli.help import command_tree


def _said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["palaver", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["serve", "--prt", "1"], "No such option: --prt"),
        (["serve", "--port", "65536"], "--port"),
        (["kye"], "Did you mean 'key'?"),
        (["key", "creat"], "Did you mean 'create'?"),
        (["key", "create"], "--dialect"),
        (["key", "create", "--dialect", "frob"], "there is no dialect 'frob'; choose one of: native"),
        (["agent", "show"], "AGENT"),
        (["knowledge", "add", "house", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_a_command_that_is_not_understood_is_one_line_and_exit_code_2(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = _said(capsys, monkeypatch, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("palaver: ")
    assert says in err
    assert "--help'" in err


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert _said(capsys, monkeypatch, "--version") == (0, f"palaver {palaver.__version__}\n", "")


@pytest.mark.parametrize("words", [["serve"], ["demo"], ["key", "rotate"], ["agent", "apply"], ["chat"], ["doctor"]])
def test_every_command_takes_the_data_folder_and_the_database(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = _said(capsys, monkeypatch, *words, "--help")
    assert code == 0
    assert "--data" in out
    assert "--database" in out


def _leaves(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    """Every command that does something, in words."""
    below = getattr(command, "commands", None)
    if below is None:
        yield words
        return
    for name, one in below.items():
        yield from _leaves(one, *words, name)


COMMANDS = sorted(_leaves(command_tree(cli)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_says_in_no_programmers_words_what_an_option_takes(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = _said(capsys, monkeypatch, *words, "--help")
    assert code == 0
    assert re.findall(r"<\w+>|\b(?:str|int|bool|float|Path|STR|INTEGER|BOOLEAN)\b", out) == []
