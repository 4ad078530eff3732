"""What the encoder writes, byte by byte, without a server."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from dialects.wps.client import agents, chunks, merged, names, spoken
from dialects.wps.examples import CHAT, ENDED_MS, FLOW, NOW, QUESTION, SESSION, encoder
from support.requirements import shows

from palaver.core.events import Event, PartAdded, PartStarted, TextDelta
from palaver.core.problems import Internal, Upstream
from palaver.core.types import RunEnded, Status, Text, Thinking, ToolCall, ToolResult
from palaver.dialects.wps import requirements
from palaver.dialects.wps.stream import WpsEncoder, WpsStreamOptions, duration

SAMPLE = """{"timestamp": "2025-05-09T15:03:47.532881", "sender": "Machine", "sender_name": "Agent", "session_id":
 "7038a190-c4e9-44c3-9305-f560266be942", "text": "\\u4e2d\\u56fd", "files": [], "error": false, "edit": false,
 "properties": {"text_color": null, "background_color": null, "edited": false, "source": {"id": null, "display_name":
 null, "source": null}, "icon": "Bot", "allow_markdown": false, "positive_feedback": null, "state": "complete",
 "targets": []}, "category": "message", "content_blocks": [{"title": "Agent Steps", "contents": [{"type": "text",
 "duration": 18, "header": {"title": "Input", "icon": "MessageSquare"}, "text": "**Input**: \\u4f60"}, {"type": "text",
 "duration": 4012, "header": {"title": "Output", "icon": "MessageSquare"}, "text": "\\u4e2d\\u56fd"}],
 "allow_markdown": true, "media_url": null}], "id": "a550de06-0198-4a57-a5cd-75000522bf1d",
 "flow_id": "72cdefc1-940c-428d-bd8e-198386f3de5c"}"""
"""The page's sample of an agent's message, its texts shortened."""
DONE = RunEnded(status=Status.COMPLETE, at=ENDED_MS)
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
PROPERTIES = (
    b'"properties": {"text_color": null, "background_color": null, "edited": false, "source": {"id": null,'
    b' "display_name": null, "source": null}, "icon": "%s", "allow_markdown": false, "positive_feedback": null,'
    b' "state": "%s", "targets": []}'
)


def text(*pieces: str) -> list[Event]:
    return [PartStarted(part=Text()), *(TextDelta(text=piece) for piece in pieces)]


def written(
    events: list[Event], form: WpsStreamOptions | None = None, *, step: float = 0.0, **more: Any
) -> list[bytes]:
    """What an encoder writes when ``step`` seconds lie between two events, what it holds back in its time."""
    return [write for _, write in timed(events, form, step=step, **more)]


def timed(
    events: list[Event], form: WpsStreamOptions | None = None, *, step: float = 0.0, **more: Any
) -> list[tuple[float, bytes]]:
    """The same, each write with its moment."""
    made = encoder(form, **more)
    writes: list[tuple[float, bytes]] = []
    for at, event in enumerate(events):
        now = NOW + at * step
        while made.flush_at is not None and made.flush_at <= now:
            due = max(NOW, made.flush_at)
            writes += [(due, write) for write in made.flush(due)]
        writes += [(now, write) for write in made.encode(event, now)]
    while isinstance(events[-1], RunEnded) and (due := made.flush_at) is not None:
        writes += [(due, write) for write in made.flush(due)]
    return writes


@shows(
    requirements.order,
    requirements.each_stream_message,
    requirements.user_message,
    requirements.vertices,
    requirements.one_write,
)
def test_the_beginning_byte_by_byte() -> None:
    made = encoder(files=("f-1", "文"))
    assert made.flush(NOW) == [
        b'{"event": "vertices_sorted", "data": {"ids": ["ChatInput-72cde"],'
        b' "to_run": ["ChatInput-72cde", "Agent-72cde", "ChatOutput-72cde"]}}\n\n',
        b'{"event": "add_message", "data": {"timestamp": "2025-05-09T07:03:43.100000", "sender": "User",'
        b' "sender_name": "User", "session_id": "%s", "text": "hi", "files": ["f-1", "\\u6587"], "error": false,'
        b' "edit": false, %s, "category": "message", "content_blocks": [], "id": "%s", "flow_id": "%s",'
        b' "chat_id": "%s"}}\n\n'
        % (SESSION.encode(), PROPERTIES % (b"", b"complete"), QUESTION.encode(), FLOW.encode(), CHAT.encode()),
        b'{"event": "end_vertex", "data": {"build_data": {"id": "ChatInput-72cde", "inactivated_vertices": [],'
        b' "next_vertices_ids": ["Agent-72cde"], "top_level_vertices": [], "valid": true, "params": "", "data":'
        b' {"results": {}, "outputs": {"message": {"message": "hi", "type": "text"}}, "logs": {}, "message": {},'
        b' "artifacts": {}, "timedelta": 0.0, "duration": "0 ms", "used_frozen_result": false},'
        b' "timestamp": "2025-05-09T07:03:43.100000Z"}}}\n\n',
        _agent_message("", 'Input", "icon": "MessageSquare"}, "text": "**Input**: hi"}'),
    ]


def _agent_message(message_text: str, entry: str) -> bytes:
    """The specification's example: an agent's message that is being written."""
    return (
        b'{"event": "add_message", "data": {"timestamp": "2025-05-09T07:03:43.200000", "sender": "Machine",'
        b' "sender_name": "Agent", "session_id": "%s", "text": "%s", "files": [], "error": false, "edit": false, %s,'
        b' "category": "message", "content_blocks": [{"title": "Agent Steps", "contents": [{"type": "text",'
        b' "duration": 0, "header": {"title": "%s], "allow_markdown": true, "media_url": null}], "id": "%s",'
        b' "flow_id": "%s", "chat_id": "%s"}}\n\n'
    ) % (
        SESSION.encode(),
        message_text.encode(),
        PROPERTIES % (b"Bot", b"partial"),
        entry.encode(),
        CHAT.encode(),
        FLOW.encode(),
        CHAT.encode(),
    )


@shows(
    requirements.order,
    requirements.ascii_form,
    requirements.partial_after_every_token,
    requirements.durations_are_stored,
)
def test_a_token_and_the_message_after_it_byte_by_byte() -> None:
    _, _, _, _, token, message = written(text("你"), WpsStreamOptions(partial_every_s=0))
    assert (
        token
        == (
            f'{{"event": "token", "data": {{"chunk": "\\u4f60", "id": "{CHAT}",'
            f' "timestamp": "2025-05-09 07:03:43 UTC", "chat_id": "{CHAT}"}}}}\n\n'
        ).encode()
    )
    assert message == _agent_message("\\u4f60", 'Input", "icon": "MessageSquare"}, "text": "**Input**: hi"}')


@shows(requirements.order, requirements.vertices, requirements.end_is_last, requirements.durations)
def test_the_end_byte_by_byte() -> None:
    *_, message, agent, output, end = written([*text("你好"), DONE])
    message_data = json.loads(message)["data"]
    assert (message_data["text"], message_data["properties"]["state"], message_data["error"]) == (
        "你好",
        "complete",
        False,
    )
    assert message_data["content_blocks"][0]["contents"][-1] == {
        "type": "text",
        "duration": 1450,
        "header": {"title": "Output", "icon": "MessageSquare"},
        "text": "你好",
    }
    assert agent == (
        b'{"event": "end_vertex", "data": {"build_data": {"id": "Agent-72cde", "inactivated_vertices": [],'
        b' "next_vertices_ids": ["ChatOutput-72cde"], "top_level_vertices": [], "valid": true, "params": "",'
        b' "data": {"results": {}, "outputs": {"message": {"message": "\\u4f60\\u597d", "type": "text"}}, "logs": {},'
        b' "message": {}, "artifacts": {}, "timedelta": 1.45, "duration": "1.5 seconds", "used_frozen_result": false},'
        b' "timestamp": "2025-05-09T07:03:44.650000Z"}}}\n\n'
    )
    assert json.loads(output)["data"]["build_data"]["next_vertices_ids"] == []
    assert end == b'{"event": "end", "data": {}}\n\n'


@shows(
    requirements.sample_message, requirements.event_names, requirements.message_id, requirements.reply_is_in_add_message
)
def test_the_last_message_has_the_members_of_the_page_s_sample_in_its_order() -> None:
    sample = json.loads(SAMPLE)
    messages = spoken(written([*text("中国", "的"), DONE]))
    assert {event["event"] for event in messages} == {"vertices_sorted", "add_message", "end_vertex", "token", "end"}
    last = agents(messages)[-1]
    assert list(last) == [*sample, "chat_id"]
    assert list(last["properties"]) == list(sample["properties"])
    ((block,), (expected,)) = last["content_blocks"], sample["content_blocks"]
    assert list(block) == list(expected)
    assert list(block["contents"][0]) == list(expected["contents"][0])
    for name in ("sender", "sender_name", "files", "error", "edit", "properties", "category"):
        assert last[name] == sample[name]
    assert {message["id"] for message in agents(messages)} == {CHAT}


@shows(requirements.text_is_cumulative, requirements.partial_after_every_token)
@pytest.mark.parametrize("step", [0, 0.001, 0.011, 0.1])
def test_a_message_says_what_the_tokens_before_it_said(step: float) -> None:
    for form in (
        WpsStreamOptions(),
        WpsStreamOptions(partial_every_s=0),
        WpsStreamOptions(partial_every_s=0.3),
        WpsStreamOptions(token_gap_s=0),
    ):
        messages = spoken(
            written(
                [*text("a", "b\n", "🙂", '"'), PartStarted(part=Thinking()), TextDelta(text="x"), *text("c"), DONE],
                form,
                step=step,
            )
        )
        so_far = ""
        for event in messages:
            if event["event"] == "token":
                so_far += event["data"]["chunk"]
            elif event["event"] == "add_message" and event["data"]["sender"] == "Machine":
                assert event["data"]["text"] == so_far
        assert so_far == 'ab\n🙂"c'
        assert merged(messages)[:5] == ALL[:5]


@shows(requirements.partials_are_merged)
def test_partials_are_apart_and_a_pending_one_goes_out_in_time() -> None:
    made = encoder(WpsStreamOptions(partial_every_s=0.1, token_gap_s=0))
    made.flush(NOW)
    opened, first, second = text("a", "b")
    assert made.encode(opened, NOW + 0.01) == []
    assert names(spoken(made.encode(first, NOW + 0.02))) == ["token"]
    assert names(spoken(made.encode(second, NOW + 0.05))) == ["token"]
    assert made.flush_at == pytest.approx(NOW + 0.1)
    assert made.flush(NOW + 0.09) == []
    (partial,) = spoken(made.flush(NOW + 0.11))
    assert partial["data"]["text"] == "ab"
    assert made.flush_at is None
    assert made.flush(NOW + 9) == []
    assert names(spoken(made.encode(TextDelta(text="c"), NOW + 0.3))) == ["token", "Agent partial"]
    assert names(spoken(made.encode(TextDelta(text="d"), NOW + 0.31))) == ["token"]
    assert names(spoken(made.encode(DONE, NOW + 0.32))) == ALL[-4:]
    assert made.flush_at is None


def repeated(writes: list[tuple[float, bytes]]) -> list[float]:
    """How long before each of the agent's messages the last token was that it repeats."""
    last, gaps = None, list[float]()
    for at, write in writes:
        if b'"event": "token"' in write:
            last = at
        elif b'"sender_name": "Agent"' in write and last is not None:
            gaps.append(at - last)
    return gaps


