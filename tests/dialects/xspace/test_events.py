"""Encoding events, byte by byte."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import unquote
from uuid import UUID

import msgspec
from dialects.xspace.client import MEMBERS, TRACE, call, frames
from hypothesis import given
from hypothesis import strategies as st
from support.requirements import shows

from palaver.core.events import Event, PartAdded, PartStarted, TextDelta
from palaver.core.problems import Internal, Upstream
from palaver.core.turn import SEARCH_TOOL
from palaver.core.types import AnyPart, File, RunEnded, Status, Text, Thinking, ToolCall, ToolResult, Usage
from palaver.dialects.xspace import requirements
from palaver.dialects.xspace.envelope import done_envelope, trace_id
from palaver.dialects.xspace.stream import XSpaceEncoder, rejection
from palaver.dialects.xspace.tool_steps import finished_steps, text_with_steps

RUN = UUID("5b1f0a9c-3d7e-4c21-a6b8-f0e1d2c3b4a5")
SORRY = "\\u7cfb\\u7edf\\u5f00\\u5c0f\\u5dee\\u5566\\uff0c\\u8bf7\\u7a0d\\u540e\\u91cd\\u8bd5"


def encode(*events: Event) -> list[bytes]:
    encoder = XSpaceEncoder(RUN, 1_776_085_640_000)
    return [write for event in events for write in encoder.encode(event, 0)]


def message(text: str, *, kind: str = "CHAT", finish: str | None = None) -> bytes:
    reason = "null" if finish is None else f'"{finish}"'
    return (
        'data:{"requestId":"5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5","eventType":"MESSAGE","error":null,"data":{"index":null,'
        '"tenantId":null,"senderType":null,"senderId":null,"userId":null,"agentId":null,'
        f'"id":"5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5","role":"ASSISTANT","type":"{kind}","text":"{text}","time":null,'
        f'"attachments":null,"think":null,"quotedText":null,"finished":{"false" if finish is None else "true"},'
        f'"finishReason":{reason},"componentExecutedList":null,"ext":null,"executeId":null,"metadata":null,'
        '"messageType":"ASSISTANT"},"completed":false}\n\n'
    ).encode()


def final(text: str, *, error: str | None = None, tokens: str = '"completionTokens":5,"promptTokens":31,') -> bytes:
    reason = "null" if error is None else f'"{error}"'
    total = "36" if "31" in tokens else "null"
    return (
        f'data:{{"requestId":"5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5","eventType":"FINAL_RESULT","error":{reason},'
        f'"data":{{"success":{"true" if error is None else "false"},"error":{reason},"startTime":1776085640000,'
        f'"endTime":1776085642000,{tokens}"totalTokens":{total},"outputText":"{text}","componentExecuteResults":[]}},'
        '"completed":true}\n\n'
    ).encode()


def ended(status: Status = Status.COMPLETE, reason: str = "stop", usage: Usage | None = None) -> RunEnded:
    problem = Upstream(reason="cut") if status is Status.FAILED else None
    tokens = Usage(prompt=31, completion=5) if usage is None else usage
    return RunEnded(status=status, reason=reason, usage=tokens, problem=problem, at=1_776_085_642_000)


@shows(
    requirements.stream_form,
    requirements.message_members,
    requirements.final_result,
    requirements.event_order,
    requirements.finish_reasons,
)
def test_the_specifications_example_byte_by_byte() -> None:
    writes = encode(
        PartStarted(part=Thinking()),
        TextDelta(text="look"),
        PartStarted(part=Text()),
        TextDelta(text="It is"),
        TextDelta(text=" 用🙂"),
        ended(),
    )
    assert writes == [
        message("look", kind="THINK"),
        message("It is"),
        message(" \\u7528\\ud83d\\ude42"),
        message("", finish="stop"),
        final("It is \\u7528\\ud83d\\ude42"),
    ]
    assert encode(ended(reason="length"))[0] == message("", finish="length")


@shows(requirements.heartbeats, requirements.stream_form)
def test_a_heartbeat_is_an_event_of_its_own() -> None:
    encoder = XSpaceEncoder(RUN, 0)
    assert encoder.always_heartbeat
    assert encoder.heartbeat == (
        b'data:{"requestId":"5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5","eventType":"HEART_BEAT","error":null,"data":null,'
        b'"completed":false}\n\n'
    )


@shows(requirements.step_events)
def test_a_step_byte_by_byte() -> None:
    call_, result = (
        ToolCall(call_id="e1", name="Search", arguments={"q": "weather"}, at=1_776_085_640_000),
        ToolResult(call_id="e1", name="Search", content="sun", at=1_776_085_641_000),
    )
    begun, over = encode(PartAdded(part=call_), PartAdded(part=result))
    assert begun == (
        b'data:{"requestId":"5b1f0a9c3d7e4c21a6b8f0e1d2c3b4a5","eventType":"PROCESSING","error":null,'
        b'"data":{"targetId":null,"name":"Search","originalTitle":null,"type":"ToolCall","status":"EXECUTING",'
        b'"executingMessage":null,"result":{"id":null,"name":"Search","icon":null,"type":"ToolCall","success":null,'
        b'"error":null,"data":null,"innerExecuteInfo":null,"startTime":1776085640000,"endTime":null,'
        b'"input":{"q":"weather"},"executeId":"e1","kind":null,"locations":null},"cardBindConfig":null,'
        b'"cardData":null,"pageArgConfig":null,"subEventType":null},"completed":false}\n\n'
    )
    (event,) = frames(over)
    assert event["data"]["status"] == "FINISHED"
    finished = event["data"]["result"]
    assert (finished["success"], finished["error"], finished["data"]) == (True, None, "sun")
    assert finished["endTime"] == 1_776_085_641_000
    assert (finished["executeId"], finished["input"]) == ("e1", {"q": "weather"})
    assert msgspec.to_builtins(finished_steps((call_, result))) == [event["data"]]


@shows(requirements.step_events)
def test_steps_have_unique_ids_and_a_failed_one_has_an_error() -> None:
    parts = [
        ToolCall(call_id="e", name="knowledge_search", arguments={}, at=1),
        ToolResult(call_id="e", name="knowledge_search", content="", data=[1], at=2),
        ToolCall(call_id="e", name="x", arguments={}),
        ToolResult(call_id="e", name="x", content="no", error=True),
        ToolResult(call_id="", name="y", content=""),
    ]
    events = [frames(write)[0]["data"] for write in encode(*(PartAdded(part=part) for part in parts))]
    ids = [event["result"]["executeId"] for event in events]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert len(set(ids)) == 3
    assert all(ids)
    assert [event["type"] for event in events] == ["Knowledge", "Knowledge", "ToolCall", "ToolCall", "ToolCall"]
    assert [event["status"] for event in events][1:4] == ["FINISHED", "EXECUTING", "FAILED"]
    assert events[1]["result"]["data"] == [1]
    assert events[3]["result"]["error"] == "no"
    assert encode(PartAdded(part=File(ref="f"))) == []


@shows(requirements.failed_run, requirements.reason_of_failures)
def test_a_failure_without_text_contains_the_reason() -> None:
    for status in (Status.FAILED, Status.INTERRUPTED):
        fence = f"```\\n{SORRY}\\n```"
        assert encode(PartStarted(part=Thinking()), TextDelta(text="x"), ended(status))[1:] == [
            message(fence, finish="ERROR"),
            final(fence, error=SORRY),
        ]
        assert encode(PartStarted(part=Text()), TextDelta(text="so"), ended(status))[1:] == [
            message("", finish="ERROR"),
            final("so", error=SORRY),
        ]


@shows(requirements.stopped_run, requirements.finish_reasons)
def test_a_stop_is_a_success_with_the_text_so_far() -> None:
    nothing = '"completionTokens":null,"promptTokens":null,'
    assert encode(PartStarted(part=Text()), TextDelta(text="so"), ended(Status.STOPPED, usage=Usage()))[1:] == [
        message("", finish="CANCEL"),
        final("so", tokens=nothing),
    ]
    assert encode(ended(Status.STOPPED, usage=Usage())) == [message("", finish="CANCEL"), final("", tokens=nothing)]


@shows(requirements.rejected_messages)
def test_a_rejection_is_two_events() -> None:
    first, second = frames(b"".join(rejection("为什么")))
    assert all(event.isascii() for event in rejection("为什么"))
    assert [first["requestId"], second["requestId"]] == [None, None]
    assert (first["data"]["id"], first["data"]["text"], first["data"]["finishReason"]) == (None, "为什么", "ERROR")
    assert first["data"]["finished"]
    assert second["error"] == second["data"]["error"] == "为什么"
    rest = {name: value for name, value in second["data"].items() if name not in {"success", "error"}}
    assert rest.pop("componentExecuteResults") == []
    assert set(rest.values()) == {None}
    assert not second["data"]["success"]


@shows(requirements.tid_form, requirements.envelope_members)
def test_a_tid_is_a_number_below_a_million_and_the_time() -> None:
    request = call()
    assert trace_id(request)[-13:] == "1776085673993"
    assert 100 <= int(trace_id(request)[:-13]) <= 999_998
    assert int(trace_id(request)[:-13]) == int(TRACE, 16) % 999_899 + 100
    assert list(msgspec.to_builtins(done_envelope(request))) == MEMBERS


@shows(requirements.failed_run)
def test_internal_errors_reveal_no_details() -> None:
    problem = Internal(reason="timeout", detail="postgresql://secret")
    (_, last) = encode(RunEnded(status=Status.FAILED, reason="error", problem=problem, at=0))
    assert b"secret" not in last


# Histories ----------------------------------------------------------------------------------------------------------


def rendered_markers(text: str) -> list[dict[str, str]]:
    """The attributes of the markers in a history's text, each in a block of its own, as an HTML parser reads them."""
    markers: list[dict[str, str]] = []
    for block in text.split("\n\n"):
        if "<markdown-custom-process" in block:
            assert re.fullmatch(
                r"<div><markdown-custom-process( [a-zA-Z]+=\"[^\"<>]*\")+></markdown-custom-process></div>", block
            )
            parser = _Attributes()
            parser.feed(block)
            markers.append(parser.attributes)
    return markers


