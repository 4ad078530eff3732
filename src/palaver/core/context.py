"""What the model gets to see: instructions with their variables, passages, a window of the history."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from palaver.core.ports.models import ModelMessage
from palaver.core.types import AnyPart, File, Message, Passage, Text

MAX_HISTORY_CHARACTERS = 60_000
"""How many characters of earlier messages a model sees at most, the newest first; the question itself is never cut."""

HISTORY_BYTES = 2_097_152
"""How many bytes of earlier messages are read for that, as they are stored: with what was thought and found."""

_NAME = re.compile(r"\{\{\s*([^{}\s][^{}]*?)\s*\}\}")


def fill_template(instructions: str, variables: Mapping[str, Any]) -> str:
    """``instructions`` with every ``{{name}}`` replaced: text as it is, other JSON compact, a missing one empty."""

    def value(match: re.Match[str]) -> str:
        given = variables.get(match.group(1))
        if given is None:
            return ""
        return given if isinstance(given, str) else msgspec.json.encode(given).decode()

    return _NAME.sub(value, instructions)


def history_window(messages: Sequence[Message]) -> tuple[ModelMessage, ...]:
    """The end of ``messages`` (oldest first) that fits, as the model reads it: earlier turns by their words alone."""
    turns: list[ModelMessage] = []
    room = MAX_HISTORY_CHARACTERS
    for message in reversed(messages):
        parts = tuple(_spoken(message.parts))
        if not parts:
            continue
        room -= sum(len(part.text) for part in parts if isinstance(part, Text))
        if room < 0 and turns:
            break
        turns.append(ModelMessage(role=message.role, parts=parts))
    turns.reverse()
    while turns and turns[0].role == "assistant":
        del turns[0]
    return tuple(turns)


def _spoken(parts: Sequence[AnyPart]) -> list[Text | File]:
    return [
        part
        for part in parts
        if (isinstance(part, File) and not part.problem) or (isinstance(part, Text) and part.text.strip())
    ]


def alternate_roles(turns: Sequence[ModelMessage]) -> tuple[ModelMessage, ...]:
    """``turns`` with neighbours of one role joined, for endpoints that refuse two in a row: an answer that failed or
    was stopped before its first word leaves two questions side by side."""
    joined: list[ModelMessage] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            joined[-1] = ModelMessage(role=turn.role, parts=_joined(joined[-1].parts, turn.parts))
        else:
            joined.append(turn)
    return tuple(joined)


def _joined(earlier: tuple[AnyPart, ...], later: tuple[AnyPart, ...]) -> tuple[AnyPart, ...]:
    if earlier and later and isinstance(last := earlier[-1], Text) and isinstance(first := later[0], Text):
        return (*earlier[:-1], Text(text=f"{last.text}\n\n{first.text}"), *later[1:])
    return (*earlier, *later)


def format_passages(passages: Sequence[Passage]) -> str:
    """``passages`` as text for a model: numbered, each with its source."""
    return "\n\n".join(
        f"[{number}] {' › '.join(name for name in (passage.title, passage.heading) if name) or passage.source}"
        f" ({passage.source})\n{passage.text}"
        for number, passage in enumerate(passages, 1)
    )