@pytest.mark.parametrize("step", [0, 0.001, 0.007, 0.029, 0.031, 0.05, 0.11])
@shows(requirements.messages_keep_away_from_tokens, requirements.page_pause)
def test_no_message_comes_soon_after_a_token_that_it_repeats(step: float) -> None:
    for pieces in (1, 2, 40, 400):
        events = [*text(*"x" * pieces), DONE]
        writes = timed(events, step=step)
        assert chunks(spoken([write for _, write in writes])) == "x" * pieces
        assert min(repeated(writes)) > 0.0299
        tokens = [at for at, write in writes if b'"event": "token"' in write]
        started = NOW + 0.45
        assert all(at > started + 0.0299 for at, write in writes if b'"text": "x' in write and b"Machine" in write)
        assert tokens[0] == NOW + step, "the words themselves are not late"
        for form in (WpsStreamOptions(partial_every_s=0), WpsStreamOptions(token_gap_s=0)):
            assert min(repeated(timed(events, form, step=step))) < step + 0.001


@pytest.mark.parametrize("late", [0.005, 0.04, 0.5])
@shows(requirements.messages_keep_away_from_tokens, requirements.page_pause)
def test_the_gap_begins_when_a_token_was_written(late: float) -> None:
    made = encoder()
    made.flush(NOW)
    made.on_written(NOW + late)
    opened, first, second = text("a", "b")
    made.encode(opened, NOW + 0.1)
    made.encode(first, NOW + 0.1)
    made.on_written(NOW + 0.1 + late)
    assert_due(made, NOW + late + 0.45 + 0.03, ["Agent partial"])
    assert names(spoken(made.encode(second, NOW + 2))) == ["token"]
    made.on_written(NOW + 2 + late)
    assert made.encode(DONE, NOW + 2 + late) == []
    assert_due(made, NOW + 2 + late + 0.03, ALL[-4:])


