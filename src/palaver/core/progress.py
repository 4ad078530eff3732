"""How far a turn has got, read from the message that it writes: the message is the log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from palaver.core.types import AnyPart, File, Passage, ToolCall, ToolResult

RETRIEVAL_CALL = "retrieval"
"""The ``call_id`` of the retrieval that precedes the first model call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """``first``: the index of the model's first part. ``rounds``: the number of model calls whose tool calls all have
    results. ``unanswered``: the tool calls without a result. ``partial``: the last model call has written something
    that no complete round includes."""

    first: int
    rounds: int
    unanswered: tuple[ToolCall, ...]
    partial: bool

    def can_continue(self, step: int, callers_tools: Collection[str]) -> bool:
        """Whether another process can continue the turn, of which ``step`` model calls have begun: it died between
        two of them. Results of the caller's tools may be missing, as they come from outside."""
        if self.unanswered:
            waiting = all(call.name in callers_tools for call in self.unanswered)
            return waiting and not self.partial and step == self.rounds + 1
        return not self.partial and step == self.rounds


def progress_of(parts: Sequence[AnyPart]) -> Progress:
    first = _preamble_length(parts)
    open_calls: dict[str, ToolCall] = {}
    rounds = 0
    partial = False
    for part in parts[first:]:
        match part:
            case ToolCall():
                open_calls[part.call_id] = part
                partial = False
            case ToolResult():
                open_calls.pop(part.call_id, None)
                if not open_calls:
                    rounds += 1
            case _:
                partial = True
    return Progress(first=first, rounds=rounds, unanswered=tuple(open_calls.values()), partial=partial)


def retrieved_passages(parts: Sequence[AnyPart]) -> tuple[Passage, ...]:
    """The passages that retrieval put before the first model call."""
    for part in parts[: _preamble_length(parts)]:
        if isinstance(part, ToolResult):
            return msgspec.convert(part.data, tuple[Passage, ...])
    return ()


def _preamble_length(parts: Sequence[AnyPart]) -> int:
    """The number of parts before the model's: unreadable files, and the retrieval with its result."""
    for index, part in enumerate(parts):
        if not isinstance(part, File) and not (
            isinstance(part, ToolCall | ToolResult) and part.call_id == RETRIEVAL_CALL
        ):
            return index
    return len(parts)
