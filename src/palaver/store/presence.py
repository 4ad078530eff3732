"""The permanent connection of a process: it receives notifications, and shows other processes that this one is alive.

Each process holds an advisory lock on its worker number. PostgreSQL releases the lock with the connection, however the
process ends, so a run whose worker holds no lock is orphaned. No heartbeats are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any

import structlog

from palaver.core.problems import Internal, Problem
from palaver.store.database import Database
from palaver.store.driver import DRIVER_ERRORS, Connection, connect, is_transaction_pooler, to_problem

WORKER_LOCK_CLASS = 0x70616C61
"""First half of the advisory lock ids of processes; the second half is the worker number."""
CHANNEL = "palaver"
RECONNECT_GRACE_S = 5.0
"""Seconds after a reconnection during which no worker is declared dead: others may still be reconnecting."""
RESTART_AFTER_S = 5.0
"""Seconds without a connection before ``restart`` is called; an intentional restart takes less."""

POOLER_ERROR = (
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

LIVE_WORKERS = f"""
SELECT objid::bigint AS worker FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = {WORKER_LOCK_CLASS}
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
"""The numbers of the processes that use this database."""

_FIND_LOST_WORKERS = f"""
WITH working AS MATERIALIZED (SELECT DISTINCT worker FROM message WHERE status = 'live' AND worker IS NOT NULL),
alive AS MATERIALIZED ({LIVE_WORKERS})
SELECT worker FROM working WHERE worker NOT IN (SELECT worker FROM alive)"""

_NOTIFY = f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest($1::text[]) AS payload"


def notification(*payloads: str) -> tuple[str, tuple[list[str]]]:
    """A statement, with its parameters, that notifies every process: ``topic payload`` each. It reads no table, so that
    it is executed by the server to which the processes listen, even if tables are distributed."""
    return _NOTIFY, (list(payloads),)


async def try_notify(db: Database, payloads: Collection[str]) -> None:
    """Notify every process of what has been committed and what each of them finds out by itself later, should this
    fail."""
    if payloads:
        with suppress(Problem):  # already logged by the database
            await db.execute(*notification(*payloads))


class Presence:
    """Receives notifications (LISTEN) and holds this process's lock on its number, ``worker``.

    A cache must not store a value if ``notification_count`` changed while it was read, and must not be used while
    ``listening`` is false. ``restart`` is called repeatedly while the database is away.
    """

    def __init__(self, url: str, *, restart: Callable[[], Awaitable[None]] | None = None) -> None:
        self._url = url
        self._restart = restart
        self._callbacks: dict[str, Callable[[str], None]] = {}
        self._uncounted: set[str] = set()
        self._reconnect_callbacks: list[Callable[[], Awaitable[None]]] = []
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._disconnected = asyncio.Event()
        self._suspects: set[int] = set()
        self.worker = 0
        self.notification_count = 0
        self.listening = False
        self.connected_at = 0.0

    def subscribe(self, topic: str, callback: Callable[[str], None], *, invalidates: bool = True) -> None:
        """Call ``callback`` with the payload of every notification ``topic payload``, and with ``""`` after a
        reconnection, because notifications may have been missed. ``invalidates``: the notification may concern rows
        that a cache is reading."""
        self._callbacks[topic] = callback
        if not invalidates:
            self._uncounted.add(topic)

    def on_reconnect(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call ``callback`` after each reconnection."""
        self._reconnect_callbacks.append(callback)

    async def open(self) -> None:
        await self._connect()
        self._task = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()

    async def find_lost_workers(self) -> list[int]:
        """The workers that have live runs but held no lock in this call and in the previous one."""
        connection = self._connection
        if connection is None or not self.listening:
            self._suspects = set()
            return []
        try:
            rows = await connection.fetch(_FIND_LOST_WORKERS, timeout=10)
        except DRIVER_ERRORS as error:  # the listener may be broken too, without notice
            log.warning("could not look for lost processes", error=str(error))
            self._on_connection_lost(connection)
            return []
        suspects = {row["worker"] for row in rows}
        dead, self._suspects = suspects & self._suspects, suspects
        if self._reconnected and asyncio.get_running_loop().time() < self.connected_at + RECONNECT_GRACE_S:
            return []
        return sorted(dead)

    _reconnected = False

    async def _connect(self) -> None:
        connection = await connect(self._url, timeout=10, name="palaver presence", settings=_SESSION)
        try:
            if not self.worker:
                await self._require_own_session(connection)
                self.worker = await connection.fetchval("SELECT nextval('worker_id')::integer")
            # PostgreSQL may not have noticed yet that the old connection is lost, and holds its lock until then.
            await connection.execute(
                "SELECT pg_advisory_lock($1::integer, $2::integer)", WORKER_LOCK_CLASS, self.worker
            )
            await connection.add_listener(CHANNEL, self._on_notification)
        except DRIVER_ERRORS as error:
            connection.terminate()
            raise to_problem(error) from error
        except Internal:
            connection.terminate()
            raise
        self._disconnected.clear()
        connection.add_termination_listener(self._on_connection_lost)
        self._connection = connection
        self.connected_at = asyncio.get_running_loop().time()
        self.listening = True
        self._invoke_all()

    async def _require_own_session(self, connection: Connection) -> None:
        """Raises ``Internal`` if other clients may get this session: it must not keep a lock then."""
        if await is_transaction_pooler(self._url, connection, timeout=5):
            raise Internal(reason="database", detail=POOLER_ERROR)

    def _on_connection_lost(self, _connection: Any) -> None:
        self.listening = False
        self._disconnected.set()

    async def _keep_connected(self) -> None:
        """Reconnect whenever the connection is lost."""
        while True:
            await self._disconnected.wait()
            log.warning("the database is away")
            await self._disconnect()
            loop = asyncio.get_running_loop()
            lost_at = loop.time()
            while not self.listening:
                self._reconnected = True
                try:
                    if self._restart is not None and loop.time() > lost_at + RESTART_AFTER_S:
                        await self._restart()
                    await self._connect()
                except Internal:
                    await asyncio.sleep(0.3)
            log.info("the database is back")
            for callback in self._reconnect_callbacks:
                with suppress(Internal):
                    await callback()

    async def _disconnect(self) -> None:
        self.listening = False
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.remove_termination_listener(self._on_connection_lost)
        try:
            await connection.close(timeout=2)
        except DRIVER_ERRORS:
            connection.terminate()

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        topic, _, rest = str(payload).partition(" ")
        self.notification_count += topic not in self._uncounted
        if topic in self._callbacks:
            self._callbacks[topic](rest)

    def _invoke_all(self) -> None:
        self.notification_count += 1
        for callback in self._callbacks.values():
            callback("")