def assert_due(made: WpsEncoder, at: float, expected: list[str]) -> None:
    """That it gives these events then, and no sooner."""
    due = made.flush_at
    assert due == pytest.approx(at)
    assert due is not None
    assert made.flush(due - 0.001) == []
    assert names(spoken(made.flush(due))) == expected


@shows(requirements.messages_keep_away_from_tokens)
def test_text_that_comes_in_the_gap_is_one_token_after_the_message() -> None:
    made = encoder()
    made.flush(NOW)
    opened, first, *more = text("a", "b", "c")
    made.encode(opened, NOW + 0.5)
    assert names(spoken(made.encode(first, NOW + 0.5))) == ["token"]
    assert [made.encode(event, NOW + 0.51) for event in more] == [[], []]
    assert made.flush_at == pytest.approx(NOW + 0.53)
    message, token = spoken(made.flush(NOW + 0.531))
    assert (message["data"]["text"], token["data"]["chunk"]) == ("a", "bc")
    assert made.flush_at == pytest.approx(NOW + 0.631)


@shows(requirements.streams_without_tokens)
def test_a_stream_without_tokens_has_the_messages_alone() -> None:
    events = [*text("a", "b", "c"), DONE]
    writes = timed(events, WpsStreamOptions(tokens=False), step=0.06)
    assert [at - NOW for at, _ in writes] == pytest.approx([0, 0, 0, 0, 0.1, 0.2, 0.24, 0.24, 0.24, 0.24])
    messages = spoken([write for _, write in writes])
    assert merged(messages) == [name for name in ALL if name != "token"]
    assert [message["text"] for message in agents(messages)] == ["", "a", "abc", "abc"]


