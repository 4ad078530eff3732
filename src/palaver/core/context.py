"""The model's context: instructions with variables filled in, passages, and a window of the history."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from palaver.core.ports.models import ModelMessage
from palaver.core.types import AnyPart, File, Message, Passage, Text

MAX_HISTORY_CHARACTERS = 60_000
"""Maximum characters of earlier messages sent to a model, newest first; the question itself is never truncated."""

HISTORY_BYTES = 2_097_152
"""Maximum stored bytes of earlier messages loaded for that, including reasoning and tool results."""

_NAME = re.compile(r"\{\{\s*([^{}\s][^{}]*?)\s*\}\}")


def fill_template(instructions: str, variables: Mapping[str, Any]) -> str:
    """``instructions`` with every ``{{name}}`` replaced: strings as is, other values as compact JSON, missing ones
    empty."""

    def replacement(match: re.Match[str]) -> str:
        value = variables.get(match.group(1))
        if value is None:
            return ""
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    return _NAME.sub(replacement, instructions)


def history_window(messages: Sequence[Message]) -> tuple[ModelMessage, ...]:
    """The newest of ``messages`` (oldest first) that fit, reduced to their text and files."""
    turns: list[ModelMessage] = []
    budget = MAX_HISTORY_CHARACTERS
    for message in reversed(messages):
        parts = tuple(_text_and_files(message.parts))
        if not parts:
            continue
        budget -= sum(len(part.text) for part in parts if isinstance(part, Text))
        if budget < 0 and turns:
            break
        turns.append(ModelMessage(role=message.role, parts=parts))
    turns.reverse()
    while turns and turns[0].role == "assistant":
        del turns[0]
    return tuple(turns)


def _text_and_files(parts: Sequence[AnyPart]) -> list[Text | File]:
    return [
        part
        for part in parts
        if (isinstance(part, File) and not part.problem) or (isinstance(part, Text) and part.text.strip())
    ]


def alternate_roles(turns: Sequence[ModelMessage]) -> tuple[ModelMessage, ...]:
    """``turns`` with consecutive messages of one role merged, for endpoints that reject them: an answer that failed or
    was stopped before its first token leaves two questions in a row."""
    merged: list[ModelMessage] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            merged[-1] = ModelMessage(role=turn.role, parts=_merge(merged[-1].parts, turn.parts))
        else:
            merged.append(turn)
    return tuple(merged)


def _merge(earlier: tuple[AnyPart, ...], later: tuple[AnyPart, ...]) -> tuple[AnyPart, ...]:
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
