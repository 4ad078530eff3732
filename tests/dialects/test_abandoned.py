"""A turn that nobody reads, and the next message of its conversation: at every front door, by the credential's setting
``abandoned``. Snail's pages and SDK have no stop but to close the connection, so there it is stopped by default."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from dialects.native import client as native
from dialects.snail import client as snail
from dialects.snail import client_b as snail_b
from dialects.snail import client_c as snail_c
from dialects.sonaops import client as sonaops
from dialects.wps import client as wps
from dialects.xspace import client as xspace
from support.http_clients import Ask, Exchange
from support.live_server import HOLD, Served

from palaver.core.types import Agent

USER = "ann"
Says = Callable[[str], Ask]
"""A message in one and the same conversation."""


def _sonaops(served: Served, agent: Agent, **settings: Any) -> Says:
    caller = sonaops.Caller(served, served.key("sonaops", **settings), user=USER)
    conversation = caller.create(agent)
    return lambda text: caller.asks(agent, conversation, text)


def _wps(served: Served, agent: Agent, **settings: Any) -> Says:
    caller = wps.Caller(served, served.key("wps", default_user=USER, **settings))
    path = f"/v7/devhub/app/{agent.uid}/chat/create"
    said = caller.hear(agent, "hello")
    place = next(event["data"]["session_id"] for event in said if event["event"] == "add_message")
    return lambda text: caller.request("POST", path, {"text": text, "stream": True, "session_id": place})


def _xspace(served: Served, agent: Agent, **settings: Any) -> Says:
    caller = xspace.Caller(served, default_user=USER, **settings)
    path = xspace.chat_path(caller.add(agent))
    return lambda text: caller.request("POST", path, {"message": text})


def _native(served: Served, agent: Agent, **settings: Any) -> Says:
    caller = native.Caller(served, user=USER, **settings)
    place = caller.ask("POST", "conversations", {"agent": agent.id}).json()["id"]
    path = f"conversations/{place}/messages"
    return lambda text: caller.request("POST", path, {"content": text}, headers=native.EVENTS)


def _snail_a(accept: str) -> Callable[..., Says]:
    def says(served: Served, agent: Agent, **settings: Any) -> Says:
        caller, place = snail.Caller(served, served.key("snail", **settings)), served.new_name("conversation")
        headers = {"Accept": accept}
        return lambda text: caller.request(caller.members(agent, text, conversationId=place), headers=headers)

    return says


def _snail_b(path: str) -> Callable[..., Says]:
    def says(served: Served, agent: Agent, **settings: Any) -> Says:
        caller, place = snail_b.Caller(served, **settings), served.new_name("conversation")
        where = {"agentId": agent.id, "openId": caller.register(), "conversationId": place}
        later = {"hi": snail_b.CHAT}  # who waits for the whole answer reads the run until its end
        return lambda text: caller.request(
            "POST", later.get(text, path), {**where, "content": text}, headers=snail_b.EVENTS
        )

    return says


def _snail_c(served: Served, agent: Agent, **settings: Any) -> Says:
    program, place = snail_b.Caller(served, **settings), served.new_name("conversation")
    browser = snail_c.Browser(served, snail_c.token(program.key, program.register()))
    where = {"agentId": agent.id, "conversationId": place}
    return lambda text: browser.request("POST", snail_c.COMPLETIONS, body={**where, "content": text})


@dataclass(frozen=True, slots=True)
class Door:
    name: str
    says: Callable[..., Says]
    stops: bool = False
    """Whether a new message stops an abandoned turn where the credential says nothing."""


DOORS = (
    Door("sonaops", _sonaops),
    Door("wps", _wps),
    Door("xspace", _xspace),
    Door("native", _native),
    Door("snail A", _snail_a("*/*"), stops=True),
    Door("snail A as events", _snail_a("text/event-stream"), stops=True),
    Door("snail B", _snail_b(snail_b.CHAT), stops=True),
    Door("snail B, whole answers", _snail_b(snail_b.SYNC), stops=True),
    Door("snail C", _snail_c, stops=True),
)
each_door = pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])


class Talk:
    """One conversation, whose first turn has begun and does not end by itself."""

    def __init__(self, served: Served, door: Door, **settings: Any) -> None:
        self.served = served
        self.agent = served.agent("hello")
        self.says = door.says(served, self.agent, **settings)
        served.agent("so far", HOLD, name=self.agent.name)
        self.first = served.exchange(self.says("hi"))
        self.first.head()
        until(self.first, b"so far")
        served.agent("on we go", name=self.agent.name)

    def turns(self) -> list[tuple[str, UUID]]:
        """(status, run) of every turn from the first on."""
        rows = self.served.sql(
            "SELECT m.status, m.uid FROM message m JOIN conversation c ON c.app = m.app AND c.id = m.conversation"
            " WHERE c.agent = $1 AND m.role = 'assistant' AND m.parts::text NOT LIKE '%hello%' ORDER BY m.id",
            self.agent.id,
        )
        return [(row["status"], row["uid"]) for row in rows]

    def texts(self) -> list[str]:
        """What is kept of them."""
        rows = self.served.sql(
            "SELECT p->>'text' AS text FROM message, jsonb_array_elements(parts) p WHERE uid = ANY($1) ORDER BY id",
            [run for _, run in self.turns()],
        )
        return [row["text"] for row in rows]

    def next_waits(self) -> Exchange:
        """The next message, which waits for the first turn."""
        later = self.served.exchange(self.says("and now?"))
        while len(self.turns()) < 2:
            time.sleep(0.01)
        until_then = time.monotonic() + STAYS
        while time.monotonic() < until_then:
            assert [status for status, _ in self.turns()] == ["live", "live"]
            time.sleep(0.05)
        return later

    def end(self, later: Exchange) -> None:
        """End the first turn as another dialect's stop would; the next one is answered then."""
        (_, first), _ = self.turns()
        assert self.served.stop_run(first)
        answer = later.answer()
        assert b"on we go" in answer.body
        assert self.texts() == ["so far", "on we go"]


STAYS = 0.6
"""Seconds for which a turn must not be stopped; an abandoned one is within milliseconds."""


def until(stream: Exchange, words: bytes) -> None:
    """Read until those words have come."""
    seen = b""
    while words not in seen:
        piece = stream.write()
        assert piece is not None, seen
        seen += piece


def check_stopped(talk: Talk) -> None:
    talk.first.hang_up()
    answer = talk.served.ask(talk.says("and now?"))
    assert b"on we go" in answer.body, answer.body
    assert answer.complete
    assert [status for status, _ in talk.turns()] == ["stopped", "complete"]
    assert talk.texts() == ["so far", "on we go"]


@each_door
def test_an_abandoned_turn_is_stopped_where_the_credential_says_so(served: Served, door: Door) -> None:
    check_stopped(Talk(served, door, abandoned="stop"))


@each_door
def test_an_abandoned_turn_is_waited_for_where_the_credential_says_so(served: Served, door: Door) -> None:
    talk = Talk(served, door, abandoned="wait")
    talk.first.hang_up()
    talk.end(talk.next_waits())


@each_door
def test_where_the_credential_says_nothing_it_is_as_the_vendors_clients_need_it(served: Served, door: Door) -> None:
    talk = Talk(served, door)
    if door.stops:
        check_stopped(talk)
    else:
        talk.first.hang_up()
        talk.end(talk.next_waits())


@each_door
def test_a_turn_that_is_read_is_waited_for(served: Served, door: Door) -> None:
    talk = Talk(served, door, abandoned="stop")
    later = talk.next_waits()
    talk.end(later)
    talk.first.rest()
