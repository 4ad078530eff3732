"""How many requests of one application begin in one pass of the event loop.

Requests that come by the thousand at once would all begin in one pass, and whoever came behind them would wait for all
of their beginnings. So each application has so many in a pass, and those of others go by the rest.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque

REQUESTS_PER_PASS = 16


class RequestPacer:
    """Of one process."""

    def __init__(self, at_once: int = REQUESTS_PER_PASS) -> None:
        self._at_once = at_once
        self._begun: Counter[int] = Counter()
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}
        self._timed = False

    async def turn(self, app: int) -> None:
        """Wait until a request of the application may begin."""
        if app not in self._waiting and self._begun[app] < self._at_once:
            self._begun[app] += 1
            self._time()
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(app, deque()).append(mine)
        self._time()
        await mine

    def _time(self) -> None:
        if not self._timed:
            self._timed = True
            asyncio.get_running_loop().call_soon(self._next_pass)

    def _next_pass(self) -> None:
        self._timed = False
        self._begun.clear()
        for app, waiting in list(self._waiting.items()):
            while waiting and self._begun[app] < self._at_once:
                if not (first := waiting.popleft()).done():
                    first.set_result(None)
                    self._begun[app] += 1
            if not waiting:
                del self._waiting[app]
        if self._begun:
            self._time()
