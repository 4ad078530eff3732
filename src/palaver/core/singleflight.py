"""Single flight: among concurrent calls with the same key, one executes at a time; the others wait in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Iterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from palaver.core.disconnect import cancel_on_disconnect
from palaver.core.problems import Busy

MAX_CALLS = 1000
"""Maximum number of concurrent calls with the same key; further ones are rejected."""

T = TypeVar("T")


class Flight(Generic[T]):
    """The concurrent calls with one key. ``result`` is that of the executed one; setting ``woken`` requests a poll."""

    def __init__(self) -> None:
        self.result: T | None = None
        self.woken = asyncio.Event()
        self.calls = 0
        self.lock = asyncio.Lock()


class SingleFlight(Generic[T]):
    """The flights of a process, by key."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight[T]] = {}

    def matching(self, prefix: Hashable) -> Iterator[Flight[T]]:
        """The flights whose key is a tuple starting with ``prefix``; an empty ``prefix`` matches all."""
        for key, flight in self._flights.items():
            if not prefix or (isinstance(key, tuple) and key[0] == prefix):
                yield flight

    @asynccontextmanager
    async def acquire(self, key: Hashable, timeout_s: float) -> AsyncGenerator[Flight[T]]:
        """Execute the block while no other call with that key does. Raises ``Busy`` after waiting ``timeout_s`` seconds
        or if too many calls are waiting, and ``CallerDisconnected`` if the caller disconnects while waiting."""
        flight = self._flights.setdefault(key, Flight())
        if flight.calls >= MAX_CALLS:
            raise Busy(reason="waiting", retry_after=1)
        flight.calls += 1
        try:
            try:
                async with asyncio.timeout(timeout_s), cancel_on_disconnect():
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
                del self._flights[key]
