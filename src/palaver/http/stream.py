"""Following a run on a connection: events to bytes, a heartbeat when idle, away when the reader is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from palaver.core.events import Event
from palaver.core.runs import RunReader
from palaver.core.types import RunEnded
from palaver.wire.contract import Encoder, Punctual

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_AT_ONCE = 16
"""Writes that may follow one another without a pause, of one stream or of several."""


class EventStream:
    """One open stream. A reader that goes away ends it, and changes nothing for the run."""

    __slots__ = ("_encoder", "_punctual", "_reader", "_send", "gone", "idle_since")

    def __init__(self, reader: RunReader, encoder: Encoder, send: Send) -> None:
        self._reader = reader
        self._encoder = encoder
        self._punctual = encoder if isinstance(encoder, Punctual) else None
        self._send = send
        self.gone = False
        self.idle_since = asyncio.get_running_loop().time()

    async def follow(self, receive: Receive, heartbeat_s: float) -> bool:
        """Write until the run's end or the reader's; whether the stream is to be ended in the normal way."""
        watch = asyncio.create_task(self._watch(receive))
        failed = False
        try:
            while not self.gone:
                events = self._reader.take()
                for event in events:
                    await self._write(self._encoder.encode(event, time.time()))
                failed = failed or _failed(events)
                if not self._over:
                    await self._write_unasked(heartbeat_s, busy=bool(events))
                if self._over:
                    return not (self._encoder.aborts_on_failure and failed)
                await self._wait()
            return False
        finally:
            self._reader.close()
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    @property
    def _over(self) -> bool:
        """Whether the run has ended and all of it is written: an encoder may hold back the end, too."""
        return self._reader.done and self._encoder.flush_at is None

    async def _write(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            if len(pieces) > _AT_ONCE:  # a whole long answer: others have their turn in between
                await asyncio.sleep(0)
        if pieces and self._punctual is not None:
            self._punctual.written(time.time())

    async def _write_unasked(self, heartbeat_s: float, *, busy: bool) -> None:
        """What goes out without an event: what the encoder held back, and the sign of life."""
        due = self._encoder.flush_at
        if due is not None and due <= (now := time.time()):
            await self._write(self._encoder.flush(now))
            busy = True
        now = asyncio.get_running_loop().time()
        if busy and not self._encoder.always_heartbeat:
            self.idle_since = now
        elif now - self.idle_since >= heartbeat_s:
            self.idle_since = now
            await self._write([self._encoder.heartbeat])

    async def _wait(self) -> None:
        due = self._encoder.flush_at
        if due is None:
            await self._reader.wait()
            return
        timer = asyncio.get_running_loop().call_later(max(0.0, due - time.time()), self._reader.wake)
        try:
            await self._reader.wait()
        finally:
            timer.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._reader.wake()

    def wake(self) -> None:
        self._reader.wake()

    def end(self) -> None:
        """Break the stream off: whom it is for may not have it any more."""
        self.gone = True
        self._reader.wake()


def _failed(events: list[Event]) -> bool:
    last = events[-1] if events else None
    return isinstance(last, RunEnded) and last.status.failed


class HeartbeatTimer:
    """One timer for all open streams: wakes those that have been idle for a heartbeat's time."""

    def __init__(self, heartbeat_s: float) -> None:
        self.heartbeat_s = heartbeat_s
        self.open: set[EventStream] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(self.heartbeat_s / 20, 0.02))
            due = loop.time() - self.heartbeat_s
            idle = [following for following in self.open if following.idle_since <= due]
            for at in range(0, len(idle), _AT_ONCE):
                for following in idle[at : at + _AT_ONCE]:
                    following.wake()
                await asyncio.sleep(0)
