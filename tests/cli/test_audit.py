"""``palaver audit``: every command that changes something is in it."""

from __future__ import annotations

import getpass
import inspect
from collections.abc import Generator
from typing import Any

from support.commands import Palaver

from palaver.cli import cli
from palaver.cli.help import command_tree

READ_ONLY = {
    *("agent list", "agent show", "app list", "audit", "config", "conformance", "doctor", "openapi"),
    *("database dump", "database url"),
    *("key list", "key settings", "knowledge list", "knowledge documents", "knowledge search", "user export"),
}
"""Commands that change nothing."""
ELSEWHERE = {"serve", "worker", "chat", "migrate", "database restore"}
"""A server's and an end user's work is in the log and in the conversation; the others change the audit's own tables."""


def _commands(command: Any, *path: str) -> Generator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), command
        return
    for name, one in below.items():
        yield from _commands(one, *path, name)


def test_every_command_changes_nothing_or_is_in_the_audit() -> None:
    commands = dict(_commands(command_tree(cli)))
    actions: dict[str, Any] = {}
    for name, command in commands.items():
        work: Any = getattr(command.callback, "work", None)
        if (change := getattr(work, "audited", None)) is not None:
            actions[name] = change
            assert change.action == name
            assert set(change.names) <= set(inspect.signature(work).parameters), name
            assert "secret" not in change.names, name
    assert set(commands) - set(actions) == READ_ONLY | ELSEWHERE


def test_a_change_is_listed_with_who_what_and_how_it_ended(palaver: Palaver) -> None:
    made = palaver.json(
        "key", "create", "--app", "shop", "--dialect", "snail", "--set", "rpm=5", "--secret", "hushhush"
    )
    assert "there is no key" in palaver.refused("key", "disable", "nobody")
    entries = palaver.json("audit")
    create, disable = entries
    assert create["actor"].startswith(f"{getpass.getuser()}@")
    assert (create["action"], create["application"], create["outcome"]) == ("key create", "shop", "done")
    assert create["arguments"] == {"dialect": "snail", "set_": ["rpm=5"]}
    assert (disable["action"], disable["arguments"]) == ("key disable", {"id": "nobody"})
    assert disable["outcome"].startswith("failed: ")
    palaver.json("app", "delete", "shop", "--yes")
    assert [entry["action"] for entry in palaver.json("audit", "--limit", "2")] == ["key disable", "app delete"]
    everything = palaver.says("audit")
    assert "hushhush" not in everything
    assert made["id"] not in everything
    assert [entry["action"] for entry in palaver.json("audit", "--app", "shop")] == ["key create"]
