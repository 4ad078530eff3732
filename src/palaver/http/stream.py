"""Streams a run's events to a connection: encodes them, sends heartbeats when idle, stops when the client leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from palaver.core.events import Event
from palaver.core.feed import RunReader
from palaver.core.types import RunEnded
from palaver.wire.contract import Encoder, PacedEncoder

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_MAX_CONSECUTIVE_WRITES = 16
"""Maximum consecutive writes, of one stream or several, before yielding to the event loop."""


class EventStream:
    """The response stream of one client. It ends if the client disconnects; the run is not affected."""

    __slots__ = ("_encoder", "_paced", "_reader", "_send", "idle_since", "stopped")

    def __init__(self, reader: RunReader, encoder: Encoder, send: Send) -> None:
        self._reader = reader
        self._encoder = encoder
        self._paced = encoder if isinstance(encoder, PacedEncoder) else None
        self._send = send
        self.stopped = False
        self.idle_since = asyncio.get_running_loop().time()

    async def follow(self, receive: Receive, heartbeat_s: float) -> bool:
        """Write until the run ends or the client disconnects. Returns whether to end the stream normally."""
        disconnect_watch = asyncio.create_task(self._watch_disconnect(receive))
        failed = False
        try:
            while not self.stopped:
                events = self._reader.take()
                for event in events:
                    await self._write(self._encoder.encode(event, time.time()))
                failed = failed or _failed(events)
                if not self._finished:
                    await self._write_due(heartbeat_s, busy=bool(events))
                if self._finished:
                    return not (self._encoder.aborts_on_failure and failed)
                await self._wait()
            return False
        finally:
            self._reader.close()
            disconnect_watch.cancel()
            with suppress(asyncio.CancelledError):
                await disconnect_watch

    @property
    def _finished(self) -> bool:
        """Whether the run has ended and all output is written: the encoder may hold back the end."""
        return self._reader.done and self._encoder.flush_at is None

    async def _write(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            if len(chunks) > _MAX_CONSECUTIVE_WRITES:  # a long response: yield to other tasks in between
                await asyncio.sleep(0)
        if chunks and self._paced is not None:
            self._paced.on_written(time.time())

    async def _write_due(self, heartbeat_s: float, *, busy: bool) -> None:
        """Write output that no event triggers: held-back bytes that are due, and heartbeats."""
        flush_at = self._encoder.flush_at
        if flush_at is not None and flush_at <= (now := time.time()):
            await self._write(self._encoder.flush(now))
            busy = True
        now = asyncio.get_running_loop().time()
        if busy and not self._encoder.always_heartbeat:
            self.idle_since = now
        elif now - self.idle_since >= heartbeat_s:
            self.idle_since = now
            await self._write([self._encoder.heartbeat])

    async def _wait(self) -> None:
        flush_at = self._encoder.flush_at
        if flush_at is None:
            await self._reader.wait()
            return
        timer = asyncio.get_running_loop().call_later(max(0.0, flush_at - time.time()), self._reader.wake)
        try:
            await self._reader.wait()
        finally:
            timer.cancel()

    async def _watch_disconnect(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stopped = True
        self._reader.wake()

    def wake(self) -> None:
        self._reader.wake()

    def abort(self) -> None:
        """Abort the stream: the client's credential is no longer valid."""
        self.stopped = True
        self._reader.wake()


def _failed(events: list[Event]) -> bool:
    last = events[-1] if events else None
    return isinstance(last, RunEnded) and last.status.failed


class HeartbeatTimer:
    """One timer for all open streams: wakes those that have been idle for ``heartbeat_s`` seconds."""

    def __init__(self, heartbeat_s: float) -> None:
        self.heartbeat_s = heartbeat_s
        self.streams: set[EventStream] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._wake_idle())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _wake_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(self.heartbeat_s / 20, 0.02))
            due = loop.time() - self.heartbeat_s
            idle = [stream for stream in self.streams if stream.idle_since <= due]
            for start in range(0, len(idle), _MAX_CONSECUTIVE_WRITES):
                for stream in idle[start : start + _MAX_CONSECUTIVE_WRITES]:
                    stream.wake()
                await asyncio.sleep(0)
