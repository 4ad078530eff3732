"""An agent's steps as the vendor's content blocks, for streams and for a session's messages.

Durations come from times stored with the message, so that a replay has the same values.
Source: wire specification ``wps.md``, sections 5.3 and 5.6.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from palaver.core.types import AnyPart, Message, RunEnded, Text, Thinking, ToolCall, ToolResult
from palaver.dialects.wps.errors import failure_reason
from palaver.wire.framing import EscapedText, ascii_text, split_writes

_BLOCK_ENDS = '], "allow_markdown": true, "media_url": null}'


def dumps(value: Any) -> str:
    """JSON as the vendor's Python writes it: ``", "`` and ``": "`` as separators, no character above U+007E."""
    text = json.dumps(value)
    return text.replace("\x7f", "\\u007f") if "\x7f" in text else text


class WpsContentBlocks:
    """Builds the content blocks of one answer as it is written."""

    def __init__(self, question: str, began_ms: int) -> None:
        self._began = began_ms
        self._input = _entry("text", 0, "Input", "MessageSquare") + f'"text": {ascii_text(f"**Input**: {question}")}}}'
        self._calls: dict[str, ToolCall] = {}
        self._tools: list[str] = []
        self.thinking = EscapedText()

    def add(self, part: AnyPart) -> bool:
        """Record a complete part. Returns whether the blocks changed."""
        match part:
            case ToolCall():
                self._calls[part.call_id] = part
                return False
            case ToolResult():
                self._tools.append(_tool(self._calls.pop(part.call_id, None), part))
                return True
            case _:
                return False

    def partial(self) -> Iterator[str | EscapedText]:
        """The blocks of an answer in progress, as pieces of JSON."""
        yield from self._steps()
        yield f"{_BLOCK_ENDS}]"

    def complete(self, answer: EscapedText, ended: RunEnded) -> Iterator[str | EscapedText]:
        """The blocks of a finished answer."""
        yield from self._steps()
        if ended.status.failed:
            yield f"{_BLOCK_ENDS}, {_error(failure_reason(ended.problem))}]"
            return
        took = max(0, ended.at - self._began)
        yield ", " + _entry("text", took, "Output", "MessageSquare") + '"text": "'
        yield answer
        yield f'"}}{_BLOCK_ENDS}]'

    def _steps(self) -> Iterator[str | EscapedText]:
        yield f'[{{"title": "Agent Steps", "contents": [{self._input}'
        if self.thinking:
            yield ", " + _entry("text", 0, "Thinking", "Brain") + '"text": "'
            yield self.thinking
            yield '"}'
        for tool in self._tools:
            yield f", {tool}"


def blocks(question: str, answer: Message) -> list[Any]:
    """The content blocks of a stored answer."""
    steps = WpsContentBlocks(question, milliseconds(answer))
    text = EscapedText()
    for part in answer.parts:
        match part:
            case Text():
                text.add(part.text)
            case Thinking():
                steps.thinking.add(part.text)
            case _:
                steps.add(part)
    pieces = steps.partial() if answer.ended is None else steps.complete(text, answer.ended)
    return json.loads(b"".join(joined(pieces)))


def joined(pieces: Iterable[str | EscapedText]) -> list[bytes]:
    """Pieces of JSON, joined into writes."""
    return split_writes(*(piece.encode("ascii") if isinstance(piece, str) else piece for piece in pieces))


def milliseconds(message: Message) -> int:
    """When a message was created, in epoch milliseconds."""
    return round(message.created.timestamp() * 1000)


def _entry(kind: str, duration: int, title: str, icon: str) -> str:
    """The beginning of an entry, up to its type-specific members."""
    return f'{{"type": "{kind}", "duration": {duration}, "header": {{"title": {ascii_text(title)}, "icon": "{icon}"}}, '


def _tool(call: ToolCall | None, result: ToolResult) -> str:
    took = 0 if call is None else max(0, result.at - call.at)
    entry = {
        "name": result.name,
        "tool_input": {} if call is None else call.arguments,
        "output": None if result.error else result.content,
        "error": result.content if result.error else None,
    }
    return _entry("tool_use", took, result.name, "Hammer") + dumps(entry)[1:]


def _error(reason: str) -> str:
    entry = {
        "type": "error",
        "duration": None,
        "header": {"title": "Error", "icon": "MessageSquare"},
        "component": "Agent",
        "field": None,
        "reason": reason,
        "solution": None,
        "traceback": None,
    }
    return f'{{"title": "Error", "contents": [{dumps(entry)}{_BLOCK_ENDS}'
