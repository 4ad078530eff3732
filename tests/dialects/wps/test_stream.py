"""Answers while they are written, from a server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from dialects.wps.client import BEAT, USER, Caller, Event, agents, chat, chunks, data, merged, names, refused, spoken
from support.http_clients import Exchange
from support.kit import until
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.wps import requirements

ALL = [
    "vertices_sorted",
    "User complete",
    "end ChatInput",
    "Agent partial",
    "token",
    "Agent complete",
    "end Agent",
    "end ChatOutput",
    "end",
]


def next_said(exchange: Exchange, count: int = 1) -> list[Event]:
    """The next messages, heartbeats passed over."""
    events: list[Event] = []
    while len(events) < count:
        write = exchange.write()
        assert write is not None, "the stream has ended"
        events += spoken([write])
    return events


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"think": "hm"}, {"pieces": {"of": "You said: ${content}"}})


@shows(
    requirements.order,
    requirements.end_is_last,
    requirements.stream_headers,
    requirements.chat_headers,
    requirements.one_write,
)
def test_w3_a_streamed_chat(caller: Caller, agent: Agent) -> None:
    answer = caller.begin(agent, "你好").answer()
    events = spoken(answer.writes)
    assert merged(events) == ALL
    assert chunks(events) == "You said: 你好" == agents(events)[-1]["text"]
    assert answer.body.endswith(b'{"event": "end", "data": {}}\n\n')
    assert answer.complete
    assert answer.header("Content-Type") == "text/event-stream"
    assert answer.header("Cache-Control") == "no-cache"
    assert answer.header("X-Accel-Buffering") == "no"
    assert answer.header("Content-Length") is None
    first = events[1]["data"]
    assert (answer.header("X-Chat-Id"), answer.header("X-Session-Id")) == (first["chat_id"], first["session_id"])


@shows(
    requirements.beginning_before_words,
    requirements.chat_id_cancels,
    requirements.cancelled_run,
    requirements.heartbeat,
)
def test_w11_a_chat_is_cancelled_by_its_second_message_s_chat_id(served: Served, caller: Caller) -> None:
    agent = served.agent("so far", HOLD)
    exchange = caller.begin(agent)
    exchange.head()
    events = next_said(exchange, 2)
    while events[-1]["event"] != "token":
        events += next_said(exchange)
    while exchange.write() != BEAT:
        pass
    chat_id = events[1]["data"]["chat_id"]
    assert data(caller.cancel(agent, chat_id)) == {}
    events += spoken(exchange.rest())
    assert merged(events) == ALL
    assert agents(events)[-1]["text"] == "so far"
    assert data(caller.cancel(agent, chat_id)) == {}
    assert [item["text"] for item in caller.items(agent, events[1]["data"]["session_id"])] == ["hi", "so far"]


@shows(requirements.beginning_before_words)
def test_the_beginning_comes_while_the_model_is_still_silent(served: Served, caller: Caller) -> None:
    agent = served.agent(HOLD)
    exchange = caller.begin(agent)
    exchange.head()
    events = next_said(exchange, 4)
    assert names(events) == ALL[:4]
    caller.cancel(agent, events[1]["data"]["chat_id"])
    assert names(spoken(exchange.rest())) == ALL[5:]


@shows(requirements.cancelled_while_waiting, requirements.waiting_answers)
def test_a_waiting_chat_sends_nothing_and_ends_in_the_whole_form(served: Served, caller: Caller) -> None:
    agent = served.agent(HOLD)
    first = caller.begin(agent, "one")
    session = first.head().header("X-Session-Id")
    assert session is not None
    second = caller.begin(agent, "two", session_id=session)
    chat_id = second.head().header("X-Chat-Id")
    assert [second.write(), second.write()] == [BEAT, BEAT]
    listed = caller.items(agent, session, with_event="true")
    assert [(item["role"], item["state"]) for item in listed] == [
        ("user", "complete"),
        ("assistant", "partial"),
        ("user", "complete"),
    ]
    assert listed[2]["chat_id"] == chat_id
    caller.cancel(agent, str(chat_id))
    assert names(spoken(second.rest())) == [name for name in ALL if name != "token"]
    caller.cancel(agent, listed[0]["chat_id"])
    first.rest()


@shows(requirements.failed_run)
def test_w13_a_failing_model(served: Served, caller: Caller) -> None:
    agent = served.agent("so far", {"fail": "cut"})
    events = caller.hear(agent)
    assert names(events)[-3:] == ["Agent complete", "end Agent", "end"]
    assert agents(events)[-1]["error"]
    (_, item) = caller.items(agent, events[1]["data"]["session_id"], with_event="true")
    assert (item["text"], item["state"], item["error"]) == ("so far", "complete", True)
    assert item["events"] == agents(events)[-1]["content_blocks"]


@shows(requirements.leaving_cancels_nothing)
def test_w12_who_leaves_reads_the_whole_answer_later(served: Served, caller: Caller) -> None:
    agent = served.agent("a", {"wait": 0.05}, "b")
    exchange = caller.begin(agent)
    session = str(exchange.head().header("X-Session-Id"))
    while next_said(exchange)[0]["event"] != "token":
        pass
    exchange.hang_up()

    async def state() -> str:
        history = await served.list_messages(caller.key, USER, session)
        return history[1].text if history[1].ended else ""

    served.do(until(state, "ab"))
    assert [item["text"] for item in caller.items(agent, session)] == ["hi", "ab"]


@shows(requirements.streams_are_replayed, requirements.idempotency, requirements.durations_are_stored)
def test_a_replay_has_the_same_ids_and_times(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": "t"}, {"call": {"name": "none"}}, "a", {"wait": 0.01}, "b")
    headers = {"Idempotency-Key": "stream-1"}
    first = caller.begin(agent, headers=headers).answer()
    again = caller.begin(agent, headers=headers).answer()
    assert (first.header("Idempotency-Replayed"), again.header("Idempotency-Replayed")) == (None, "true")
    one, two = spoken(first.writes), spoken(again.writes)
    assert chunks(one) == chunks(two) == "ab"

    def lasting(events: list[Event]) -> list[Event]:
        partial = [event for event in events if event["event"] == "add_message" and '"partial"' in json.dumps(event)]
        return [event for event in events if event["event"] != "token" and event not in partial[1:]]

    assert lasting(one) == lasting(two)
    assert again.header("X-Chat-Id") == first.header("X-Chat-Id")


@pytest.mark.parametrize("at_once", [1, 65_536])
@shows(requirements.readers_of_any_pace, requirements.one_write, requirements.each_stream_message)
def test_a_reader_of_any_pace_reads_the_same(served: Served, caller: Caller, agent: Agent, at_once: int) -> None:
    body = {"text": "用户🙂\u2028", "stream": True}
    with served.connection(at_once=at_once) as connection:
        connection.send(caller.request("POST", chat(agent), body))
        answer = connection.answer()
    events = spoken(answer.writes)
    assert merged(events) == ALL
    assert agents(events)[-1]["text"] == "You said: 用户🙂\u2028"
    pieces = [json.loads(piece) for piece in answer.body.split(b"\n\n") if piece]
    assert pieces == events


@shows(requirements.data_prefix, requirements.media_types)
def test_w15_a_standard_reader_gets_each_message(served: Served, agent: Agent) -> None:
    key = served.key("wps", sse_data_prefix=True, stream_media_type="application/x-ndjson", partial_every_ms=0)
    answer = Caller(served, key).begin(agent).answer()
    assert answer.header("Content-Type") == "application/x-ndjson"
    frames = [write for write in answer.writes if write != b": ping\n\n"]
    assert all(frame.startswith(b"data: {") for frame in frames)
    assert merged(spoken([frame.removeprefix(b"data: ") for frame in frames])) == ALL


@shows(requirements.partials_are_merged)
def test_a_pending_partial_goes_out_while_the_model_is_silent(served: Served, agent: Agent) -> None:
    patient = Caller(served, served.key("wps", partial_every_ms=200))
    silent = served.agent("so far", HOLD)
    exchange = patient.begin(silent)
    exchange.head()
    events = next_said(exchange, 5)
    assert names(events) == ALL[:5]
    (partial,) = next_said(exchange)
    assert partial["data"]["text"] == "so far"
    patient.cancel(silent, events[1]["data"]["chat_id"])
    exchange.rest()


@shows(requirements.error_event)
def test_an_error_event_where_the_credential_wants_one(served: Served) -> None:
    caller = Caller(served, served.key("wps", error_event=True))
    assert "error" in names(caller.hear(served.agent({"fail": "cut"})))


@shows(requirements.limits)
def test_too_many_waiting_messages_are_refused(served: Served, caller: Caller) -> None:
    agent = served.agent(HOLD)
    chats = [data(caller.say(agent))]
    session = chats[0]["session_id"]
    chats += [data(caller.say(agent, session_id=session)) for _ in range(4)]
    answer = caller.say(agent, session_id=session)
    refused(answer, 429, 429000001, "kso: ResourceExhausted err: too many requests")
    assert answer.header("Retry-After") == "1"
    for one in reversed(chats):
        caller.cancel(agent, one["chat_id"])


GAP_S = 0.03
"""The default of ``token_gap_ms``."""


@shows(requirements.messages_keep_away_from_tokens)
def test_a_message_keeps_away_from_when_a_token_was_written(served: Served, caller: Caller) -> None:
    """A socket that is full takes a token later than it was made."""
    agent = served.agent(*(step for _ in range(6) for step in ("x", {"wait": 0.2})))
    gaps, last = list[float](), 0.0

    async def full(scope: Any, receive: Any, send: Any) -> None:
        async def later(message: Mapping[str, Any]) -> None:
            nonlocal last
            body = message.get("body", b"")
            if b'"event": "token"' in body:
                await asyncio.sleep(1.5 * GAP_S)
                last = time.monotonic()
            elif b'"sender_name": "Agent"' in body and last:
                gaps.append(time.monotonic() - last)
            await send(message)

        await served.front(scope, receive, later)

    ask = caller.request("POST", chat(agent), {"text": "hi", "stream": True})
    assert Exchange(full, served.loop, ask).answer().complete
    assert len(gaps) >= 5
    assert min(gaps) > GAP_S
