"""Single flight: of several equal calls one executes at a time, and the others wait in memory at no other cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Iterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from palaver.core.disconnect import cancel_on_disconnect
from palaver.core.problems import Busy

MAX_CALLS = 1000
"""Maximum number of concurrent equal calls; further ones are refused."""

T = TypeVar("T")


class Flight(Generic[T]):
    """The equal calls of one name. ``result`` is the result of the executed one; ``woken`` is set to request a poll."""

    def __init__(self) -> None:
        self.result: T | None = None
        self.woken = asyncio.Event()
        self.calls = 0
        self.lock = asyncio.Lock()


class SingleFlight(Generic[T]):
    """The flights of this process."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight[T]] = {}

    def matching(self, name: Hashable) -> Iterator[Flight[T]]:
        """The flights whose name is a tuple starting with ``name``; an empty ``name`` matches all."""
        for key, flight in self._flights.items():
            if not name or (isinstance(key, tuple) and key[0] == name):
                yield flight

    @asynccontextmanager
    async def acquire(self, name: Hashable, within: float) -> AsyncGenerator[Flight[T]]:
        """Execute the block while no other call of that name does. Raises ``Busy`` after waiting ``within`` seconds or
        if too many calls are waiting, and ``CallerDisconnected`` if the caller disconnects while waiting."""
        flight = self._flights.setdefault(name, Flight())
        if flight.calls >= MAX_CALLS:
            raise Busy(reason="waiting", retry_after=1)
        flight.calls += 1
        try:
            try:
                async with asyncio.timeout(within), cancel_on_disconnect():
                    await flight.lock.acquire()
            except TimeoutError as error:
                raise Busy(reason="waiting", retry_after=1) from error
            try:
                yield flight
            finally:
                flight.lock.release()
        finally:
            flight.calls -= 1
            if not flight.calls:
                del self._flights[name]
