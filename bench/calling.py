"""Client connections: they send prepared bytes and search the responses for marks, nothing else."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from bench.upstream import BEGIN, END

GUARD = 120.0
"""Timeout for an answer, in seconds."""

_BEGIN, _END = BEGIN.encode(), END.encode()
_TAIL = 8
_LAST = b"\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]+)")


class Failed(Exception):  # noqa: N818  a message for the user of the bench
    """A response is not as expected."""


@dataclass(slots=True)
class Progress:
    """The progress of many answers, counted together."""

    waiting_for_text: int
    waiting_for_last: int
    text: asyncio.Event
    last: asyncio.Event
    failure: str = ""
    round: int = 0
    waiting_in_round: int = 0
    round_complete: asyncio.Event = field(default_factory=asyncio.Event)
    """Data has arrived on every line in this round."""

    @classmethod
    def of(cls, answers: int) -> Progress:
        return cls(answers, answers, asyncio.Event(), asyncio.Event())

    async def reached(self, place: asyncio.Event) -> None:
        """Wait until every answer has reached ``place``. Raises ``Failed`` as soon as one has failed."""
        await place.wait()
        if self.failure:
            raise Failed(self.failure)

    def begin_round(self, answers: int) -> None:
        self.round += 1
        self.waiting_in_round = answers
        self.round_complete.clear()

    def note_data(self) -> None:
        self.waiting_in_round -= 1
        if not self.waiting_in_round:
            self.round_complete.set()

    def fail(self, why: str) -> None:
        self.failure = self.failure or why
        self.text.set()
        self.last.set()
        self.round_complete.set()


class Line(asyncio.Protocol):
    """A connection for one request at a time. Times are from ``perf_counter``, whose resolution is finer than the event
    loop's."""

    def __init__(self) -> None:
        self.sent_at = self.first = self.ended = 0.0
        self.status = 0
        self.reads = 0
        self.size = 0
        self.received: list[bytes] | None = None
        """The pieces of the response, if requested with ``keep``."""
        self._transport: asyncio.Transport
        self._progress: Progress | None = None
        self._done: asyncio.Future[None] | None = None
        self._tail = b""
        self._left: int | None = None
        self._head = b""
        self._last = False
        self._round = 0

    @classmethod
    async def to(cls, port: int) -> Line:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(cls, "127.0.0.1", port)
        return line

    def ask(self, request: bytes, progress: Progress | None = None, *, keep: bool = False) -> asyncio.Future[None]:
        """Send a request. The future is done when the response is complete."""
        loop = asyncio.get_running_loop()
        self._progress = progress
        self._done = loop.create_future()
        self.first = self.ended = 0.0
        self.status = self.reads = self.size = 0
        self.received = [] if keep else None
        self._tail = self._head = b""
        self._left = None
        self._last = False
        self._round = 0
        self.sent_at = time.perf_counter()
        self._transport.write(request)
        return self._done

    async def whole(self, request: bytes) -> bytes:
        """Send a request and return the response's body. Raises ``Failed`` if the status is not 200."""
        async with asyncio.timeout(GUARD):
            await self.ask(request, keep=True)
        return self.answer()

    def answer(self) -> bytes:
        """The body of the response, with its HTTP framing. Raises ``Failed`` if the status is not 200."""
        assert self.received is not None
        body = b"".join(self.received).partition(b"\r\n\r\n")[2]
        if self.status != 200:
            raise Failed(f"status {self.status}: {body[:500]!r}")
        return body

    def hang_up(self) -> None:
        self._transport.abort()

    def read_nothing(self) -> None:
        self._transport.pause_reading()

    def read_on(self) -> None:
        self._transport.resume_reading()

    # Called by the event loop ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            why = f"the connection was closed ({exc}) after {self.size} bytes"
            if self._progress is not None:
                self._progress.fail(why)
            self._done.set_exception(Failed(why))
            self._done.exception()  # retrieved here, because not every caller awaits this future

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        self.size += len(data)
        if (progress := self._progress) is not None and self._round != progress.round:
            self._round = progress.round
            progress.note_data()
        if self.received is not None:
            self.received.append(data)
        if not self.status:
            self._open(data)
            if not self.status:
                return
        seen = self._tail + data
        self._tail = seen[-_TAIL:]
        if not self.first and _BEGIN in seen:
            self._text()
        if not self._last and _END in seen:
            self._last_text()
        if self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self._end()
        elif seen.endswith(_LAST):
            self._end()

    def _open(self, data: bytes) -> None:
        self._head += data
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if end:
            self.status = int(head[9:12])
            length = _LENGTH.search(head)
            # The caller subtracts the length of ``data``.
            self._left = None if length is None else len(head) + 4 + int(length[1]) - len(self._head) + len(data)

    def _text(self) -> None:
        self.first = time.perf_counter()
        if (progress := self._progress) is not None:
            progress.waiting_for_text -= 1
            if not progress.waiting_for_text:
                progress.text.set()

    def _last_text(self) -> None:
        self._last = True
        if (progress := self._progress) is not None:
            progress.waiting_for_last -= 1
            if not progress.waiting_for_last:
                progress.last.set()

    def _end(self) -> None:
        if self._done is None or self._done.done():
            return
        self.ended = time.perf_counter()
        self._done.set_result(None)
        if self._progress is not None and not self._last:
            self._progress.fail(f"an answer with status {self.status} ended without its last words")


async def lines(port: int, count: int) -> list[Line]:
    """Open connections, 50 at a time: more would wait for each other's handshakes."""
    connections: list[Line] = []
    while len(connections) < count:
        connections += await asyncio.gather(*(Line.to(port) for _ in range(min(50, count - len(connections)))))
    return connections


def hang_up(connections: Iterable[Line]) -> None:
    for line in connections:
        line.hang_up()
