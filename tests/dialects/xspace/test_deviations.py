"""Deviations that a client's author may notice."""

from __future__ import annotations

from dialects.xspace.client import Caller, chat_path, data, enveloped, frames
from dialects.xspace.test_events import encode
from dialects.xspace.test_files import send
from support.live_server import Served
from support.requirements import shows

from palaver.core.events import PartAdded
from palaver.core.turn import SEARCH_TOOL
from palaver.core.types import ToolCall
from palaver.dialects.xspace import requirements


@shows(requirements.errors_in_envelopes)
def test_streaming_routes_report_errors_in_envelopes(served: Served) -> None:
    caller = Caller(served, rpm=3)
    path = chat_path(caller.add(served.agent("x")))
    wants_a_stream = {"Accept": "text/event-stream"}
    codes = [enveloped(caller.post(path, body, headers=wants_a_stream))["code"] for body in (b"{", b"[]", b"{}")]
    assert codes == ["4000", "4000", "4290"]
    caller.auth = "Bearer ak-bad"
    assert enveloped(caller.post(path, {"message": "hi"}, headers=wants_a_stream))["code"] == "4000"


@shows(requirements.types_of_steps)
def test_a_step_has_a_null_target_and_one_of_two_types() -> None:
    calls = [ToolCall(call_id=name, name=name, arguments={}) for name in (SEARCH_TOOL, "weather")]
    steps = [frames(write)[0]["data"] for call in calls for write in encode(PartAdded(part=call))]
    assert [(step["targetId"], step["type"]) for step in steps] == [(None, "Knowledge"), (None, "ToolCall")]


@shows(requirements.several_ranges)
def test_several_ranges_in_one_header_are_ignored(caller: Caller) -> None:
    path = f"/api/f/{data(send(caller, b'0123456789'))['key']}"
    answer = caller.get(path, headers={"Range": "bytes=0-1,4-5"})
    assert (answer.status, answer.body, answer.header("Content-Range")) == (200, b"0123456789", None)
