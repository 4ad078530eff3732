"""Who is connected, and who has to go when there are too many.

A connection is *unverified* until a request on it has proved its credential, and again while the next one is coming.
Above the limit the oldest unverified one is closed, so that whoever holds connections open without a credential loses
them, and a new caller, who needs his for the time of one request, gets in. Where callers have addresses of their own
the oldest is taken from the address that has most; behind a proxy all have one. However many come at once, a connection
has a moment to prove itself: its request may be there already, unread behind those of the others.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

RESERVED_FILES = 64
"""File descriptors that connections leave to everything else: PostgreSQL, models, logs."""

GRACE_S = 1.0
"""Seconds in which a new connection is not closed for another one."""
LATER_S = 0.002
"""Seconds of one pass of the event loop in which what was put off is done."""
BURST = 8
"""How many times the limit there may be of connections that are so new."""

log = structlog.get_logger("palaver.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What a connection may make the server hold and wait for."""

    max_unverified: int = 256
    """Connections without a verified credential."""
    head_timeout_s: float = 10.0
    """Seconds for a request's head; after that the connection is closed."""
    write_timeout_s: float = 60.0
    """Seconds in which a reader must take what is ready for it, or at least ``min_rate`` bytes for each second."""
    min_rate: int = 500
    max_pipelined: int = 33_554_432
    """Bytes of further requests that all connections together keep while an answer is being written."""


class TrackedConnection(Protocol):
    """What is counted here."""

    @property
    def peer(self) -> str:
        """The address of the other side."""
        ...

    @property
    def awaits_peer(self) -> bool:
        """Whether it is the other side's turn to send or to read."""
        ...

    def evict(self) -> None: ...


class Connections:
    """Those of one process."""

    def __init__(self, limits: ConnectionLimits, *, files: int | None = None) -> None:
        self.limits = limits
        self.pipelined = 0
        self.evicted = 0
        self._max_open = max((_max_files() if files is None else files) - RESERVED_FILES, 16)
        self._max_unverified = min(limits.max_unverified, self._max_open)
        self._verified: dict[TrackedConnection, None] = {}
        self._unverified: dict[str, dict[TrackedConnection, float]] = {}
        """By address, with the moment at which each one's time to prove itself began."""
        self._unverified_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._later: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._verified) + self._unverified_count

    @property
    def unverified(self) -> int:
        return self._unverified_count

    def add(self, connection: TrackedConnection) -> None:
        """Count a new connection; others may have to go for it."""
        self._await(connection)
        if self._unverified_count > min(self._max_unverified * BURST, self._max_open):
            self._evict(self._oldest_unverified(sparing=connection))
        elif len(self) > self._max_open:
            others = self._unverified_count > 1
            self._evict(self._oldest_unverified(sparing=connection) if others else self._oldest_idle() or connection)
        elif self._timer is None:
            self._close_excess()

    def _close_excess(self) -> None:
        """Close the oldest ones above the limit, now or when they have had their time."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._unverified_count > self._max_unverified:
            oldest = self._oldest_unverified()
            if (until := self._unverified[oldest.peer][oldest] + GRACE_S) > loop.time():
                self._timer = loop.call_at(until, self._close_excess)
                return
            self._evict(oldest)

    def later(self, act: Callable[[], None]) -> None:
        """Do ``act`` in a later pass of the event loop, for which there is so much time and no more in each."""
        self._later.append(act)
        if len(self._later) == 1:
            asyncio.get_running_loop().call_soon(self._do_later)

    def _do_later(self) -> None:
        until = time.perf_counter() + LATER_S
        for _ in range(len(self._later)):
            act = self._later[0]
            act()  # what it puts off in turn comes behind the others, and asks for no further pass
            self._later.popleft()
            if time.perf_counter() >= until:
                break
        if self._later:
            asyncio.get_running_loop().call_soon(self._do_later)

    def remove(self, connection: TrackedConnection) -> None:
        if connection in self._verified:
            del self._verified[connection]
        else:
            self._forget(connection)

    def verify(self, connection: TrackedConnection) -> None:
        """A request on it has proved its credential."""
        if self._forget(connection):
            self._verified[connection] = None

    def unverify(self, connection: TrackedConnection) -> None:
        """A further request begins on it."""
        if connection in self._verified:
            del self._verified[connection]
            self._await(connection)

    def _await(self, connection: TrackedConnection) -> None:
        self._unverified.setdefault(connection.peer, {})[connection] = asyncio.get_running_loop().time()
        self._unverified_count += 1

    def _forget(self, connection: TrackedConnection) -> bool:
        """Whether it was among the unverified."""
        of_peer = self._unverified.get(connection.peer, {})
        if connection not in of_peer:
            return False
        del of_peer[connection]
        if not of_peer:
            del self._unverified[connection.peer]
        self._unverified_count -= 1
        return True

    def _oldest_unverified(self, *, sparing: TrackedConnection | None = None) -> TrackedConnection:
        """Of the address that has most; one whose turn it is before one that the server works for."""
        most = max(self._unverified.values(), key=len)
        candidates: Iterator[TrackedConnection] = (one for one in most if one is not sparing and one.awaits_peer)
        return next(candidates, next(iter(most)))

    def _oldest_idle(self) -> TrackedConnection | None:
        return next((one for one in self._verified if one.awaits_peer), None)

    def _evict(self, connection: TrackedConnection) -> None:
        self.evicted += 1
        self.remove(connection)
        log.warning("connection closed for a new one", peer=connection.peer, open=len(self))
        connection.evict()


def _max_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_file_limit() -> None:
    """Take as many file descriptors as the system allows: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def end_by_reset(transport: asyncio.Transport, *, on: bool) -> None:
    """Whether the connection, when it is closed, is reset instead of ended in order."""
    taken = transport.get_extra_info("socket")
    if taken is None or transport.is_closing():
        return
    with suppress(OSError), socket.fromfd(taken.fileno(), taken.family, taken.type) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(on), 0))
