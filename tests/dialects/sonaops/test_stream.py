"""Answers while they are written: events, heartbeats, ends."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from dialects.sonaops.client import USER, Caller, frames, joined, refused
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.events import Event, PartAdded, PartStarted, TextDelta
from palaver.core.problems import Internal, Upstream
from palaver.core.types import RunEnded, Status, Text, Thinking, ToolCall
from palaver.dialects.sonaops import requirements
from palaver.dialects.sonaops.stream import SonaopsEncoder

PING = b": ping\n\n"
CONVERSATION = UUID("a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d")
RUN = UUID("0b9f8e7d6c5b4a3f92e1d0c9b8a79685")
EXAMPLE = b"""event: thinking
data: {"event":"thinking","conversationId":"a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d","thought":"greet"}

: ping

event: message
data: {"event":"message","conversationId":"a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d","answer":"Hel"}

event: message
data: {"event":"message","conversationId":"a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d","answer":"lo"}

event: message_end
data: {"event":"message_end","conversationId":"a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d","finishReason":"stop"}

event: message_saved
data: {"event":"message_saved","messageId":"0b9f8e7d6c5b4a3f92e1d0c9b8a79685",\
"conversationId":"a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d"}

"""


def encoded(*events: Event) -> list[bytes]:
    frame = SonaopsEncoder(CONVERSATION, RUN)
    return [write for event in events for write in frame.encode(event, 0.0)]


# The encoder --------------------------------------------------------------------------------------------------------


@shows(requirements.stream_example, requirements.stream_heartbeat)
def test_the_specifications_example_byte_by_byte() -> None:
    frame = SonaopsEncoder(CONVERSATION, RUN)
    events = (
        PartStarted(part=Thinking()),
        TextDelta(text="greet"),
        PartAdded(part=ToolCall(call_id="1", name="x", arguments={})),
        PartStarted(part=Text()),
        TextDelta(text="Hel"),
        TextDelta(text="lo"),
        RunEnded(status=Status.COMPLETE),
    )
    writes = [write for event in events for write in frame.encode(event, 0.0)]
    assert b"".join([writes[0], frame.heartbeat, *writes[1:]]) == EXAMPLE
    assert len(writes) == 5
    assert (frame.aborts_on_failure, frame.always_heartbeat, frame.flush_at, frame.flush(0.0)) == (
        False,
        False,
        None,
        [],
    )


@shows(requirements.stream_ascii)
def test_the_streams_json_is_ascii() -> None:
    (write,) = encoded(PartStarted(part=Text()), TextDelta(text="你好\u2028\x7f🙂"))
    assert write.endswith(b'"answer":"\\u4f60\\u597d\\u2028\\u007f\\ud83d\\ude42"}\n\n')


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (RunEnded(status=Status.COMPLETE), "stop"),
        (RunEnded(status=Status.COMPLETE, reason="length"), "length"),
        (RunEnded(status=Status.COMPLETE, reason="content_filter"), "stop"),
        (RunEnded(status=Status.STOPPED), "cancelled"),
        (RunEnded(status=Status.STOPPED, reason="length"), "cancelled"),
    ],
)
@shows(requirements.stream_finish, requirements.stream_order)
def test_a_finish_reason_is_one_of_three(ended: RunEnded, reason: str) -> None:
    end, saved = encoded(ended)
    assert f'"finishReason":"{reason}"'.encode() in end
    assert saved.startswith(b"event: message_saved\n")


@pytest.mark.parametrize(
    ("ended", "code", "message"),
    [
        (RunEnded(status=Status.FAILED, problem=Upstream(reason="cut")), 10500, "Internal server error"),
        (RunEnded(status=Status.INTERRUPTED, problem=Internal(reason="interrupted")), 10500, "Internal server error"),
        (RunEnded(status=Status.FAILED), 10500, "Internal server error"),
        (
            RunEnded(status=Status.FAILED, problem=Upstream(reason="limit")),
            10429,
            "Too many requests, please try again later",
        ),
    ],
)
@shows(requirements.stream_error, requirements.stream_interrupted)
def test_a_failure_is_one_event(ended: RunEnded, code: int, message: str) -> None:
    assert encoded(ended) == [
        b'event: error\ndata: {"event":"error","conversationId":"a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d",'
        b'"code":%d,"message":"%s"}\n\n' % (code, message.encode())
    ]


# The served stream --------------------------------------------------------------------------------------------------


@shows(requirements.stream_headers, requirements.stream_order, requirements.stream_saved_last, requirements.r10)
def test_thinking_and_text_come_in_order_then_the_end_then_the_id(
    served: Served, caller: Caller, later: Caller
) -> None:
    agent = served.agent({"think": "greet"}, "Hel", {"think": "hm"}, "lo 用户")
    for one in (caller, later):
        conversation = one.create(agent)
        answer = one.say(agent, conversation)
        assert answer.status == 200
        assert answer.header("Content-Type") == "text/event-stream; charset=utf-8"
        assert answer.header("Cache-Control") == "no-cache"
        assert answer.header("X-Accel-Buffering") == "no"
        assert answer.header("Content-Length") is None
        assert answer.header("X-Request-ID")
        run_events = frames(answer.body)
        assert [name for name, _ in run_events] == ["thinking", "message"] * 2 + ["message_end", "message_saved"]
        assert (joined(run_events), joined(run_events, "thought")) == ("Hello 用户", "greethm")
        assert all(members["conversationId"] == conversation for _, members in run_events)
        _, stored = served.history(one.key, USER, conversation)
        assert run_events[-1][1]["messageId"] == stored.uid.hex
        assert all(len(frames(write)) == 1 for write in answer.writes if write != PING)
        assert answer.complete


@shows(
    requirements.stream_text_untrimmed,
    requirements.one_conversation,
    requirements.id_stays_valid,
    requirements.one_id_for_the_dialogue,
)
def test_a_dialogue_goes_on_under_its_id_and_is_stored_as_it_was_said(served: Served, caller: Caller) -> None:
    agent = served.agent("${turn}: ${content}")
    conversation = caller.create(agent)
    assert joined(frames(caller.say(agent, conversation, " \n用户 ").body)) == "1:  \n用户 "
    assert joined(frames(caller.say(agent, str(UUID(conversation)), "b").body)) == "2: b"
    history = served.history(caller.key, USER, conversation)
    assert [message.text for message in history] == [" \n用户 ", "1:  \n用户 ", "b", "2: b"]


@shows(requirements.stream_metadata)
def test_metadata_and_language_are_the_runs_variables(served: Served, caller: Caller) -> None:
    agent = served.agent(model="scripted", instructions='- text: "{{name}} {{language}} {{gone}}."')
    conversation = caller.create(agent)
    more: dict[str, Any] = {"language": "zh", "metadata": {"name": "Ada", "n": 1}}
    assert joined(frames(caller.say(agent, conversation, **more).body)) == "Ada zh ."
    assert joined(frames(caller.say(agent, conversation).body)) == "  ."


@shows(requirements.stream_heartbeat, requirements.stream_finish)
def test_an_idle_stream_pings_until_it_is_stopped(served: Served, caller: Caller) -> None:
    agent = served.agent("so far", HOLD)
    conversation = caller.create(agent)
    exchange = caller.begin(agent, conversation)
    exchange.head()
    assert (exchange.write() or b"").startswith(b"event: message\n")
    assert [exchange.write(), exchange.write()] == [PING] * 2
    served.stop_conversation(caller.key, USER, conversation)
    *pings, end, saved = exchange.rest()
    assert set(pings) <= {PING}
    assert b'"finishReason":"cancelled"' in end
    assert b"message_saved" in saved


@shows(requirements.stream_waiting, requirements.stream_finish)
def test_a_second_message_waits_and_ends_whole_when_it_is_stopped(served: Served, caller: Caller) -> None:
    agent = served.agent("first", HOLD)
    conversation = caller.create(agent)
    first = caller.begin(agent, conversation)
    first.head()
    first.write()
    second = caller.begin(agent, conversation)
    assert second.head().status == 200
    assert second.write() == PING
    assert served.stop_conversation(caller.key, USER, conversation) == 2
    ends = [[write for write in exchange.rest() if write != PING] for exchange in (first, second)]
    for writes in ends:
        assert [name for name, _ in frames(b"".join(writes))] == ["message_end", "message_saved"]


@shows(requirements.stream_finish)
def test_a_deleted_conversations_stream_is_cancelled(served: Served, caller: Caller) -> None:
    agent = served.agent("first", HOLD)
    conversation = caller.create(agent)
    exchange = caller.begin(agent, conversation)
    exchange.head()
    exchange.write()
    served.do(served.core.chat.delete_conversation(served.principal(caller.key, USER), conversation))
    run_events = frames(b"".join(exchange.rest()))
    assert [name for name, _ in run_events] == ["message_end", "message_saved"]
    assert run_events[0][1]["finishReason"] == "cancelled"


@shows(requirements.stream_error)
def test_a_failure_in_mid_stream_is_the_last_event_and_a_normal_end(served: Served, caller: Caller) -> None:
    for fail, code in (("cut", 10500), ("limit", 10429)):
        agent = served.agent("so far", {"fail": fail})
        answer = caller.say(agent, caller.create(agent))
        run_events = frames(answer.body)
        assert [name for name, _ in run_events] == ["message", "error"]
        assert list(run_events[-1][1]) == ["event", "conversationId", "code", "message"]
        assert run_events[-1][1]["code"] == code
        assert (answer.status, answer.complete) == (200, True)


@shows(requirements.stream_order)
def test_an_answer_without_text_has_no_message(served: Served, caller: Caller) -> None:
    agent = served.agent({"finish": "length"})
    run_events = frames(caller.say(agent, caller.create(agent)).body)
    assert [name for name, _ in run_events] == ["message_end", "message_saved"]
    assert run_events[0][1]["finishReason"] == "length"


@shows(requirements.r12, requirements.stream_goes_on)
def test_a_client_that_leaves_after_the_first_event_finds_the_whole_answer(served: Served, caller: Caller) -> None:
    agent = served.agent("one ", {"wait": 0.2}, "two")
    conversation = caller.create(agent)
    exchange = caller.begin(agent, conversation)
    exchange.head()
    exchange.write()
    exchange.hang_up()
    run = served.history(caller.key, USER, conversation)[-1].uid
    chat = served.core.chat
    reader = served.do(chat.resume(served.do(chat.open_run(served.principal(caller.key, USER), run))))
    while not reader.done:
        served.do(reader.wait())
        reader.take()
    assert served.history(caller.key, USER, conversation)[-1].text == "one two"


@shows(requirements.r11, requirements.stream_failure_before)
def test_a_strangers_conversation_is_refused_as_json(served: Served, caller: Caller) -> None:
    agent = served.agent("x")
    stranger = Caller(served, caller.key, user="somebody else")
    answer = stranger.say(agent, caller.create(agent))
    refused(answer, 10404, "Conversation not found")
    assert answer.header("Content-Type") == "application/json"


@shows(requirements.stream_replay)
def test_a_replayed_stream_has_the_same_events(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": "a"}, {"pieces": {"of": "abcdef"}})
    conversation = caller.create(agent)
    how = {"headers": {"Idempotency-Key": "s1", "X-Timestamp": None}}
    first, second = (caller.say(agent, conversation, how=how) for _ in range(2))
    assert (first.header("Idempotency-Replayed"), second.header("Idempotency-Replayed")) == (None, "true")
    assert [joined(frames(answer.body)) for answer in (first, second)] == ["abcdef"] * 2
    assert frames(first.body)[-2:] == frames(second.body)[-2:]
    assert len(served.history(caller.key, USER, conversation)) == 2
    conflict = caller.say(agent, conversation, "other", how=how)
    refused(conflict, 10422, "Idempotency-Key already used with a different request", http=422)


@shows(requirements.read_any_way, requirements.stream_ascii)
def test_one_byte_at_a_time_or_all_at_once_the_events_are_the_same(served: Served, caller: Caller) -> None:
    agent = served.agent(
        {"think": "用户"}, "你好🙂\u2028", {"wait": 0.15}, "\n\n}", {"repeat": {"text": "é", "times": 9}}
    )
    conversation = caller.create(agent)
    how = {"headers": {"Idempotency-Key": "bytes", "X-Timestamp": None}}
    streams: list[list[tuple[str, str]]] = []
    for at_once in (1, 1_000_000):
        with served.connection(at_once=at_once) as connection:
            connection.send(caller.asks(agent, conversation, how=how))
            answer = connection.answer()
        assert answer.complete
        assert all(write == PING or len(frames(write)) == 1 for write in answer.writes)
        run_events = frames(answer.body)
        streams.append(
            [
                ("thought", joined(run_events, "thought")),
                ("answer", joined(run_events)),
                ("end", json.dumps(run_events[-2:])),
            ]
        )
    assert streams[0] == streams[1]
    assert streams[0][1] == ("answer", "你好🙂\u2028\n\n}" + "é" * 9)
