"""Equal calls, one of which works at a time: the others wait in memory, and cost nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Hashable, Iterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from palaver.core.disconnect import unless_disconnected
from palaver.core.problems import Busy

MAX_CALLS = 1000
"""How many equal calls wait at a time; more are refused."""

T = TypeVar("T")


class Flight(Generic[T]):
    """Calls of one name. ``result`` is what the one that worked got, ``woken`` is set when it is worth another look."""

    def __init__(self) -> None:
        self.result: T | None = None
        self.woken = asyncio.Event()
        self.calls = 0
        self.lock = asyncio.Lock()


class SingleFlight(Generic[T]):
    """The flights of a process."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight[T]] = {}

    def of(self, name: Hashable) -> Iterator[Flight[T]]:
        """The flights whose name begins with ``name``, or all for an empty one."""
        for key, flight in self._flights.items():
            if not name or (isinstance(key, tuple) and key[0] == name):
                yield flight

    @asynccontextmanager
    async def turn(self, name: Hashable, within: float) -> AsyncGenerator[Flight[T]]:
        """This call's turn: no other one of that name works. Raises ``Busy`` when it does not come ``within`` so many
        seconds, or when too many wait for theirs, and ``CallerDisconnected`` when its caller leaves before it comes."""
        flight = self._flights.setdefault(name, Flight())
        if flight.calls >= MAX_CALLS:
            raise Busy(reason="waiting", retry_after=1)
        flight.calls += 1
        try:
            try:
                async with asyncio.timeout(within), unless_disconnected():
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
