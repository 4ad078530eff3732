"""A conversation of long messages, read through every call that reads one: each message once and in its order, in
bounded memory, and nobody else is held up."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.adapters import ADAPTERS
from support.histories import (
    ANSWER,
    LETTERS,
    TURNS,
    HistoryForm,
    LongConversation,
    empty_conversation,
    long_conversation,
)
from support.http_clients import Ask
from support.live_server import Served
from support.loops import watched

MAX_PAGE_BYTES = 700_000
SETTINGS = {"max_page_bytes": MAX_PAGE_BYTES}
READERS = 20
EACH = 2_000_000
"""Bytes of memory that a reader may cost at most; all of the conversation is four times that."""
STALL_S = 0.1
FORMS = [form for adapter in ADAPTERS.values() for form in adapter.histories]
each_form = pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])


@pytest.fixture(scope="module")
def conversation(served: Served) -> LongConversation:
    return long_conversation(served)


def pages(conversation: LongConversation, form: HistoryForm) -> Iterator[list[str]]:
    """The first letters of each page's messages, page by page."""
    ask, read = form.first(conversation)
    following: Ask | None = ask
    while following is not None:
        with conversation.served.connection() as connection:
            connection.send(following)
            answer = connection.answer()
        assert answer.status == 200, answer.body[:300]
        assert answer.complete
        texts, following = read(json.loads(answer.body))
        yield [text[:4] for text in texts]


@each_form
def test_every_message_comes_once_and_in_its_order(conversation: LongConversation, form: HistoryForm) -> None:
    read = list(pages(conversation, form))
    starts = [start for page in (reversed(read) if form.newest_first else read) for start in page]
    assert starts == conversation.starts[-form.max_messages :]
    if form.paged:
        most = MAX_PAGE_BYTES // (3 * LETTERS)
        assert all(sum(start != ANSWER for start in page) in {1, most} for page in read)
        assert len(read) >= TURNS // most


@each_form
def test_a_conversation_in_which_nothing_was_said_is_an_empty_page(
    conversation: LongConversation, form: HistoryForm
) -> None:
    empty = empty_conversation(conversation.served, conversation.agent)
    assert list(pages(empty, form)) == [[]]


@each_form
def test_nobody_is_held_up_meanwhile(conversation: LongConversation, form: HistoryForm) -> None:
    with watched(conversation.served) as loop:
        assert sum(map(len, pages(conversation, form))) == form.max_messages
    assert loop.worst < STALL_S


@each_form
def test_readers_that_take_nothing_cost_bounded_memory(conversation: LongConversation, form: HistoryForm) -> None:
    ask, _ = form.first(conversation)
    tracemalloc.start(1)
    try:
        with ExitStack() as stack:
            readers = [stack.enter_context(conversation.served.connection()) for _ in range(READERS)]
            for reader in readers:
                reader.send(ask)
            statuses = [reader.head().status for reader in readers]
            assert set(statuses) == {200}
            assert tracemalloc.get_traced_memory()[1] < READERS * EACH
    finally:
        tracemalloc.stop()


def test_what_a_model_reads_of_a_long_conversation_is_bounded(conversation: LongConversation) -> None:
    """Also where what is stored is small, as the same letter over and over is."""
    served = conversation.served
    get_messages = served.core.store.conversations.get_messages
    page = served.do(get_messages(conversation.who.app, conversation.id, limit=40, max_bytes=3 * LETTERS * 2 + 1000))
    assert [message.text[:4] for message in page.messages] == conversation.starts[-5:]
    assert page.next is not None
