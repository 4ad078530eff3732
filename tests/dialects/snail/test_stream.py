"""Answers while they are written: lines, heartbeats, ends."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest
from dialects.snail.client import USER, Caller, Event, done, events, joined, refused
from support.databases import Databases
from support.http_clients import Broken, Exchange
from support.kit import run
from support.live_server import HOLD, Served, serving
from support.requirements import shows

from palaver.core.types import Status
from palaver.dialects.snail import requirements

ERROR = (
    b'{"type":"error","code":0,"msg":"\\u7cfb\\u7edf\\u5f02\\u5e38","data":null,"status":0,'
    b'"message":"\\u7cfb\\u7edf\\u5f02\\u5e38"}\n'
)
BEAT = b"\n"
BUSY = "会话繁忙，请稍后再试"


def lines(exchange: Exchange) -> list[bytes]:
    """What is still to come, heartbeats left out."""
    return [write for write in exchange.rest() if write != BEAT]


def beats(exchange: Exchange, count: int) -> None:
    """Wait for so many heartbeats, and nothing else."""
    assert [exchange.write() for _ in range(count)] == [BEAT] * count


def live(served: Served, conversation: str) -> list[UUID]:
    """The runs of a conversation that are not over, in order."""
    rows = served.sql(
        "SELECT m.uid FROM message m JOIN conversation c ON c.app = m.app AND c.id = m.conversation"
        " WHERE c.alias = $1 AND m.status = 'live' ORDER BY m.id",
        conversation,
    )
    return [row["uid"] for row in rows]


# Headers ------------------------------------------------------------------------------------------------------------


@shows(requirements.stream_headers, requirements.media_type)
def test_a_stream_is_not_kept_not_buffered_and_not_compressed(served: Served, caller: Caller) -> None:
    agent = served.agent("yes")
    ask = caller.request(caller.members(agent), headers={"Accept-Encoding": "gzip, deflate, br, zstd"})
    with served.connection() as connection:
        connection.send(ask)
        answer = connection.answer()
    assert answer.status == 200
    assert answer.header("Content-Type") == "application/x-ndjson"
    assert answer.header("Cache-Control") == "no-cache"
    assert answer.header("X-Accel-Buffering") == "no"
    assert answer.header("Transfer-Encoding") == "chunked"
    assert answer.header("Content-Length") is None
    assert answer.header("Content-Encoding") is None


@shows(requirements.headers_come_first, requirements.conversation_header)
def test_headers_come_before_the_model_has_said_anything(served: Served, caller: Caller) -> None:
    agent = served.agent(HOLD)
    with served.connection() as connection:
        connection.send(caller.request(caller.members(agent, conversationId="silent")))
        head = connection.head()
        assert (head.status, head.header("X-Conversation-Id")) == (200, "silent")
        assert live(served, "silent")
        served.stop_conversation(caller.key, USER, "silent")
        while connection.chunk() is not None:
            pass


# Lines --------------------------------------------------------------------------------------------------------------


@shows(
    requirements.lines_are_compact_ascii, requirements.done_line, requirements.two_members, requirements.alias_or_uuid
)
def test_the_specifications_example_byte_by_byte(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": "look it up"}, "根据\n\n## A\n")
    answer = caller.say(agent, conversationId="2f1c9d60-6a0e-4f7b-9b7d-0a1b2c3d4e5f")
    assert answer.writes == [
        b'{"type":"thinking","content":"look it up"}\n',
        b'{"type":"text","content":"\\u6839\\u636e\\n\\n## A\\n"}\n',
        b'{"type":"done","conversationId":"2f1c9d60-6a0e-4f7b-9b7d-0a1b2c3d4e5f",'
        b'"fullText":"\\u6839\\u636e\\n\\n## A\\n"}\n',
    ]


@shows(
    requirements.order_of_lines, requirements.full_text, requirements.thinking_lines, requirements.text_lines_are_joined
)
def test_thinking_and_text_come_in_the_order_they_were_said(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": "a"}, "b", {"think": "c"}, "d", "e", {"think": "f"})
    run_events = events(caller.say(agent))
    assert [event["type"] for event in run_events] == ["thinking", "text", "thinking", "text", "thinking", "done"]
    assert [event["content"] for event in run_events[:-1]] == ["a", "b", "c", "de", "f"]
    assert run_events[-1]["fullText"] == "bde"


@shows(requirements.done_line)
def test_an_answer_without_a_word_is_done(served: Served, caller: Caller) -> None:
    for agent in (served.agent({"finish": "stop"}), served.agent({"think": "hm"}), served.agent("", {"think": ""})):
        run_events = events(caller.say(agent))
        assert (run_events[-1]["type"], run_events[-1]["fullText"]) == ("done", "")
        assert joined(run_events) == ""


@shows(requirements.no_empty_deltas)
def test_deltas_are_never_empty(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": ""}, "", {"pieces": {"of": "abc"}}, "", {"repeat": {"text": "", "times": 3}}, " ")
    run_events = events(caller.say(agent))
    assert all(event["content"] for event in run_events[:-1])
    assert joined(run_events) == "abc "


@shows(requirements.one_event_one_write, requirements.lines_are_compact_ascii)
def test_a_long_answer_is_one_line_a_write_however_it_is_cut(served: Served, caller: Caller) -> None:
    agent = served.agent({"repeat": {"text": "a\n🙂", "times": 500}}, {"pieces": {"of": "xyz" * 100, "size": 7}})
    answer = caller.say(agent)
    for write in answer.writes:
        assert write == json.dumps(json.loads(write), separators=(",", ":")).encode() + b"\n"
    whole = "a\n🙂" * 500 + "xyz" * 100
    assert joined(events(answer)) == whole == done(answer)["fullText"]


@shows(requirements.stream_is_ascii)
def test_a_stream_is_ascii_and_the_same_text(served: Served, caller: Caller) -> None:
    text = '~\x7f\x80\x85\xa0é用\u2028\u2029\ufeff\uffff🙂\U0010ffff "\\/\b\f\n\r\t\x01'
    agent = served.agent({"think": "${content}"}, "${content}")
    answer = caller.say(agent, text, conversationId="ключ \u2028")
    assert all(byte <= 0x7E for byte in answer.body)
    assert set(re.findall(rb"\\u(....)", answer.body)) >= {
        b"007f",
        b"00e9",
        b"2028",
        b"ffff",
        b"d83d",
        b"de42",
        b"0001",
    }
    run_events = events(answer)
    assert joined(run_events) == joined(run_events, "thinking") == run_events[-1]["fullText"] == text


@pytest.mark.parametrize("at_once", [1, 2, 7, 65_536])
@shows(requirements.one_event_one_write, requirements.answer_is_ndjson, requirements.stream_is_ascii)
def test_a_reader_of_any_pace_reads_the_same_and_a_chunk_is_a_line(
    served: Served, caller: Caller, at_once: int
) -> None:
    agent = served.agent({"think": "用户 needs"}, {"wait": 0.15}, "根据🙂\n", {"wait": 0.01}, "data")
    with served.connection(at_once=at_once) as connection:
        connection.send(caller.request(caller.members(agent)))
        answer = connection.answer()
    assert all(write.endswith(b"\n") and write.count(b"\n") == 1 for write in answer.writes)
    assert joined(events(answer), "thinking") == "用户 needs"
    assert joined(events(answer)) == "根据🙂\ndata" == done(answer)["fullText"]


# Heartbeats ---------------------------------------------------------------------------------------------------------


@shows(requirements.heartbeats, requirements.heartbeat_is_an_empty_line, requirements.n10)
def test_an_idle_stream_sends_empty_lines_and_none_after_its_end(served: Served, caller: Caller) -> None:
    agent = served.agent("one", HOLD)
    exchange = caller.begin(agent, conversationId="idle")
    exchange.head()
    assert exchange.write() == b'{"type":"text","content":"one"}\n'
    beats(exchange, 3)
    served.stop_conversation(caller.key, USER, "idle")
    writes = exchange.rest()
    assert b"done" in writes[-1]
    assert set(writes[:-1]) <= {BEAT}


@shows(requirements.heartbeats, requirements.one_event_one_write)
def test_a_heartbeat_is_a_chunk_of_its_own(served: Served, caller: Caller) -> None:
    agent = served.agent(HOLD)
    with served.connection() as connection:
        connection.send(caller.request(caller.members(agent, conversationId="idle on a socket")))
        connection.head()
        assert [connection.chunk(), connection.chunk()] == [BEAT, BEAT]
        served.stop_conversation(caller.key, USER, "idle on a socket")
        while connection.chunk() is not None:
            pass


@shows(requirements.heartbeats)
def test_a_busy_stream_sends_none(served: Served, caller: Caller) -> None:
    agent = served.agent({"repeat": {"text": ".", "times": 30, "every": 0.01}})
    assert caller.say(agent).writes.count(BEAT) <= 1, "one, should this machine have stood still"


# Failures -----------------------------------------------------------------------------------------------------------


@shows(
    requirements.n9,
    requirements.error_line,
    requirements.broken_off,
    requirements.failure_breaks_the_connection,
    requirements.stored_before,
)
def test_n9_a_model_that_fails_in_mid_stream(served: Served, caller: Caller) -> None:
    agent = served.agent("so far", {"fail": "cut"})
    with served.connection() as connection:
        connection.send(caller.request(caller.members(agent, conversationId="n9")))
        assert connection.head().status == 200
        assert connection.chunk() == b'{"type":"text","content":"so far"}\n'
        assert connection.chunk() == ERROR
        with pytest.raises(Broken):
            connection.chunk()
    question, answer = served.history(caller.key, USER, "n9")
    assert (question.text, answer.text) == ("hi", "so far")
    assert answer.ended is not None
    assert answer.ended.status == Status.FAILED


@pytest.mark.parametrize("reason", ["connect", "timeout", "refused", "limit", "malformed", "rejected", "configuration"])
@shows(requirements.upstream_refuses, requirements.error_line)
def test_an_upstream_that_refuses_is_a_failure_in_the_stream(served: Served, caller: Caller, reason: str) -> None:
    answer = caller.say(served.agent({"fail": reason}))
    assert (answer.status, answer.writes, answer.complete) == (200, [ERROR], False)
    assert answer.header("Content-Type") == "application/x-ndjson"


@pytest.mark.parametrize("model", ["openai:some-model", "openai:", "no-such-model", ""])
@shows(requirements.upstream_refuses)
def test_a_model_there_is_not_is_a_failure_in_the_stream(served: Served, caller: Caller, model: str) -> None:
    answer = caller.say(served.agent("x", model=model))
    if model:
        assert (answer.status, answer.writes, answer.complete) == (200, [ERROR], False)
    else:
        assert done(answer), "an agent that names none has the server's"


@shows(requirements.failure_breaks_the_connection, requirements.conversation_goes_on)
def test_a_conversation_goes_on_after_a_failure(served: Served, caller: Caller) -> None:
    agent = served.agent("so far", {"fail": "cut"})
    assert not caller.say(agent, conversationId="after a failure").complete
    served.agent("${turn}", name=agent.name)
    assert done(caller.say(agent, conversationId="after a failure"))["fullText"] == "2"


@shows(requirements.run_timeout)
def test_a_run_that_takes_too_long_fails(cluster: Databases, tmp_path_factory: pytest.TempPathFactory) -> None:
    name, url = run(cluster.acquire())
    with serving(url, tmp_path_factory.mktemp("data"), run_timeout_s=0.3) as served:
        answer = Caller(served).say(served.agent("so far", HOLD))
    run(cluster.release(name))
    assert [event["type"] for event in events(answer)] == ["text", "error"]
    assert not answer.complete


@shows(requirements.lone_surrogates_from_models)
def test_half_a_character_from_a_model_hurts_nobody(
    cluster: Databases, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, url = run(cluster.acquire())
    with serving(url, tmp_path_factory.mktemp("data")) as served:
        caller = Caller(served)
        # In YAML as in JSON, and as some endpoints send it: one emoji as two escapes, and half of one.
        agent = served.agent(instructions='- text: "a\\ud83d\\ude00\\0"\n- think: "\\ud83d"\n- text: "\\ude00"\n')
        exchange = caller.begin(agent, conversationId="halves")
        exchange.head()
        run_events: list[Event] = [json.loads(line) for line in lines(exchange)]
        assert (run_events[-1]["type"], run_events[-1]["fullText"]) == ("done", "a😀\ufffd\ufffd")
        assert joined(run_events) == "a😀\ufffd\ufffd"
        assert served.history(caller.key, USER, "halves")[1].text == "a😀\ufffd\ufffd"
    run(cluster.release(name))


# Ends from outside --------------------------------------------------------------------------------------------------


@shows(requirements.stopped_run)
def test_a_stopped_run_is_done_with_the_text_so_far(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": "hm"}, "so far", HOLD)
    exchange = caller.begin(agent, conversationId="stopped")
    exchange.head()
    assert [exchange.write(), exchange.write()][-1] == b'{"type":"text","content":"so far"}\n'
    assert served.stop_conversation(caller.key, USER, "stopped") == 1
    assert lines(exchange) == [b'{"type":"done","conversationId":"stopped","fullText":"so far"}\n']
    assert exchange.complete


@shows(requirements.deleted_conversation, requirements.stopped_run)
def test_deleting_a_conversation_ends_its_run_as_a_stop_would(served: Served, caller: Caller) -> None:
    agent = served.agent("so far", HOLD)
    exchanges = [caller.begin(agent, conversationId="deleted") for _ in range(2)]
    assert [exchange.head().status for exchange in exchanges] == [200, 200]
    assert {BEAT, b'{"type":"text","content":"so far"}\n'} == {exchange.write() for exchange in exchanges}
    who = served.principal(caller.key, USER)
    served.do(served.core.chat.delete_conversation(who, "deleted"))
    lasts = [lines(exchange)[-1] for exchange in exchanges]
    assert sorted(json.loads(last)["fullText"] for last in lasts) == ["", "so far"]
    assert all(exchange.complete for exchange in exchanges)


@shows(requirements.n12, requirements.reader_may_leave)
def test_n12_a_client_that_leaves_does_not_end_the_run(served: Served, caller: Caller) -> None:
    agent = served.agent("one ", {"wait": 0.1}, "two ", {"wait": 0.1}, "three")
    key = {"Idempotency-Key": "leaves"}
    exchange = caller.begin(agent, conversationId="leaves", headers=key)
    exchange.head()
    assert exchange.write() == b'{"type":"text","content":"one "}\n'
    exchange.hang_up()
    assert live(served, "leaves")
    answer = caller.say(agent, conversationId="leaves", headers=key)
    assert done(answer)["fullText"] == "one two three"
    assert [message.text for message in served.history(caller.key, USER, "leaves")] == ["hi", "one two three"]


@shows(requirements.abandoned_runs_are_stopped, requirements.abandoned_setting)
def test_a_message_stops_the_run_that_nobody_reads(served: Served, caller: Caller) -> None:
    agent = served.agent("so far", HOLD)
    first = caller.begin(agent, conversationId="abandoned")
    first.head()
    assert first.write() == b'{"type":"text","content":"so far"}\n'
    first.hang_up()
    served.agent("on we go", name=agent.name)
    assert done(caller.say(agent, conversationId="abandoned"))["fullText"] == "on we go"
    texts = [message.text for message in served.history(caller.key, USER, "abandoned")]
    assert texts == ["hi", "so far", "hi", "on we go"]


@shows(requirements.reader_may_leave, requirements.abandoned_setting)
def test_a_socket_that_is_closed_does_not_end_the_run(served: Served) -> None:
    caller = Caller(served, served.key("snail", abandoned="wait"))
    agent = served.agent("one", HOLD)
    with served.connection() as connection:
        connection.send(caller.request(caller.members(agent, conversationId="closed")))
        connection.head()
        assert connection.chunk() == b'{"type":"text","content":"one"}\n'
    second = caller.begin(agent, conversationId="closed")
    second.head()
    beats(second, 2)
    assert len(live(served, "closed")) == 2
    assert served.stop_conversation(caller.key, USER, "closed") == 2
    assert second.rest()


# Waiting ------------------------------------------------------------------------------------------------------------


@shows(
    requirements.turns_wait,
    requirements.retry_is_a_new_message,
    requirements.headers_come_first,
    requirements.heartbeats,
)
def test_a_second_message_gets_headers_then_heartbeats_then_its_answer(served: Served, caller: Caller) -> None:
    agent = served.agent("first", HOLD)
    first = caller.begin(agent, conversationId="waits")
    first.head()
    served.agent("turn ${turn}", name=agent.name)
    second = caller.begin(agent, conversationId="waits")
    assert second.head().header("X-Conversation-Id") == "waits"
    beats(second, 3)
    assert served.stop_run(live(served, "waits")[0])
    assert lines(first)[-1] == b'{"type":"done","conversationId":"waits","fullText":"first"}\n'
    run_events = [json.loads(line) for line in lines(second)]
    assert (joined(run_events), run_events[-1]["fullText"]) == ("turn 2", "turn 2")


@shows(requirements.too_many_waiting, requirements.turns_wait)
def test_four_messages_wait_in_order_and_the_fifth_is_refused(served: Served, caller: Caller) -> None:
    agent = served.agent("first", HOLD)
    first = caller.begin(agent, conversationId="four")
    first.head()
    served.agent("turn ${turn}: ${content}", name=agent.name)
    waiting: list[Exchange] = []
    for number in range(2, 6):
        waiting.append(caller.begin(agent, f"message {number}", conversationId="four"))
        waiting[-1].head()
    for _ in range(2):
        refused(caller.say(agent, conversationId="four"), BUSY)
    assert done(caller.say(agent, "elsewhere", conversationId="not four"))["fullText"] == "turn 1: elsewhere"
    assert served.stop_run(live(served, "four")[0])
    lines(first)
    answers = [json.loads(lines(exchange)[-1])["fullText"] for exchange in waiting]
    assert answers == [f"turn {number}: message {number}" for number in range(2, 6)]
    assert done(caller.say(agent, conversationId="four"))["fullText"] == "turn 6: hi"


@shows(requirements.waiting_is_stopped)
def test_a_waiting_message_that_is_stopped_is_done_and_empty(served: Served, caller: Caller) -> None:
    agent = served.agent("first", HOLD)
    exchanges = [caller.begin(agent, conversationId="waiting stopped")]
    exchanges[0].head()
    assert exchanges[0].write() == b'{"type":"text","content":"first"}\n'
    exchanges.append(caller.begin(agent, conversationId="waiting stopped"))
    exchanges[1].head()
    assert served.stop_run(live(served, "waiting stopped")[1])
    assert lines(exchanges[1]) == [b'{"type":"done","conversationId":"waiting stopped","fullText":""}\n']
    assert exchanges[1].complete
    served.stop_conversation(caller.key, USER, "waiting stopped")
    assert b'"fullText":"first"' in lines(exchanges[0])[-1]


@shows(requirements.turns_wait, requirements.failure_breaks_the_connection)
def test_a_waiting_message_has_its_turn_after_a_failure(served: Served, caller: Caller) -> None:
    agent = served.agent({"wait": 0.15}, {"fail": "cut"})
    first = caller.begin(agent, conversationId="after")
    first.head()
    served.agent("turn ${turn}", name=agent.name)
    second = caller.begin(agent, conversationId="after")
    assert lines(first) == [ERROR]
    second.head()
    assert json.loads(lines(second)[-1])["fullText"] == "turn 2"