@shows(requirements.reasoning_is_a_step)
def test_reasoning_has_no_tokens_and_is_one_entry() -> None:
    events = [
        PartStarted(part=Thinking()),
        TextDelta(text="look "),
        *text("a"),
        PartStarted(part=Thinking()),
        TextDelta(text="it up"),
        *text("b"),
        DONE,
    ]
    messages = spoken(written(events, WpsStreamOptions(partial_every_s=0)))
    assert chunks(messages) == "ab"
    entries = [[entry["text"] for entry in message["content_blocks"][0]["contents"]] for message in agents(messages)]
    question = "**Input**: hi"
    assert entries == [[question], [question, "look "], [question, "look it up"], [question, "look it up", "ab"]]
    thinking = agents(messages)[1]["content_blocks"][0]["contents"][1]
    assert thinking["header"] == {"title": "Thinking", "icon": "Brain"}


@shows(requirements.tool_calls_are_steps)
def test_a_tool_call_is_an_entry_when_it_has_ended() -> None:
    calls: list[Event] = [
        PartAdded(part=ToolCall(call_id="1", name="find", arguments={"q": "用户"}, at=1000)),
        PartAdded(part=ToolCall(call_id="2", name="add", arguments={}, at=1000)),
        PartAdded(part=ToolResult(call_id="2", name="add", content="no", error=True, at=1012)),
        PartAdded(part=ToolResult(call_id="1", name="find", content="found", data=[1], at=3400)),
    ]
    messages = spoken(written([*calls, DONE], WpsStreamOptions(partial_every_s=0)))
    assert [len(message["content_blocks"][0]["contents"]) for message in agents(messages)] == [1, 2, 3, 4]
    (add, find) = agents(messages)[-1]["content_blocks"][0]["contents"][1:3]
    assert json.dumps(add) == (
        '{"type": "tool_use", "duration": 12, "header": {"title": "add", "icon": "Hammer"}, "name": "add",'
        ' "tool_input": {}, "output": null, "error": "no"}'
    )
    assert (find["duration"], find["tool_input"], find["output"], find["error"]) == (2400, {"q": "用户"}, "found", None)


