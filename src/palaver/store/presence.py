"""One connection a process keeps for itself: it hears what other processes say, and shows that this one lives.

Each process holds an advisory lock with its number. PostgreSQL drops the lock with the connection, however the
process ends, so a run whose process holds no lock is nobody's; it costs no heartbeat writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from palaver.core.problems import Internal
from palaver.store.driver import FAILURES, Connection, connect, failure, shares_sessions

LOCK_CLASS = 0x70616C61
"""First half of the advisory locks of processes; the second half is the process's number."""
CHANNEL = "palaver"
GRACE = 5.0
"""Seconds after (re)connecting during which nobody else is declared dead: they may be reconnecting as well."""
REVIVE_AFTER = 5.0
"""Seconds the database may be away before ``revive`` is called: whoever restarts it on purpose is quicker."""

SHARED = (
    "this address is that of a pooler that shares sessions between clients (PgBouncer in transaction mode), and palaver"
    " needs one session of its own: name PostgreSQL itself, or a pool in session mode, with PALAVER_DATABASE_DIRECT_URL"
)

_SESSION = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "2",
    "idle_session_timeout": "0",
}

log = structlog.get_logger("palaver.store")

_LOST = """
SELECT DISTINCT m.worker FROM message m
WHERE m.status = 'live' AND NOT EXISTS (
    SELECT FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.classid::bigint = $1 AND l.objid::bigint = m.worker
)"""


class Presence:
    """``worker`` is this process's number. ``heard`` counts notices: whoever reads something to keep it looks
    whether the count is still the same afterwards. While ``listening`` is false, what is kept may be stale."""

    def __init__(self, url: str, *, revive: Callable[[], Awaitable[None]] | None = None) -> None:
        self._url = url
        self._revive = revive
        self._heard_by: dict[str, Callable[[str], None]] = {}
        self._back: list[Callable[[], Awaitable[None]]] = []
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._suspects: set[int] = set()
        self.worker = 0
        self.heard = 0
        self.listening = False
        self.since = 0.0

    def on(self, topic: str, hear: Callable[[str], None]) -> None:
        """``hear`` gets what follows the topic in a notice ``topic rest``; with ``""`` also after a reconnection, when
        notices may have been missed."""
        self._heard_by[topic] = hear

    def on_return(self, act: Callable[[], Awaitable[None]]) -> None:
        """``act`` is called when the connection was lost and is there again."""
        self._back.append(act)

    async def open(self) -> None:
        await self._connect()
        self._task = asyncio.create_task(self._stay())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop()

    async def lost(self) -> list[int]:
        """Numbers of processes that left live runs behind: seen without a sign of life at two looks in a row."""
        connection = self._connection
        if connection is None or not self.listening:
            self._suspects = set()
            return []
        try:
            rows = await connection.fetch(_LOST, LOCK_CLASS, timeout=10)
        except FAILURES as error:  # nothing may be heard on it either, and nobody would tell
            log.warning("could not look for lost processes", error=str(error))
            self._lost_connection(connection)
            return []
        seen = {row["worker"] for row in rows}
        dead, self._suspects = seen & self._suspects, seen
        if self._reconnected and asyncio.get_running_loop().time() < self.since + GRACE:
            return []
        return sorted(dead)

    _reconnected = False

    async def _connect(self) -> None:
        connection = await connect(self._url, timeout=10, name="palaver presence", settings=_SESSION)
        try:
            if not self.worker:
                await self._want_own_session(connection)
                self.worker = await connection.fetchval("SELECT nextval('worker_id')::integer")
            # A server that has not noticed yet that the old connection is gone still holds the lock: wait for it.
            await connection.execute("SELECT pg_advisory_lock($1::integer, $2::integer)", LOCK_CLASS, self.worker)
            await connection.add_listener(CHANNEL, self._hear)
        except FAILURES as error:
            connection.terminate()
            raise failure(error) from error
        except Internal:
            connection.terminate()
            raise
        self._gone.clear()
        connection.add_termination_listener(self._lost_connection)
        self._connection = connection
        self.since = asyncio.get_running_loop().time()
        self.listening = True
        self._tell_all()

    async def _want_own_session(self, connection: Connection) -> None:
        """Before anything is left in a session that others will get. Raises ``Internal``."""
        if await shares_sessions(self._url, connection, timeout=5):
            raise Internal(reason="database", detail=SHARED)

    def _lost_connection(self, _connection: Any) -> None:
        self.listening = False
        self._gone.set()

    async def _stay(self) -> None:
        """Connect again whenever the connection is lost."""
        while True:
            await self._gone.wait()
            log.warning("the database is away")
            await self._drop()
            loop = asyncio.get_running_loop()
            away_since = loop.time()
            while not self.listening:
                self._reconnected = True
                try:
                    if self._revive is not None and loop.time() > away_since + REVIVE_AFTER:
                        await self._revive()
                    await self._connect()
                except Internal:
                    await asyncio.sleep(0.3)
            log.info("the database is back")
            for act in self._back:
                with suppress(Internal):
                    await act()

    async def _drop(self) -> None:
        self.listening = False
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.remove_termination_listener(self._lost_connection)
        try:
            await connection.close(timeout=2)
        except FAILURES:
            connection.terminate()

    def _hear(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self.heard += 1
        topic, _, rest = str(payload).partition(" ")
        if topic in self._heard_by:
            self._heard_by[topic](rest)

    def _tell_all(self) -> None:
        self.heard += 1
        for hear in self._heard_by.values():
            hear("")
