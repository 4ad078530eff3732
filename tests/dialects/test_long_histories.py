"""A conversation of long messages, read through every call that reads one: each message once and in its order, in
bounded memory, and nobody else is held up."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from dialects.native import client as native
from dialects.snail import client_b as snail
from dialects.snail import client_c as snail_c
from dialects.wps import client as wps
from dialects.xspace import client as xspace
from support.http_clients import Ask
from support.live_server import Served
from support.loops import watched

from palaver.core.types import Agent, Principal

LETTERS = 100_000
"""Of a question: each is three bytes as it is stored."""
TURNS = 30
MAX_PAGE_BYTES = 700_000
SETTINGS = {"max_page_bytes": MAX_PAGE_BYTES}
USER = "ann"
READERS = 20
EACH = 2_000_000
"""Bytes of memory that a reader may cost at most; all of the conversation is four times that."""
STALL_S = 0.1


@dataclass(kw_only=True)
class Talk:
    """A conversation whose questions are long; what it said, by the first letters."""

    served: Served
    agent: Agent
    name: str
    id: int
    said: list[str] = field(default_factory=list[str])


@pytest.fixture(scope="module")
def talk(served: Served) -> Talk:
    agent = served.agent("yes")
    caller = native.Caller(served, user=USER)
    made = native.good(caller.ask("POST", "conversations", {"agent": agent.id}), 201)
    talk = Talk(served=served, agent=agent, name=made["uid"], id=made["id"])
    for number in range(TURNS):
        question = {"content": f"{number:04}" + "中" * LETTERS}
        native.good(caller.ask("POST", f"conversations/{talk.id}/messages", question))
        talk.said += [f"{number:04}", "yes"]
    return talk


Page = tuple[list[str], Ask | None]
"""Texts of the messages in their order, and how the next page is asked for."""


@dataclass(frozen=True, kw_only=True)
class Reads:
    """A call that reads a conversation. ``newest``: it begins with the newest page, and goes back."""

    name: str
    first: Callable[[Talk], tuple[Ask, Callable[[Any], Page]]]
    newest: bool = False
    paged: bool = True
    """Whether its pages may be shorter than asked for."""
    most: int = 2 * TURNS
    """How many messages it shows at all: the newest."""


def _native(way: str) -> Callable[[Talk], tuple[Ask, Callable[[Any], Page]]]:
    def first(talk: Talk) -> tuple[Ask, Callable[[Any], Page]]:
        caller, path = native.Caller(talk.served, user=USER), f"conversations/{talk.id}/messages"

        def ask(query: str) -> Ask:
            return caller.request("GET", path, query=f"limit=100{query}")

        def read(page: Any) -> Page:
            said = page["messages"]
            texts = [one["text"] for one in said]
            if not page["more"]:
                return texts, None
            return texts, ask(f"&{way}={said[0 if way == 'before' else -1]['id']}")

        return ask("" if way == "before" else "&after=0"), read

    return first


def _wps(more: str) -> Callable[[Talk], tuple[Ask, Callable[[Any], Page]]]:
    def first(talk: Talk) -> tuple[Ask, Callable[[Any], Page]]:
        caller = wps.Caller(talk.served, talk.served.key("wps", default_user=USER))
        asked: list[str] = []  # the answer's id of a question, also where that comes on the next page

        def ask(token: str) -> Ask:
            query = f"session_id={talk.name}&page_size=100{more}" + (f"&next_page_token={token}" if token else "")
            return caller.request("GET", f"/v7/devhub/app/{talk.agent.uid}/session/messages", query=query)

        def read(page: Any) -> Page:
            said, token = page["data"]["items"], page["data"]["next_page_token"]
            for one in said:
                if one["role"] == "assistant":
                    assert one["id"] == one["chat_id"] == asked.pop()
                else:
                    asked.append(one["chat_id"])
            return [one["text"] for one in said], ask(token) if token else None

        return ask(""), read

    return first


def _xspace(talk: Talk) -> tuple[Ask, Callable[[Any], Page]]:
    caller = xspace.Caller(talk.served, default_user=USER)

    def ask(query: str) -> Ask:
        return caller.request("GET", f"{xspace.chat_path(talk.id)}/messages", query=f"limit=40{query}")

    def read(page: Any) -> Page:
        said = page["data"]
        whole = len(said) == 40  # as a client has to see it: there is no other word for the end
        return [one["text"] for one in said], ask(f"&index={said[0]['index']}") if whole else None

    return ask(""), read


def _older_xspace(talk: Talk) -> tuple[Ask, Callable[[Any], Page]]:
    caller = xspace.Caller(talk.served, default_user=USER, kind="agent", agent=str(talk.agent.uid))
    ask = caller.request("GET", f"/api/v1/conversation/{talk.id}")
    return ask, lambda page: ([one["text"] for one in page["data"]["messageList"]], None)


def _snail_b(talk: Talk) -> tuple[Ask, Callable[[Any], Page]]:
    caller = snail.Caller(talk.served)
    fields = {"agentId": talk.agent.id, "openId": caller.register(USER), "conversationId": talk.name}
    return caller.request("GET", snail.MESSAGES, fields), lambda page: ([one["content"] for one in page["data"]], None)


def _snail_c(talk: Talk) -> tuple[Ask, Callable[[Any], Page]]:
    browser = snail_c.Browser(talk.served, snail_c.token(talk.served.key("snail"), USER))
    ask = browser.request("GET", f"{snail_c.C}/messages", {"agentId": talk.agent.id, "conversationId": talk.name})
    return ask, lambda page: ([one["content"] for one in page["data"]], None)


READS = (
    Reads(name="native, back from the newest", first=_native("before"), newest=True),
    Reads(name="native, from the oldest", first=_native("after")),
    Reads(name="wps", first=_wps("")),
    Reads(name="wps, with_event", first=_wps("&with_event=true")),
    Reads(name="xspace", first=_xspace, newest=True, paged=False),
    Reads(name="xspace, older path", first=_older_xspace, paged=False, most=20),
    Reads(name="snail B", first=_snail_b, paged=False),
    Reads(name="snail C", first=_snail_c, paged=False),
)
EVERY = pytest.mark.parametrize("reads", [pytest.param(one, id=one.name) for one in READS])


def pages(talk: Talk, reads: Reads) -> Iterator[list[str]]:
    """The first letters of each page's messages, page by page."""
    ask, read = reads.first(talk)
    following: Ask | None = ask
    while following is not None:
        with talk.served.connection() as connection:
            connection.send(following)
            answer = connection.answer()
        assert answer.status == 200, answer.body[:300]
        assert answer.complete
        texts, following = read(json.loads(answer.body))
        yield [text[:4] for text in texts]


