"""The steps of an answer (tool calls and searches), in the stream and in the history.

Source: wire specification ``xspace.md``, section 7.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from palaver.core.turn import SEARCH_TOOL
from palaver.core.types import AnyPart, Text, ToolCall, ToolResult

_LINE_BREAK = re.compile(r"[\x00-\x20\x7f\x85\u2028\u2029]")
"""Characters that could end the marker: in Markdown, it must be one line."""
StepStatus = Literal["EXECUTING", "FINISHED", "FAILED"]
StepType = Literal["Knowledge", "ToolCall"]


class ToolStepResult(msgspec.Struct, kw_only=True, rename="camel"):
    id: None
    name: str
    icon: None
    type: StepType
    success: bool | None
    error: str | None
    data: Any
    inner_execute_info: None
    start_time: Annotated[int | None, Meta(description="Epoch milliseconds.")]
    end_time: Annotated[int | None, Meta(description="Epoch milliseconds.")]
    input: dict[str, Any] | None
    execute_id: Annotated[str, Meta(description="Unique per step of a message.")]
    kind: None
    locations: None


class ToolStep(msgspec.Struct, kw_only=True, rename="camel"):
    """A step of an answer: a tool call or a search."""

    target_id: None
    name: str
    original_title: None
    type: StepType
    status: StepStatus
    executing_message: None
    result: ToolStepResult
    card_bind_config: None
    card_data: None
    page_arg_config: None
    sub_event_type: None


class ToolStepTracker:
    """Matches results with their calls. Clients identify steps by ``executeId``, so each step has a unique one."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._started: dict[str, tuple[str, ToolCall]] = {}

    def start(self, call: ToolCall) -> ToolStep:
        step_id = self._new_id(call.call_id)
        self._started[call.call_id] = (step_id, call)
        return _step(step_id, call.name, call, None)

    def finish(self, result: ToolResult) -> ToolStep:
        step_id, call = self._started.pop(result.call_id, (None, None))
        return _step(step_id or self._new_id(result.call_id), result.name, call, result)

    def _new_id(self, preferred: str) -> str:
        step_id = preferred
        if not step_id or step_id in self._ids:
            step_id = f"{preferred or 'step'}-{len(self._ids) + 1}"
        self._ids.add(step_id)
        return step_id


def text_with_steps(parts: Iterable[AnyPart]) -> str:
    """The text of a message, with a marker at the place of each finished step, from which pages draw the steps of a
    history."""
    steps = ToolStepTracker()
    pieces: list[str] = []
    for part in parts:
        match part:
            case Text(text=text):
                pieces.append(text)
            case ToolCall():
                steps.start(part)
            case ToolResult():
                pieces.append(_marker(steps.finish(part)))
            case _:
                pass
    return "".join(pieces)


def _marker(step: ToolStep) -> str:
    execute_id = _LINE_BREAK.sub(lambda match: f"&#{ord(match[0])};", escape(step.result.execute_id))
    name = quote(step.name, safe="", errors="replace")
    return (
        f'\n\n<div><markdown-custom-process executeId="{execute_id}" type="{step.type}"'
        f' status="{step.status}" name="{name}"></markdown-custom-process></div>\n\n'
    )


def finished_steps(parts: Iterable[AnyPart]) -> list[ToolStep]:
    """The finished steps of a message."""
    tracker = ToolStepTracker()
    steps: list[ToolStep] = []
    for part in parts:
        if isinstance(part, ToolCall):
            tracker.start(part)
        elif isinstance(part, ToolResult):
            steps.append(tracker.finish(part))
    return steps


def _step(step_id: str, name: str, call: ToolCall | None, result: ToolResult | None) -> ToolStep:
    kind: StepType = "Knowledge" if name == SEARCH_TOOL else "ToolCall"
    return ToolStep(
        target_id=None,
        name=name,
        original_title=None,
        type=kind,
        status="EXECUTING" if result is None else "FAILED" if result.error else "FINISHED",
        executing_message=None,
        result=ToolStepResult(
            id=None,
            name=name,
            icon=None,
            type=kind,
            success=None if result is None else not result.error,
            error=result.content if result is not None and result.error else None,
            data=_data(result),
            inner_execute_info=None,
            start_time=None if call is None else call.at,
            end_time=None if result is None else result.at,
            input=None if call is None else call.arguments,
            execute_id=step_id,
            kind=None,
            locations=None,
        ),
        card_bind_config=None,
        card_data=None,
        page_arg_config=None,
        sub_event_type=None,
    )


def _data(result: ToolResult | None) -> Any:
    if result is None:
        return None
    return result.content if result.data is None else result.data
