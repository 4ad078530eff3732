"""How long a server's event loop is held at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager

from support.live_server import Served


class Loop:
    """What the longest turn of the server's loop cost, in seconds of its own thread's processor time: other load on
    the machine does not count."""

    worst = 0.0

    def turn(self, before: float) -> None:
        now = time.thread_time()
        self.worst = max(self.worst, now - before)
        self.handle = asyncio.get_running_loop().call_soon(self.turn, now)


@contextmanager
def watched(served: Served) -> Generator[Loop]:
    loop = Loop()

    async def begin() -> None:
        loop.turn(time.thread_time())

    async def end() -> None:
        loop.handle.cancel()

    served.do(begin())
    yield loop
    served.do(end())