@EVERY
def test_every_message_comes_once_and_in_its_order(talk: Talk, reads: Reads) -> None:
    found = list(pages(talk, reads))
    whole = [one for page in (reversed(found) if reads.newest else found) for one in page]
    assert whole == talk.said[-reads.most :]
    if reads.paged:
        most = MAX_PAGE_BYTES // (3 * LETTERS)
        assert all(sum(one != "yes" for one in page) in {1, most} for page in found)
        assert len(found) >= TURNS // most


@EVERY
def test_a_conversation_in_which_nothing_was_said_is_an_empty_page(talk: Talk, reads: Reads) -> None:
    caller = native.Caller(talk.served, user=USER)
    made = native.good(caller.ask("POST", "conversations", {"agent": talk.agent.id}), 201)
    empty = Talk(served=talk.served, agent=talk.agent, name=made["uid"], id=made["id"])
    assert list(pages(empty, reads)) == [[]]


@EVERY
def test_nobody_is_held_up_meanwhile(talk: Talk, reads: Reads) -> None:
    with watched(talk.served) as loop:
        assert sum(map(len, pages(talk, reads))) == reads.most
    assert loop.worst < STALL_S


@EVERY
def test_readers_that_take_nothing_cost_bounded_memory(talk: Talk, reads: Reads) -> None:
    ask, _ = reads.first(talk)
    tracemalloc.start(1)
    try:
        with ExitStack() as stack:
            readers = [stack.enter_context(talk.served.connection()) for _ in range(READERS)]
            for reader in readers:
                reader.send(ask)
            statuses = [reader.head().status for reader in readers]
            assert set(statuses) == {200}
            assert tracemalloc.get_traced_memory()[1] < READERS * EACH
    finally:
        tracemalloc.stop()


def test_the_files_of_a_long_conversation_are_found_without_its_texts(talk: Talk) -> None:
    caller = xspace.Caller(talk.served, default_user=USER)
    tracemalloc.start(1)
    try:
        answer = caller.get(f"/api/v1/chat/{talk.id}/files")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert xspace.data(answer)["files"] == []
    assert most < TURNS * LETTERS * 2


def test_what_a_model_reads_of_a_long_conversation_is_bounded(talk: Talk) -> None:
    """Also where what is stored is small, as the same letter over and over is."""
    served = talk.served
    who = Principal(key=served.key("native"), user=USER)
    history = served.core.store.conversations.get_messages
    read = served.do(history(who.app, talk.id, limit=40, max_bytes=3 * LETTERS * 2 + 1000))
    assert [one.text[:4] for one in read.messages] == talk.said[-5:]
    assert read.next is not None
