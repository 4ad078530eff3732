"""The same answers as server-sent events, for those who ask for them."""

from __future__ import annotations

from uuid import UUID

import pytest
from dialects.snail.client import CHAT, USER, Caller, done, envelope, error_frame, frames
from support.http_clients import Ask
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.snail import requirements

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"think": "look it up"}, "根据")


@shows(
    requirements.n11,
    requirements.events_form,
    requirements.events_headers,
    requirements.events_data,
    requirements.events_sid,
)
def test_n11_an_answer_as_events_byte_by_byte(served: Served, caller: Caller, agent: Agent) -> None:
    answer = caller.say(agent, conversationId="c-9", headers=EVENTS)
    (_, message) = served.history(caller.key, USER, "c-9")
    sid = str(UUID(str(message.uid)))
    assert answer.writes == [
        f'event:thinking\ndata:{{"type":"thinking","sid":"{sid}","content":"look it up"}}\n\n'.encode(),
        f'event:text\ndata:{{"type":"text","sid":"{sid}","content":"\\u6839\\u636e"}}\n\n'.encode(),
        b'event:done\ndata:{"conversationId":"c-9","fullText":"\\u6839\\u636e"}\n\n',
    ]
    assert answer.complete
    assert answer.header("Content-Type") == "text/event-stream;charset=UTF-8"
    assert answer.header("X-Conversation-Id") == "c-9"
    assert answer.header("Cache-Control") == "no-cache"
    assert answer.header("X-Accel-Buffering") == "no"


@pytest.mark.parametrize(
    ("accept", "as_events"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/event-stream, */*", True),
        ("application/json, text/event-stream;q=0.9", True),
        ("text/event-stream, application/x-ndjson", False),
        ("application/x-ndjson;q=0.1, text/event-stream", False),
        ("Application/X-NDJSON,text/event-stream", False),
        ("text/*", False),
        ("*/*", False),
        ("", False),
    ],
)
@shows(requirements.accept_chooses)
def test_accept_chooses_between_the_forms(caller: Caller, agent: Agent, accept: str, as_events: bool) -> None:
    answer = caller.say(agent, headers={"Accept": accept})
    if as_events:
        assert [name for name, _ in frames(answer.body)] == ["thinking", "text", "done"]
    else:
        assert done(answer)["fullText"] == "根据"


@shows(requirements.events_heartbeat, requirements.heartbeats, requirements.stopped_run)
def test_an_idle_stream_of_events_sends_comments(served: Served, caller: Caller) -> None:
    exchange = caller.begin(served.agent(HOLD), conversationId="idle events", headers=EVENTS)
    exchange.head()
    assert [exchange.write(), exchange.write()] == [b": ping\n\n"] * 2
    served.stop_conversation(caller.key, USER, "idle events")
    *beats, last = exchange.rest()
    assert set(beats) <= {b": ping\n\n"}
    assert last == b'event:done\ndata:{"conversationId":"idle events","fullText":""}\n\n'


@shows(requirements.events_error)
def test_a_failure_in_mid_stream_is_an_event_and_a_normal_end(served: Served, caller: Caller) -> None:
    answer = caller.say(served.agent("so far", {"fail": "cut"}), headers=EVENTS)
    (name, data), last = frames(answer.body)
    assert (name, data["content"]) == ("text", "so far")
    assert [last] == error_frame("系统异常")
    assert list(last[1]) == ["message", "code", "msg", "data", "status"]
    assert answer.complete


@shows(requirements.events_error, requirements.one_event_one_write)
def test_on_a_socket_every_event_is_a_chunk_and_the_end_is_a_normal_one(served: Served, caller: Caller) -> None:
    failing = served.agent("so far", {"fail": "cut"})
    with served.connection(at_once=1) as connection:
        connection.send(caller.request(caller.members(failing), headers=EVENTS))
        answer = connection.answer()
        assert [len(frames(write)) for write in answer.writes] == [1, 1]
        assert answer.complete
        connection.send(caller.request(caller.members(failing), headers=EVENTS))
        assert connection.answer().complete, "the connection can be used again"


@shows(requirements.blank_thinking)
def test_thinking_is_never_blank(served: Served, caller: Caller) -> None:
    pause = {"wait": 0.03}
    agent = served.agent({"think": " \n"}, pause, {"think": "a"}, pause, {"think": "\n"}, pause, {"think": "b "}, " c ")
    run_events = frames(caller.say(agent, headers=EVENTS).body)
    thinking = [data["content"] for name, data in run_events if name == "thinking"]
    assert all(content.strip() for content in thinking)
    assert "".join(thinking) == " \na\nb"
    assert run_events[-1][1]["fullText"] == " c "


@shows(requirements.events_refusal, requirements.unknown_agent, requirements.n5)
def test_a_refusal_is_one_frame(caller: Caller) -> None:
    answer = caller.say(999, headers=EVENTS)
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/event-stream;charset=UTF-8"
    assert frames(answer.body) == error_frame("智能体不存在或已被禁用")
    assert all(byte <= 0x7E for byte in answer.body)
    assert answer.complete


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"agentId":1,"content":"x"}', b'{"agentId":1.5}'])
@shows(requirements.events_refusal, requirements.no_json_object, requirements.missing_members)
def test_whatever_is_wrong_before_the_run_is_one_frame(caller: Caller, body: bytes) -> None:
    lines, events = caller.post(body), caller.post(body, headers=EVENTS)
    assert frames(events.body) == error_frame(lines.json()["msg"])


@pytest.mark.parametrize("accept", ["text/event-stream, application/x-ndjson", "*/*"])
@shows(requirements.accept_chooses, requirements.n5)
def test_who_takes_lines_gets_an_envelope(caller: Caller, accept: str) -> None:
    assert caller.say(999, headers={"Accept": accept}).body == envelope("智能体不存在或已被禁用")


@shows(requirements.events_refusal_by_status)
def test_no_path_no_method_and_too_large_stay_envelopes(served: Served, caller: Caller) -> None:
    headers = [("Accept", "text/event-stream")]
    answers = [
        served.ask(Ask(path="/snail-ai/x", headers=headers)),
        served.ask(Ask(method="GET", path=CHAT, headers=headers)),
        caller.post(b"x" * 1_048_577, headers=EVENTS),
    ]
    assert [answer.status for answer in answers] == [404, 405, 413]
    for answer, words in zip(answers, ("接口不存在", "请求方法不支持", "请求体过大"), strict=True):
        assert answer.body == envelope(words)
        assert answer.header("Content-Type") == "application/json"
