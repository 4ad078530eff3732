"""Decodes one chunk of a Chat Completions stream from the JSON of one event.

The usual shape is decoded in one pass. If any member has another type, the chunk is decoded again, member by member;
optional members that cannot be understood are treated as absent.
"""

from __future__ import annotations

import json
import math
from typing import Any, cast

import msgspec

from palaver.core.problems import Upstream
from palaver.models.errors import excerpt

Json = dict[str, Any]


class FunctionFragment(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class ToolCallFragment(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: FunctionFragment | None = None
    extra_content: Any = None


class ChunkDelta(msgspec.Struct):
    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: list[ToolCallFragment | None] | None = None


class TokenCounts(msgspec.Struct):
    prompt_tokens: int | float | None = None
    completion_tokens: int | float | None = None


class Choice(msgspec.Struct):
    index: int | None = None
    delta: ChunkDelta | None = None
    message: ChunkDelta | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    usage: TokenCounts | None = None
    error: Any = None


class Chunk(msgspec.Struct):
    choices: list[Choice | None] | None = None
    usage: TokenCounts | None = None
    error: Any = None
    base_resp: Any = None


decode = msgspec.json.Decoder(Chunk).decode
"""Decodes a chunk whose members all have the usual types. Raises ``msgspec.DecodeError`` or ``UnicodeDecodeError``."""
_MOST_TOKENS = 2**31


def lenient_loads(data: bytes) -> Any:
    """Parse JSON leniently: allows lone surrogates, NaN and invalid UTF-8. Raises ``Upstream`` (``malformed``)."""
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise malformed_chunk(data) from error


def malformed_chunk(data: bytes) -> Upstream:
    text = excerpt(data[:4096].decode("utf-8", "replace"))
    return Upstream(reason="malformed", detail=f"not a chunk of an answer: {text!r}")


def decode_leniently(data: bytes) -> Chunk | None:
    """Decode a chunk with members of any type; its text may hold lone surrogates. ``None`` if it is not an object, and
    so not part of the answer. Raises ``Upstream`` (``malformed``) for a broken object, whose text is lost."""
    data = data.strip().removeprefix(b"\xef\xbb\xbf")
    while data.startswith(b"data:"):  # a proxy's prefix in front of the endpoint's
        data = data[5:].lstrip()
    if not data.startswith(b"{"):
        return None
    value = _object(lenient_loads(data))
    choices = value.get("choices")
    if choices is not None and not isinstance(choices, list):
        raise malformed_chunk(data)
    return Chunk(
        choices=[_choice(_object(choice)) for choice in cast("list[Any]", choices or [])],
        usage=_tokens(value.get("usage")),
        error=value.get("error"),
        base_resp=value.get("base_resp"),
    )


def valid_count(tokens: float | None, before: int | None) -> int | None:
    """A token count that can be stored, or ``before`` if ``tokens`` is not a valid count."""
    return int(tokens) if tokens is not None and 0 <= tokens < _MOST_TOKENS else before


def _choice(choice: Json) -> Choice:
    return Choice(
        index=_integer(choice.get("index")),
        delta=_parse_delta(choice.get("delta")),
        message=_parse_delta(choice.get("message")),
        finish_reason=_text(choice.get("finish_reason")),
        native_finish_reason=_text(choice.get("native_finish_reason")),
        usage=_tokens(choice.get("usage")),
        error=choice.get("error"),
    )


def _parse_delta(value: Any) -> ChunkDelta | None:
    if not isinstance(value, dict):
        return None
    delta = cast("Json", value)
    content, calls = delta.get("content"), delta.get("tool_calls")
    return ChunkDelta(
        content=cast("Any", content) if isinstance(content, str | list) else None,
        reasoning_content=_text(delta.get("reasoning_content")),
        reasoning=delta.get("reasoning"),
        refusal=_text(delta.get("refusal")),
        tool_calls=[
            _fragment(_object(call)) for call in cast("list[Any]", calls if isinstance(calls, list) else [calls])
        ]
        if calls
        else None,
    )


def _fragment(fragment: Json) -> ToolCallFragment:
    function = _object(fragment.get("function"))
    call_id = fragment.get("id")
    return ToolCallFragment(
        index=_integer(fragment.get("index")),
        id=str(call_id) if isinstance(call_id, str | int) and not isinstance(call_id, bool) else None,
        function=FunctionFragment(name=_text(function.get("name")), arguments=function.get("arguments")),
        extra_content=fragment.get("extra_content"),
    )


def _tokens(value: Any) -> TokenCounts:
    tokens = _object(value)
    return TokenCounts(
        prompt_tokens=_number(tokens.get("prompt_tokens")), completion_tokens=_number(tokens.get("completion_tokens"))
    )


def _object(value: Any) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    """A finite number, also from a numeric string."""
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _integer(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