class _Attributes(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.attributes: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "markdown-custom-process":
            self.attributes = {name: value or "" for name, value in attrs}


def step(id: str, name: str, *, error: bool = False) -> list[AnyPart]:
    return [ToolCall(call_id=id, name=name, arguments={}), ToolResult(call_id=id, name=name, content="x", error=error)]


@shows(requirements.history_steps)
def test_a_history_has_a_marker_at_the_place_of_each_finished_step() -> None:
    parts: list[AnyPart] = [
        Text(text="Let me see."),
        *step("e1", SEARCH_TOOL),
        Text(text="And now"),
        *step("e2", "查 天气/x", error=True),
        *step("e2", "twice"),
        ToolCall(call_id="e4", name="not finished", arguments={}),
    ]
    text = text_with_steps(parts)
    assert text == (
        "Let me see."
        f'\n\n<div><markdown-custom-process executeId="e1" type="Knowledge" status="FINISHED" name="{SEARCH_TOOL}">'
        "</markdown-custom-process></div>\n\n"
        "And now"
        '\n\n<div><markdown-custom-process executeId="e2" type="ToolCall" status="FAILED"'
        ' name="%E6%9F%A5%20%E5%A4%A9%E6%B0%94%2Fx"></markdown-custom-process></div>\n\n'
        '\n\n<div><markdown-custom-process executeId="e2-3" type="ToolCall" status="FINISHED" name="twice">'
        "</markdown-custom-process></div>\n\n"
    )
    steps = finished_steps(parts)
    assert [one["executeid"] for one in rendered_markers(text)] == [one.result.execute_id for one in steps]
    assert [unquote(one["name"]) for one in rendered_markers(text)] == [one.name for one in steps]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\n"), max_size=20), st.text(max_size=20))
@shows(requirements.history_steps)
def test_a_marker_can_contain_any_step_name(id: str, name: str) -> None:
    (marker,), (finished,) = rendered_markers(text_with_steps(step(id, name))), finished_steps(step(id, name))
    assert unquote(marker["name"]) == name
    assert marker["executeid"] == finished.result.execute_id
