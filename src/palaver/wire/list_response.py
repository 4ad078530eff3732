"""JSON arrays of messages: encoded one item at a time, yielding to other tasks, and streamed if the length is
unbounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from palaver.core.history import FullHistory
from palaver.core.types import Message
from palaver.wire.contract import Response
from palaver.wire.framing import compact_json

BATCH_BYTES = 262_144
"""Bytes encoded before yielding to other tasks."""
EMPTY = b"[]"
STREAMED_BYTES = 1_048_576
"""Assumed memory use, in bytes, of a response that is streamed while it is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedItems:
    """The items of a JSON array, separated by commas: in memory, or encoded while they are sent."""

    pieces: list[bytes] | AsyncGenerator[bytes, None]

    def response(self, head: bytes, tail: bytes) -> Response:
        """The array between ``head`` and ``tail``."""
        if not isinstance(self.pieces, list):
            body = _array(head, self.pieces, tail)
            return Response(body_iterator=body, length=None, buffered_bytes=STREAMED_BYTES)
        parts = [head + b"[", *self.pieces, b"]" + tail]
        size = sum(map(len, parts))
        if size <= BATCH_BYTES:
            return Response(body=b"".join(parts))
        return Response(body_iterator=_drain(parts), length=size, buffered_bytes=size)


async def encode_items(items: Iterable[Any]) -> EncodedItems:
    """Encode ``items``, which are consumed lazily."""
    pieces: list[bytes] = []
    batch_size = 0
    for piece in _separated(items, _separators()):
        pieces.append(piece)
        batch_size += len(piece)
        if batch_size > BATCH_BYTES:
            batch_size = 0
            await asyncio.sleep(0)
    return EncodedItems(pieces=pieces)


async def encode_history(
    history: FullHistory, convert: Callable[[Message], Any | None], *, first: Sequence[Any] = ()
) -> EncodedItems:
    """Encode ``first`` and the messages of ``history``, converted by ``convert`` (``None``: skipped). A ``rest`` is
    encoded while it is sent."""
    items = chain(first, _converted(history.first, convert))
    if history.rest is None:
        return await encode_items(items)
    return EncodedItems(pieces=_encode_lazily(items, history.rest, convert))


async def _encode_lazily(
    items: Iterable[Any],
    rest: AsyncGenerator[Sequence[Message], None],
    convert: Callable[[Message], Any | None],
) -> AsyncGenerator[bytes, None]:
    separators = _separators()
    for piece in _separated(items, separators):
        yield piece
    async with aclosing(rest):
        async for messages in rest:
            for piece in _separated(_converted(messages, convert), separators):
                yield piece


def _converted(messages: Iterable[Message], convert: Callable[[Message], Any | None]) -> Iterator[Any]:
    return (item for message in messages if (item := convert(message)) is not None)


def _separators() -> Iterator[bytes]:
    return chain((b"",), repeat(b","))


def _separated(items: Iterable[Any], separators: Iterator[bytes]) -> Iterator[bytes]:
    """Each item as JSON, after its separator. Takes no separator beyond the last item's."""
    return (separator + compact_json(item) for item, separator in zip(items, separators, strict=False))


async def _array(head: bytes, pieces: AsyncGenerator[bytes, None], tail: bytes) -> AsyncGenerator[bytes, None]:
    opening = head + b"["
    async with aclosing(pieces):
        async for piece in pieces:
            yield opening + piece
            opening = b""
    yield opening + b"]" + tail


async def _drain(parts: list[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield ``parts``, releasing each once it is sent."""
    parts.reverse()
    while parts:
        yield parts.pop()


def split_at_placeholder(body: bytes, placeholder: bytes = EMPTY) -> tuple[bytes, bytes]:
    """The parts of ``body`` before and after the first occurrence of ``placeholder``, to be replaced by the array."""
    head, separator, tail = body.partition(placeholder)
    assert separator, "the body contains the placeholder"
    return head, tail
