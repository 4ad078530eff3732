"""``palaver audit``: every command that changes something is in it."""

from __future__ import annotations

import getpass
from collections.abc import Generator
from pathlib import Path
from typing import Any

from support.commands import Palaver

from palaver.cli import cli
from palaver.cli.command import actor
from palaver.cli.help import command_tree

READ_ONLY = {
    *("agent list", "agent show", "app list", "audit", "config", "conformance", "doctor", "openapi"),
    *("database dump", "database url"),
    *("key list", "key settings", "knowledge list", "knowledge documents", "knowledge search", "user export"),
}
"""Commands that change nothing."""
ELSEWHERE = {"serve", "worker", "chat", "migrate", "database restore"}
"""A server's and an end user's work is in the log and in the conversation; the others change the audit's own tables."""


CHANGES = (
    ("app create", ("shop",)),
    ("key create", ("--app", "shop", "--dialect", "snail", "--id", "mine", "--secret", "hushhush")),
    ("key set", ("mine", "rpm=5")),
    ("key disable", ("mine",)),
    ("key enable", ("mine",)),
    ("key rotate", ("mine",)),
    ("key delete", ("mine", "--yes")),
    ("key rotate-master", ()),
    ("agent apply", ("{folder}/desk.md", "--app", "shop")),
    ("agent delete", ("desk", "--app", "shop", "--yes")),
    ("knowledge add", ("house", "{folder}/desk.md", "--app", "shop")),
    ("knowledge remove", ("house", "--app", "shop", "--yes")),
    ("user forget", ("bob", "--app", "shop", "--yes")),
    ("app delete", ("shop", "--yes")),
    ("demo", ()),
)
"""Every command that changes something, with arguments."""


def _commands(command: Any, *path: str) -> Generator[str]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path)
        return
    for name, one in below.items():
        yield from _commands(one, *path, name)


def test_every_command_changes_nothing_or_is_in_the_audit(palaver: Palaver, tmp_path: Path) -> None:
    """Each of ``CHANGES`` is recorded under its own name; every other command is read-only, or recorded elsewhere."""
    del palaver.environment["PALAVER_MASTER_KEY"]  # else the commands after "key rotate-master" need the new one
    (tmp_path / "desk.md").write_text("---\nname: desk\nmodel: scripted\n---\nBe brief.\n")
    assert set(_commands(command_tree(cli))) - {name for name, _ in CHANGES} == READ_ONLY | ELSEWHERE
    for name, arguments in CHANGES:
        done = palaver.run(*name.split(), *(text.format(folder=tmp_path) for text in arguments))
        assert done.returncode == 0, (name, done.stderr)
    entries = palaver.json("audit")
    assert [entry["action"] for entry in entries] == [name for name, _ in CHANGES]
    assert {entry["outcome"] for entry in entries} == {"done"}
    assert {entry["actor"] for entry in entries} == {actor()}
    assert "hushhush" not in palaver.says("audit")


def test_a_change_is_listed_with_who_what_and_how_it_ended(palaver: Palaver) -> None:
    made = palaver.json(
        "key", "create", "--app", "shop", "--dialect", "snail", "--set", "rpm=5", "--secret", "hushhush"
    )
    assert "there is no key" in palaver.refused("key", "disable", "nobody")
    entries = palaver.json("audit")
    create, disable = entries
    assert create["actor"].startswith(f"{getpass.getuser()}@")
    assert (create["action"], create["application"], create["outcome"]) == ("key create", "shop", "done")
    assert create["arguments"] == {"dialect": "snail", "settings": {"rpm": 5}}
    assert (disable["action"], disable["arguments"]) == ("key disable", {"id": "nobody"})
    assert disable["outcome"].startswith("failed: ")
    palaver.json("app", "delete", "shop", "--yes")
    assert [entry["action"] for entry in palaver.json("audit", "--limit", "2")] == ["key disable", "app delete"]
    everything = palaver.says("audit")
    assert "hushhush" not in everything
    assert made["id"] not in everything
    assert [entry["action"] for entry in palaver.json("audit", "--app", "shop")] == ["key create"]
