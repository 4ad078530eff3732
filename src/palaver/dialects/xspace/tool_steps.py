"""An agent's steps (look-ups, tool calls) as the vendor shows them, in the stream and in the history.

Source: wire specification ``xspace.md``, section 7.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any
from urllib.parse import quote

from palaver.core.turn import SEARCH_TOOL
from palaver.core.types import AnyPart, Text, ToolCall, ToolResult

_BREAK = re.compile(r"[\x00-\x20\x7f\x85\u2028\u2029]")
"""Would end the marker: to a page it is one line of Markdown."""


class ToolStepTracker:
    """Pairs results with their calls. Clients tell steps apart by ``executeId``, so every step has one of its own."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._begun: dict[str, tuple[str, ToolCall]] = {}

    def began(self, call: ToolCall) -> dict[str, Any]:
        step = self._new_id(call.call_id)
        self._begun[call.call_id] = (step, call)
        result = _result(step, call.name, started=call.at, arguments=call.arguments)
        return _step(call.name, "EXECUTING", result)

    def ended(self, result_part: ToolResult) -> dict[str, Any]:
        step, call = self._begun.pop(result_part.call_id, (None, None))
        result = _result(
            step or self._new_id(result_part.call_id),
            result_part.name,
            started=None if call is None else call.at,
            arguments=None if call is None else call.arguments,
        )
        result |= {
            "success": not result_part.error,
            "error": result_part.content if result_part.error else None,
            "data": result_part.content if result_part.data is None else result_part.data,
            "endTime": result_part.at,
        }
        return _step(result_part.name, "FAILED" if result_part.error else "FINISHED", result)

    def _new_id(self, preferred: str) -> str:
        chosen = preferred
        if not chosen or chosen in self._ids:
            chosen = f"{preferred or 'step'}-{len(self._ids) + 1}"
        self._ids.add(chosen)
        return chosen


def text_with_steps(parts: Iterable[AnyPart]) -> str:
    """The text of a message with a marker at the place of each finished step: pages draw the steps of a history from
    nothing else."""
    steps = ToolStepTracker()
    pieces: list[str] = []
    for part in parts:
        match part:
            case Text(text=text):
                pieces.append(text)
            case ToolCall():
                steps.began(part)
            case ToolResult():
                pieces.append(_marker(steps.ended(part)))
            case _:
                pass
    return "".join(pieces)


def _marker(step: dict[str, Any]) -> str:
    execution = _BREAK.sub(lambda match: f"&#{ord(match[0])};", escape(step["result"]["executeId"]))
    name = quote(step["name"], safe="", errors="replace")
    return (
        f'\n\n<div><markdown-custom-process executeId="{execution}" type="{step["type"]}"'
        f' status="{step["status"]}" name="{name}"></markdown-custom-process></div>\n\n'
    )


def finished_steps(parts: Iterable[AnyPart]) -> list[dict[str, Any]]:
    """The steps of a message that came to their end."""
    steps = ToolStepTracker()
    ends: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, ToolCall):
            steps.began(part)
        elif isinstance(part, ToolResult):
            ends.append(steps.ended(part))
    return ends


def _type(name: str) -> str:
    return "Knowledge" if name == SEARCH_TOOL else "ToolCall"


def _step(name: str, status: str, result: dict[str, Any]) -> dict[str, Any]:
    return {
        "targetId": None,
        "name": name,
        "originalTitle": None,
        "type": _type(name),
        "status": status,
        "executingMessage": None,
        "result": result,
        "cardBindConfig": None,
        "cardData": None,
        "pageArgConfig": None,
        "subEventType": None,
    }


def _result(id: str, name: str, *, started: int | None, arguments: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": None,
        "name": name,
        "icon": None,
        "type": _type(name),
        "success": None,
        "error": None,
        "data": None,
        "innerExecuteInfo": None,
        "startTime": started,
        "endTime": None,
        "input": arguments,
        "executeId": id,
        "kind": None,
        "locations": None,
    }