@pytest.mark.parametrize(
    ("problem", "status", "reason"),
    [
        (Upstream(reason="cut", detail="sk-secret"), Status.FAILED, "the model failed to answer"),
        (Upstream(reason="limit"), Status.FAILED, "the model is overloaded"),
        (Internal(reason="interrupted"), Status.INTERRUPTED, "the answer was interrupted"),
        (Internal(reason="timeout"), Status.FAILED, "the answer took too long"),
        (None, Status.FAILED, "internal error"),
    ],
)
@shows(requirements.failed_run)
def test_a_failure_has_a_form_of_its_own(problem: Any, status: Status, reason: str) -> None:
    ended = RunEnded(status=status, reason="error", problem=problem, at=ENDED_MS)
    messages = spoken(written([*text("so far"), ended]))
    assert names(messages)[-4:] == ["token", "Agent complete", "end Agent", "end"]
    message = agents(messages)[-1]
    assert (message["text"], message["error"], message["category"]) == ("so far", True, "error")
    steps, error = message["content_blocks"]
    assert [entry["header"]["title"] for entry in steps["contents"]] == ["Input"]
    assert json.dumps(error) == (
        '{"title": "Error", "contents": [{"type": "error", "duration": null, "header": {"title": "Error", "icon":'
        ' "MessageSquare"}, "component": "Agent", "field": null, "reason": "REASON", "solution": null, "traceback":'
        ' null}], "allow_markdown": true, "media_url": null}'
    ).replace("REASON", reason)
    build = messages[-2]["data"]["build_data"]
    assert (build["valid"], build["next_vertices_ids"]) == (False, [])
    assert build["data"]["outputs"]["message"] == {
        "message": {"errorMessage": reason, "stackTrace": ""},
        "type": "error",
    }


