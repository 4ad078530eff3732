"""Callers: connections that send bytes made beforehand and look for marks in what comes, and nothing else."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from bench.upstream import BEGIN, END

GUARD = 120.0
"""Seconds after which an answer that has not come is not waited for any longer."""

_BEGIN, _END = BEGIN.encode(), END.encode()
_TAIL = 8
_LAST = b"\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([0-9]+)")


class Failed(Exception):  # noqa: N818  a sentence for whoever started the bench
    """An answer that is not what it has to be, with what was said."""


@dataclass(slots=True)
class Progress:
    """How far many answers are, counted together: one look instead of one per connection."""

    waiting_for_text: int
    waiting_for_last: int
    text: asyncio.Event
    last: asyncio.Event
    failure: str = ""
    round: int = 0
    waiting_in_round: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Something came on every line in this round."""

    @classmethod
    def of(cls, answers: int) -> Progress:
        return cls(answers, answers, asyncio.Event(), asyncio.Event())

    async def reached(self, place: asyncio.Event) -> None:
        """Wait until every answer has come to ``place``. Raises ``Failed`` as soon as one cannot."""
        await place.wait()
        if self.failure:
            raise Failed(self.failure)

    def begin_round(self, answers: int) -> None:
        self.round += 1
        self.waiting_in_round = answers
        self.heard.clear()

    def hear(self) -> None:
        self.waiting_in_round -= 1
        if not self.waiting_in_round:
            self.heard.set()

    def fail(self, why: str) -> None:
        self.failure = self.failure or why
        self.text.set()
        self.last.set()
        self.heard.set()


class Line(asyncio.Protocol):
    """One connection, on which one request at a time is made. Times are ``perf_counter``'s: the loop's clock
    has milliseconds."""

    def __init__(self) -> None:
        self.asked = self.first = self.ended = 0.0
        self.status = 0
        self.reads = 0
        self.size = 0
        self.kept: list[bytes] | None = None
        """The pieces of the answer, where somebody wants them."""
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
        """Send a request; done when its answer is."""
        loop = asyncio.get_running_loop()
        self._progress = progress
        self._done = loop.create_future()
        self.first = self.ended = 0.0
        self.status = self.reads = self.size = 0
        self.kept = [] if keep else None
        self._tail = self._head = b""
        self._left = None
        self._last = False
        self._round = 0
        self.asked = time.perf_counter()
        self._transport.write(request)
        return self._done

    async def whole(self, request: bytes) -> bytes:
        """Send a request; the body of its answer, which must have status 200."""
        async with asyncio.timeout(GUARD):
            await self.ask(request, keep=True)
        return self.answer()

    def answer(self) -> bytes:
        """The body that was kept, as HTTP framed it. Raises ``Failed`` when the status is not 200."""
        assert self.kept is not None
        body = b"".join(self.kept).partition(b"\r\n\r\n")[2]
        if self.status != 200:
            raise Failed(f"status {self.status}: {body[:500]!r}")
        return body

    def hang_up(self) -> None:
        self._transport.abort()

    def read_nothing(self) -> None:
        self._transport.pause_reading()

    def read_on(self) -> None:
        self._transport.resume_reading()

    # What the loop calls --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            why = f"the connection was closed ({exc}) after {self.size} bytes"
            if self._progress is not None:
                self._progress.fail(why)
            self._done.set_exception(Failed(why))
            self._done.exception()  # not all that wait for one answer of many come to look at this one

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        self.size += len(data)
        if (progress := self._progress) is not None and self._round != progress.round:
            self._round = progress.round
            progress.hear()
        if self.kept is not None:
            self.kept.append(data)
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
            # ``data`` is counted off at once, where this was called from.
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
    """Connections, made a few at a time: a hundred at once wait for each other's handshakes."""
    made: list[Line] = []
    while len(made) < count:
        made += await asyncio.gather(*(Line.to(port) for _ in range(min(50, count - len(made)))))
    return made


def hang_up(made: Iterable[Line]) -> None:
    for line in made:
        line.hang_up()
