"""Tracks open connections, and evicts some when there are too many.

A connection is *unverified* until a request on it presents a valid credential, and again once the next request begins.
Above the limit, the oldest unverified connection is evicted: clients that hold connections open without a credential
lose them, while a client that sends its request right away is served. If clients have different IP addresses, the
oldest is taken from the address with the most; behind a proxy, all share one. A new connection is spared for a moment:
in a burst, its request may have arrived already and wait to be read.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from palaver.http.request_queue import RequestQueue

RESERVED_FDS = 64
"""File descriptors reserved for everything but client connections: PostgreSQL, models, logs."""
EVICTION_GRACE_S = 1.0
"""Seconds for which a new connection is not evicted."""
DEFERRED_BUDGET_S = 0.002
"""Maximum time for deferred callbacks in one iteration of the event loop, in seconds."""
BURST_FACTOR = 8
"""Maximum number of unverified connections, new ones included, as a multiple of the limit."""

log = structlog.get_logger("palaver.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Limits on connections: sizes in bytes, rates in bytes per second."""

    max_unverified: int = 256
    """Maximum number of unverified connections."""
    head_timeout_s: float = 10.0
    """Timeout for receiving a request head, in seconds."""
    write_timeout_s: float = 60.0
    """Seconds in which a client must read the bytes pending for it, or at least ``min_rate`` bytes per second."""
    min_rate: int = 500
    max_pipelined: int = 33_554_432
    """Maximum size of pipelined requests buffered for all connections."""


class TrackedConnection(Protocol):
    """A connection, as seen by ``Connections``."""

    @property
    def peer(self) -> str:
        """The client's IP address."""
        ...

    @property
    def awaits_peer(self) -> bool:
        """Whether the server waits for the client to send or to read."""
        ...

    def evict(self) -> None: ...


class Connections:
    """The open connections of one process, and the limits they share. ``max_fds``: the process's file descriptors."""

    def __init__(self, limits: ConnectionLimits, *, max_fds: int | None = None) -> None:
        self.limits = limits
        self.requests = RequestQueue()
        self.pipelined = 0
        """Pipelined bytes that are buffered."""
        self.evicted = 0
        """Number of connections evicted so far."""
        self._max_open = max((_max_fds() if max_fds is None else max_fds) - RESERVED_FDS, 16)
        self._max_unverified = min(limits.max_unverified, self._max_open)
        self._verified: dict[TrackedConnection, None] = {}
        self._unverified: dict[str, dict[TrackedConnection, float]] = {}
        """By IP address: when each connection became unverified, oldest first, in the event loop's time."""
        self._unverified_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._deferred: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._verified) + self._unverified_count

    @property
    def unverified(self) -> int:
        """Number of unverified connections."""
        return self._unverified_count

    def add(self, connection: TrackedConnection) -> None:
        """Add a new connection; evict another one if there are too many."""
        self._add_unverified(connection)
        if self._unverified_count > min(self._max_unverified * BURST_FACTOR, self._max_open):
            self._evict(self._oldest_unverified(sparing=connection))
        elif len(self) > self._max_open:
            others = self._unverified_count > 1
            self._evict(self._oldest_unverified(sparing=connection) if others else self._oldest_idle() or connection)
        elif self._timer is None:
            self._evict_excess()

    def _evict_excess(self) -> None:
        """Evict the oldest unverified connections above the limit, once their grace period is over."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._unverified_count > self._max_unverified:
            oldest = self._oldest_unverified()
            if (until := self._unverified[oldest.peer][oldest] + EVICTION_GRACE_S) > loop.time():
                self._timer = loop.call_at(until, self._evict_excess)
                return
            self._evict(oldest)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` in a later iteration of the event loop; each spends ``DEFERRED_BUDGET_S`` on such calls."""
        self._deferred.append(callback)
        if len(self._deferred) == 1:
            asyncio.get_running_loop().call_soon(self._run_deferred)

    def _run_deferred(self) -> None:
        deadline = time.perf_counter() + DEFERRED_BUDGET_S
        for _ in range(len(self._deferred)):
            callback = self._deferred[0]
            callback()  # still in the queue: if it defers in turn, no second ``_run_deferred`` is scheduled
            self._deferred.popleft()
            if time.perf_counter() >= deadline:
                break
        if self._deferred:
            asyncio.get_running_loop().call_soon(self._run_deferred)

    def remove(self, connection: TrackedConnection) -> None:
        if connection in self._verified:
            del self._verified[connection]
        else:
            self._remove_unverified(connection)

    def mark_verified(self, connection: TrackedConnection) -> None:
        """A request on the connection has presented a valid credential."""
        if self._remove_unverified(connection):
            self._verified[connection] = None

    def mark_unverified(self, connection: TrackedConnection) -> None:
        """Another request begins on the connection."""
        if connection in self._verified:
            del self._verified[connection]
            self._add_unverified(connection)

    def _add_unverified(self, connection: TrackedConnection) -> None:
        self._unverified.setdefault(connection.peer, {})[connection] = asyncio.get_running_loop().time()
        self._unverified_count += 1

    def _remove_unverified(self, connection: TrackedConnection) -> bool:
        """Returns whether the connection was unverified."""
        same_peer = self._unverified.get(connection.peer, {})
        if connection not in same_peer:
            return False
        del same_peer[connection]
        if not same_peer:
            del self._unverified[connection.peer]
        self._unverified_count -= 1
        return True

    def _oldest_unverified(self, *, sparing: TrackedConnection | None = None) -> TrackedConnection:
        """The oldest of the IP address with the most; preferably one that waits for its client."""
        largest = max(self._unverified.values(), key=len)
        waiting = (connection for connection in largest if connection is not sparing and connection.awaits_peer)
        return next(waiting, next(iter(largest)))

    def _oldest_idle(self) -> TrackedConnection | None:
        return next((connection for connection in self._verified if connection.awaits_peer), None)

    def _evict(self, connection: TrackedConnection) -> None:
        self.evicted += 1
        self.remove(connection)
        log.warning("connection evicted", peer=connection.peer, open=len(self))
        connection.evict()


def _max_fds() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_fd_limit() -> None:
    """Raise the limit on file descriptors as far as the system allows, at most to 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def set_reset_on_close(transport: asyncio.Transport, *, on: bool) -> None:
    """Set whether closing the connection resets it (RST) instead of ending it normally (FIN)."""
    sock = transport.get_extra_info("socket")
    if sock is None or transport.is_closing():
        return
    with suppress(OSError), socket.fromfd(sock.fileno(), sock.family, sock.type) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(on), 0))
