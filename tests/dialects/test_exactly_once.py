"""A retry never doubles a message or a run, wherever the connection was cut; and messages take turns."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from dialects.snail import client as snail
from support.adapters import STREAM_FORMS
from support.http_clients import Answer, Ask
from support.live_server import Served
from support.stream_forms import Event, StreamForm, said, split

SETTINGS = {"max_waiting_turns": 100}
SAID = "苹果放一个月。🍎" * 20
KILOBYTE = 1024
"""How much of an answer is cut …"""
STRIDE = 97
"""… at every byte in one form, in the others at every one that this divides."""
AT_ONCE = {"snail A": 50}
"""How many callers make one call at once; of the other forms a few."""

each_form = pytest.mark.parametrize("form", STREAM_FORMS, ids=lambda form: form.name)
keys = (f"call-{number}" for number in itertools.count(1))


def keyed(ask: Ask) -> Ask:
    """The same call under a key of its own."""
    return ask.also("Idempotency-Key", next(keys))


def turns(served: Served) -> tuple[int, int]:
    """How many questions and how many answers there are."""
    (row,) = served.sql("SELECT count(*) FILTER (WHERE role = 'user'), count(*) FROM message")
    return row[0], row[1] - row[0]


def cut(served: Served, raw: bytes, *, heard: int = 0) -> None:
    """Send so much, hear so much, and go away."""
    with served.connection(at_once=1 if heard < 64 else 64) as connection:
        connection.send_raw(raw)
        connection.hear(heard)


def whole(served: Served, ask: Ask) -> Answer:
    with served.connection() as connection:
        connection.send(ask)
        answer = connection.answer()
    assert answer.status == 200
    return answer


def events(form: StreamForm, answer: Answer) -> list[Event]:
    return said(split(answer.writes, form.mark))


@each_form
def test_a_request_cut_anywhere_and_sent_again_is_one_turn(served: Served, form: StreamForm) -> None:
    ask = keyed(form.ask(served, served.agent(SAID)))
    before, raw = turns(served), ask.raw()
    for sent in (*range(1, len(raw), 1 if form.name == "snail A" else STRIDE), len(raw) - 1):
        cut(served, raw[:sent])
    assert turns(served) == before
    cut(served, raw)  # all of it, and away before a byte of the answer
    whole(served, ask)
    assert turns(served) == (before[0] + 1, before[1] + 1)


@each_form
def test_an_answer_cut_anywhere_and_asked_for_again_is_the_same_answer(served: Served, form: StreamForm) -> None:
    unkeyed = form.ask(served, served.agent(SAID))
    expected = events(form, whole(served, unkeyed))
    before = turns(served)
    places = range(1, KILOBYTE + 1, 1 if form.name == "snail A" else STRIDE)

    def again(heard: int) -> bool:
        ask = keyed(unkeyed)
        cut(served, ask.raw(), heard=heard)
        answer = whole(served, ask)
        return answer.header("Idempotency-Replayed") == "true" and events(form, answer) == expected

    with ThreadPoolExecutor(16) as callers:
        assert all(callers.map(again, places))
    assert turns(served) == (before[0] + len(places), before[1] + len(places))


@each_form
def test_equal_calls_at_once_are_one_turn_which_all_of_them_hear(served: Served, form: StreamForm) -> None:
    calls = AT_ONCE.get(form.name, 8)
    ask = keyed(form.ask(served, served.agent({"wait": 0.05}, SAID)))
    before = turns(served)
    with ThreadPoolExecutor(calls) as callers:
        answers = list(callers.map(partial(whole, served), [ask] * calls))
    assert turns(served) == (before[0] + 1, before[1] + 1)
    assert [answer.header("Idempotency-Replayed") for answer in answers].count(None) == 1
    heard = [events(form, answer) for answer in answers]
    assert all(one == heard[0] for one in heard)


def test_a_hundred_messages_at_once_leave_questions_and_answers_in_turn(served: Served) -> None:
    caller, agent = snail.Caller(served), served.agent("you said ${content}")
    asks = [caller.request(caller.members(agent, f"{number}", conversationId="busy")) for number in range(100)]
    with ThreadPoolExecutor(len(asks)) as callers:
        answers = list(callers.map(partial(whole, served), asks))
    for number, answer in enumerate(answers):
        assert snail.joined(snail.events(answer)) == f"you said {number}"
    history = served.history(caller.key, snail.USER, "busy", limit=1000)
    assert [message.role for message in history] == ["user", "assistant"] * 100
    for question, answer in zip(history[::2], history[1::2], strict=True):
        assert answer.text == f"you said {question.text}"