@shows(requirements.error_event)
def test_an_error_event_is_the_message_with_the_reason_as_its_text_and_an_id_of_its_own() -> None:
    ended = RunEnded(status=Status.FAILED, reason="error", problem=Upstream(reason="cut"), at=ENDED_MS)
    messages = spoken(written([*text("x"), ended], WpsStreamOptions(error_event=True)))
    assert names(messages)[-4:] == ["Agent complete", "error", "end Agent", "end"]
    message, error = messages[-4]["data"], messages[-3]["data"]
    assert error == {**message, "id": error["id"], "text": "the model failed to answer"}
    assert list(error) == list(message)
    assert UUID(error["id"]) not in (UUID(CHAT), UUID(QUESTION))
    again = spoken(written([*text("x"), ended], WpsStreamOptions(error_event=True)))[-3]["data"]
    assert again["id"] == error["id"], "a replay has the same ids"
    assert "error" not in names(spoken(written([*text("x"), DONE], WpsStreamOptions(error_event=True))))


@shows(requirements.cancelled_run, requirements.cancelled_while_waiting)
def test_a_stopped_run_ends_like_a_complete_one() -> None:
    stopped = RunEnded(status=Status.STOPPED, at=ENDED_MS)
    assert merged(spoken(written([*text("so f"), stopped]))) == ALL
    made = encoder(waiting=True)
    assert made.flush_at is None
    messages = spoken(made.encode(stopped, NOW))
    assert names(messages) == [name for name in ALL if name != "token"]
    assert agents(messages)[-1]["text"] == ""


@shows(requirements.times_have_the_server_s_zone)
def test_a_message_has_the_time_of_the_server_s_zone() -> None:
    messages = spoken(written([DONE], WpsStreamOptions(zone=ZoneInfo("Asia/Shanghai"))))
    assert messages[1]["data"]["timestamp"] == "2025-05-09T15:03:43.100000"
    assert {message["timestamp"] for message in agents(messages)} == {"2025-05-09T15:03:43.200000"}
    assert messages[2]["data"]["build_data"]["timestamp"] == "2025-05-09T07:03:43.100000Z"


@shows(requirements.data_prefix, requirements.heartbeat)
def test_data_lines_for_standard_readers() -> None:
    prefixed, plain = written([*text("x"), DONE], WpsStreamOptions(data_prefix=True)), written([*text("x"), DONE])
    assert prefixed == [b"data: " + write for write in plain]
    assert (encoder(WpsStreamOptions(data_prefix=True)).heartbeat, encoder().heartbeat) == (b": ping\n\n", b"\n\n")


@shows(requirements.ascii_form, requirements.one_write)
def test_a_message_is_ascii_in_one_line_however_odd_its_text() -> None:
    odd = '~\x7f\x80\x85\xa0é用\u2028\u2029\ufeff\uffff🙂\U0010ffff "\\/\b\f\n\r\t\x01 %s {}'
    writes = written([PartStarted(part=Thinking()), TextDelta(text=odd), *text(odd), DONE], text=odd, files=(odd,))
    assert chunks(spoken(writes)) == odd
    for write in writes:
        assert re.fullmatch(rb"\{[\x20-\x7e]+\}\n\n", write)


@shows(requirements.vertices)
def test_a_node_s_text_is_cut_at_2000_characters() -> None:
    messages = spoken(written([*text("用" * 3000), DONE], text="x" * 2500))
    ends = [
        one["data"]["build_data"]["data"]["outputs"]["message"]["message"]
        for one in messages
        if one["event"] == "end_vertex"
    ]
    assert [len(one) for one in ends] == [2000, 2000, 2000]


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (0, "0 ms"),
        (12, "12 ms"),
        (999, "999 ms"),
        (1000, "1.0 second"),
        (1450, "1.5 seconds"),
        (3400, "3.4 seconds"),
        (59_999, "1 minute, 0.0 seconds"),
        (62_500, "1 minute, 2.5 seconds"),
        (180_000, "3 minutes, 0.0 seconds"),
    ],
)
@shows(requirements.durations)
def test_durations_in_words(milliseconds: int, words: str) -> None:
    assert duration(milliseconds) == words
