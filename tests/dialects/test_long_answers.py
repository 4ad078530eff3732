"""An answer of 4 MiB costs its reader what it costs, and the others on the server next to nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from dialects.native import client as native
from dialects.snail import client_b as snail_b
from dialects.wps import client as wps
from dialects.xspace import client as xspace
from support.adapters import ADAPTERS, STREAM_FORMS
from support.contract import DIALECTS
from support.contract import Form as Encoding
from support.http_clients import Answer, Ask
from support.live_server import Served
from support.loops import watched
from support.stream_forms import StreamForm

from palaver.core.events import PartStarted, TextDelta
from palaver.core.runs import MAX_READ_CHARACTERS
from palaver.core.types import Agent, RunEnded, Status, Text

SIZE = 4 * 2**20
"""Bytes of the answer in UTF-8."""
STALL_S = 0.1
"""Seconds of its processor that one turn of the loop may take: twice what it does, for the sake of machines."""
ENDING_S = 0.05
ENCODINGS = [pytest.param(form, id=f"{name} {form.name}") for name in DIALECTS for form in ADAPTERS[name].forms]


@pytest.mark.parametrize("letter", ["中", "é", "🍎", "a"])
@pytest.mark.parametrize("form", ENCODINGS)
def test_the_end_of_a_long_answer_costs_an_encoder_little(form: Encoding, letter: str) -> None:
    encoder = form.encoder()
    encoder.encode(PartStarted(part=Text()), 0.0)
    for _ in range(SIZE // MAX_READ_CHARACTERS):
        encoder.encode(TextDelta(text=letter * MAX_READ_CHARACTERS), 0.0)
    began = time.thread_time()
    encoder.encode(RunEnded(status=Status.COMPLETE), 1.0)
    assert time.thread_time() - began < ENDING_S


PIECE = "苹🍎" * 100
TIMES = SIZE // len(PIECE.encode())
LETTERS = TIMES * 100


def _talker(served: Served) -> Agent:
    return served.agent({"repeat": {"text": PIECE, "times": TIMES}})


def letters(answer: Answer) -> int:
    """How many of the answer's first letter are there, in either form."""
    return answer.body.count(b"\\u82f9") + answer.body.count("苹".encode())


def _native(served: Served, agent: Agent) -> Ask:
    return native.Caller(served).request("POST", "messages", {"agent": agent.uid.hex, "content": "hi"})


def _snail_b(served: Served, agent: Agent) -> Ask:
    caller = snail_b.Caller(served)
    return caller.request("POST", snail_b.SYNC, _fields(agent, caller.register()))


WHOLE = (
    StreamForm(name="native, whole", ask=_native),
    StreamForm(name="snail B, whole", ask=_snail_b),
)


@pytest.mark.parametrize("form", [pytest.param(form, id=form.name) for form in (*STREAM_FORMS, *WHOLE)])
def test_a_long_answer_holds_nobody_up(served: Served, form: StreamForm) -> None:
    ask = form.ask(served, _talker(served))
    with watched(served) as loop, served.connection() as connection:
        connection.send(ask)
        answer = connection.answer()
    assert letters(answer) >= LETTERS
    assert loop.worst < STALL_S


def _native_history(served: Served, agent: Agent) -> Ask:
    caller = native.Caller(served)
    sent = native.good(served.ask(_native(served, agent)))
    return caller.request("GET", f"conversations/{sent['conversation']['id']}/messages")


def _snail_b_history(served: Served, agent: Agent) -> Ask:
    caller = snail_b.Caller(served)
    user = caller.register()
    served.ask(caller.request("POST", snail_b.SYNC, _fields(agent, user) | {"conversationId": "talk"}))
    members = {"agentId": agent.id, "openId": user, "conversationId": "talk"}
    return caller.request("GET", snail_b.MESSAGES, members)


def _wps_history(served: Served, agent: Agent) -> Ask:
    caller = wps.Caller(served)
    events = caller.begin(agent).answer().body.split(b"\n\n")
    (first, *_) = (event["data"] for event in map(json.loads, events[:3]) if event["event"] == "add_message")
    session = first["session_id"]
    return caller.request("GET", f"/v7/devhub/app/{agent.uid}/session/messages", query=f"session_id={session}")


def _xspace_history(served: Served, agent: Agent) -> Ask:
    caller = xspace.Caller(served)
    conversation = caller.add(agent)
    caller.say(conversation)
    return caller.request("GET", f"{xspace.chat_path(conversation)}/messages")


HISTORIES = (_native_history, _snail_b_history, _wps_history, _xspace_history)


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_with_a_long_answer_holds_nobody_up(served: Served, history: Callable[[Served, Agent], Ask]) -> None:
    ask = history(served, _talker(served))
    with watched(served) as loop, served.connection() as connection:
        connection.send(ask)
        answer = connection.answer()
    assert letters(answer) >= LETTERS
    assert loop.worst < STALL_S


def _fields(agent: Agent, user: str) -> dict[str, Any]:
    return {"agentId": agent.id, "openId": user, "content": "hi"}
