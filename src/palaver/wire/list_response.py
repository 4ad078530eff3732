"""JSON of many messages: encoded one at a time, so that others have their turn, and sent as it is read where it may be
of any length."""

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
"""Bytes that are encoded before others have their turn."""
EMPTY = b"[]"
STREAMED_BYTES = 1_048_576
"""Bytes that an answer which is sent as it is read counts for, until it is taken."""


async def list_response(shown: Iterable[Any], head: bytes, tail: bytes) -> Response:
    """The elements of ``shown`` as a JSON array between ``head`` and ``tail``. Each is made when its turn comes."""
    parts = [head + b"["]
    at_once = 0
    for number, one in enumerate(shown):
        piece = compact_json(one)
        parts.append(b"," + piece if number else piece)
        at_once += len(piece)
        if at_once > BATCH_BYTES:
            at_once = 0
            await asyncio.sleep(0)
    parts.append(b"]" + tail)
    size = sum(map(len, parts))
    if size <= BATCH_BYTES:
        return Response(body=b"".join(parts))
    return Response(pieces=_given_up(parts), length=size, held=size)


async def _given_up(parts: list[bytes]) -> AsyncGenerator[bytes, None]:
    """``parts``, of which none is held any longer than it takes to send it."""
    parts.reverse()
    while parts:
        yield parts.pop()


async def history_response(
    said: FullHistory, show: Callable[[Message], Any | None], ends: tuple[bytes, bytes], *, first: Sequence[Any] = ()
) -> Response:
    """``first`` and what was said as a JSON array between ``ends``, without what ``show`` leaves out: whole, or sent
    as it is read."""
    begun = chain(first, _shown(said.first, show))
    if said.rest is None:
        return await list_response(begun, *ends)
    return Response(pieces=_read_on(begun, said.rest, show, ends), length=None, held=STREAMED_BYTES)


def _shown(messages: Iterable[Message], show: Callable[[Message], Any | None]) -> Iterator[Any]:
    return (one for message in messages if (one := show(message)) is not None)


async def _read_on(
    begun: Iterable[Any],
    rest: AsyncGenerator[Sequence[Message], None],
    show: Callable[[Message], Any | None],
    ends: tuple[bytes, bytes],
) -> AsyncGenerator[bytes, None]:
    head, tail = ends
    before = head + b"["
    for one in begun:
        yield before + compact_json(one)
        before = b","
    async for piece in rest:
        for one in _shown(piece, show):
            yield before + compact_json(one)
            before = b","
    yield (before if before != b"," else b"") + b"]" + tail


def split_around(body: bytes, place: bytes = EMPTY) -> tuple[bytes, bytes]:
    """What stands before and behind the array that is to be in ``body`` where ``place`` is for the first time."""
    head, found, tail = body.partition(place)
    assert found, "the array has its place"
    return head, tail
