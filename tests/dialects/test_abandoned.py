"""A turn that nobody reads, and the next message of its conversation: through every call that sends one, by the
credential's setting ``abandoned``."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import pytest
from support.adapters import ADAPTERS
from support.http_clients import Exchange
from support.live_server import HOLD, Served
from support.turns import FIRST_MESSAGE, MessageForm

FORMS = [form for adapter in ADAPTERS.values() for form in adapter.messages]
each_form = pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
STAYS = 0.6
"""Seconds for which a turn must not be stopped; an abandoned one is within milliseconds."""


class Conversation:
    """One conversation, whose first turn has begun and does not end by itself."""

    def __init__(self, served: Served, form: MessageForm, **settings: Any) -> None:
        self.served = served
        self.agent = served.agent("hello")
        self.request = form.open(served, self.agent, **settings)
        served.agent("so far", HOLD, name=self.agent.name)
        self.first = served.exchange(self.request(FIRST_MESSAGE))
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
        later = self.served.exchange(self.request("and now?"))
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


def until(stream: Exchange, words: bytes) -> None:
    """Read until those words have come."""
    seen = b""
    while words not in seen:
        piece = stream.write()
        assert piece is not None, seen
        seen += piece


def check_stopped(conversation: Conversation) -> None:
    conversation.first.hang_up()
    answer = conversation.served.ask(conversation.request("and now?"))
    assert b"on we go" in answer.body, answer.body
    assert answer.complete
    assert [status for status, _ in conversation.turns()] == ["stopped", "complete"]
    assert conversation.texts() == ["so far", "on we go"]


@each_form
def test_an_abandoned_turn_is_stopped_where_the_credential_says_so(served: Served, form: MessageForm) -> None:
    check_stopped(Conversation(served, form, abandoned="stop"))


@each_form
def test_an_abandoned_turn_is_waited_for_where_the_credential_says_so(served: Served, form: MessageForm) -> None:
    conversation = Conversation(served, form, abandoned="wait")
    conversation.first.hang_up()
    conversation.end(conversation.next_waits())


@each_form
def test_where_the_credential_says_nothing_it_is_as_the_vendors_clients_need_it(
    served: Served, form: MessageForm
) -> None:
    conversation = Conversation(served, form)
    if form.stops_abandoned:
        check_stopped(conversation)
    else:
        conversation.first.hang_up()
        conversation.end(conversation.next_waits())


@each_form
def test_a_turn_that_is_read_is_waited_for(served: Served, form: MessageForm) -> None:
    conversation = Conversation(served, form, abandoned="stop")
    later = conversation.next_waits()
    conversation.end(later)
    conversation.first.rest()
