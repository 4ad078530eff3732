"""One conversation, every dialect: what is begun at one door goes on at the others."""

from __future__ import annotations

import pytest
from support.dialect_clients import Door, doors
from support.live_server import Served

NAMES = ("sonaops", "wps", "xspace", "snail", "native")


@pytest.fixture
def all_doors(served: Served) -> dict[str, Door]:
    return doors(served, served.agent({"text": "turn ${turn}: ${content}"}))


@pytest.mark.parametrize("first", NAMES)
def test_a_conversation_begun_at_one_door_goes_on_at_the_others(all_doors: dict[str, Door], first: str) -> None:
    conversation = all_doors[first].open()
    expected = ["hi", "turn 1: hi"]
    for turn, name in enumerate(NAMES, 2):
        assert all_doors[name].say(conversation, f"at {name}") == f"turn {turn}: at {name}"
        expected += [f"at {name}", f"turn {turn}: at {name}"]
        for door in all_doors.values():
            if door.said is not None:
                assert door.said(conversation) == expected, door.name


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("renaming", ["xspace", "native"])
def test_a_title_set_at_one_door_is_shown_at_the_others(all_doors: dict[str, Door], first: str, renaming: str) -> None:
    conversation = all_doors[first].open()
    rename = all_doors[renaming].rename
    assert rename is not None
    rename(conversation, "新标题")
    for door in all_doors.values():
        if door.name_of is not None and door.listed is not None:
            assert conversation in door.listed(), door.name
            assert door.name_of(conversation) == "新标题", door.name


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("last", [name for name in NAMES if name != "sonaops"])
def test_a_conversation_deleted_at_one_door_is_gone_at_all(all_doors: dict[str, Door], first: str, last: str) -> None:
    conversation = all_doors[first].open()
    delete = all_doors[last].delete
    assert delete is not None
    assert not any(door.gone(conversation) for door in all_doors.values())
    delete(conversation)
    assert all(door.gone(conversation) for door in all_doors.values())
