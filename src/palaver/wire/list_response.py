"""JSON lists of messages: encoded one item at a time, yielding to other tasks, and streamed if the length is
unbounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from itertools import chain
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


async def list_response(items: Iterable[Any], head: bytes, tail: bytes) -> Response:
    """``items`` as a JSON array between ``head`` and ``tail``. The iterable is consumed lazily."""
    parts = [head + b"["]
    batch_size = 0
    for number, item in enumerate(items):
        piece = compact_json(item)
        parts.append(b"," + piece if number else piece)
        batch_size += len(piece)
        if batch_size > BATCH_BYTES:
            batch_size = 0
            await asyncio.sleep(0)
    parts.append(b"]" + tail)
    size = sum(map(len, parts))
    if size <= BATCH_BYTES:
        return Response(body=b"".join(parts))
    return Response(body_iterator=_drain(parts), length=size, buffered_bytes=size)


async def _drain(parts: list[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield ``parts``, releasing each once it is sent."""
    parts.reverse()
    while parts:
        yield parts.pop()


async def history_response(
    history: FullHistory, show: Callable[[Message], Any | None], ends: tuple[bytes, bytes], *, first: Sequence[Any] = ()
) -> Response:
    """``first`` and the messages of ``history``, converted by ``show`` (``None``: skipped), as a JSON array between
    ``ends``. Streamed if the history has a ``rest``."""
    items = chain(first, _items(history.first, show))
    if history.rest is None:
        return await list_response(items, *ends)
    return Response(body_iterator=_stream(items, history.rest, show, ends), length=None, buffered_bytes=STREAMED_BYTES)


def _items(messages: Iterable[Message], show: Callable[[Message], Any | None]) -> Iterator[Any]:
    return (item for message in messages if (item := show(message)) is not None)


async def _stream(
    items: Iterable[Any],
    rest: AsyncGenerator[Sequence[Message], None],
    show: Callable[[Message], Any | None],
    ends: tuple[bytes, bytes],
) -> AsyncGenerator[bytes, None]:
    head, tail = ends
    separator = head + b"["
    for item in items:
        yield separator + compact_json(item)
        separator = b","
    async for messages in rest:
        for item in _items(messages, show):
            yield separator + compact_json(item)
            separator = b","
    yield (separator if separator != b"," else b"") + b"]" + tail


def split_at_placeholder(body: bytes, place: bytes = EMPTY) -> tuple[bytes, bytes]:
    """The parts of ``body`` before and after the first occurrence of ``place``, to be replaced by the array."""
    head, separator, tail = body.partition(place)
    assert separator, "the body contains the placeholder"
    return head, tail
