"""Following a run on a connection: events to bytes, a heartbeat when idle, away when the reader is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from palaver.core.events import Event
from palaver.core.runs import Reader
from palaver.core.types import Ended, Status
from palaver.wire.contract import Encoder

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Following:
    """One open stream. A reader that goes away ends it, and changes nothing for the run."""

    __slots__ = ("_encoder", "_reader", "_send", "gone", "idle_since")

    def __init__(self, reader: Reader, encoder: Encoder, send: Send) -> None:
        self._reader = reader
        self._encoder = encoder
        self._send = send
        self.gone = False
        self.idle_since = asyncio.get_running_loop().time()

    async def follow(self, receive: Receive, heartbeat_s: float) -> bool:
        """Write until the run's end or the reader's; whether the stream is to be ended in the normal way."""
        watch = asyncio.create_task(self._watch(receive))
        loop = asyncio.get_running_loop()
        try:
            while not self.gone:
                events = self._reader.take()
                for event in events:
                    for piece in self._encoder.encode(event):
                        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                if self._reader.done:
                    return not (self._encoder.breaks_off and _failed(events))
                if events:
                    self.idle_since = loop.time()
                elif loop.time() - self.idle_since >= heartbeat_s:
                    self.idle_since = loop.time()
                    await self._send({"type": "http.response.body", "body": self._encoder.heartbeat, "more_body": True})
                await self._reader.wait()
            return False
        finally:
            self._reader.close()
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._reader.wake()

    def wake(self) -> None:
        self._reader.wake()


def _failed(events: list[Event]) -> bool:
    last = events[-1] if events else None
    return isinstance(last, Ended) and last.status in {Status.FAILED, Status.INTERRUPTED}


class Pulse:
    """One timer for all open streams: wakes those that have been idle for a heartbeat's time."""

    def __init__(self, heartbeat_s: float) -> None:
        self.heartbeat_s = heartbeat_s
        self.open: set[Following] = set()
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
            for following in self.open:
                if following.idle_since <= due:
                    following.wake()
