"""A connection pool that retries statements and shares its connections fairly among callers.

Every failure of the driver, the network or PostgreSQL is raised as ``Internal(reason="database")`` with the driver's
error as its cause.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from palaver.core.fair_semaphore import FairSemaphore, QueueTimeout, current_owner, fraction_of
from palaver.core.problems import Internal
from palaver.store.driver import (
    DRIVER_ERRORS,
    RETRYABLE_ERRORS,
    Connection,
    Pool,
    Row,
    create_pool,
    is_connection_lost,
    is_rolled_back,
    is_usable,
    to_problem,
)

__all__ = ["Database", "Row"]

STATEMENT_TIMEOUT_S = 8.0
"""Timeout of a statement, and of waiting for a connection: a caller gets a response within ten seconds."""

APPLICATION_SHARE = 3 / 4
USER_SHARE = 1 / 2
"""Maximum shares of the connections that the work of one application and of one end user may use at a time."""

MAX_ATTEMPTS = 3
"""Maximum attempts for a statement after a deadlock, a serialization failure or a lost connection."""

log = structlog.get_logger("palaver.store")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUsage:
    """The pool's connections in use and idle, out of ``limit``, and the statements waiting for one."""

    limit: int
    used: int = 0
    idle: int = 0
    waiting: int = 0


class Database:
    """A PostgreSQL database. ``statement_count`` and ``lost_connections`` are counters since the start.
    ``transaction_pooler``: ``url`` is that of a pooler which may run each transaction in another session.

    Connections are assigned fairly to the owners of the current tasks: see ``core.fair_semaphore``. Work without an
    owner is not limited.
    """

    def __init__(self, url: str, *, connections: int = 10, transaction_pooler: bool = False) -> None:
        self.url = url
        self.statement_count = 0
        self.lost_connections = 0
        self._active = 0
        self._transaction_pooler = transaction_pooler
        self._connections = connections
        self._semaphore = FairSemaphore(
            connections,
            fraction_of(connections, USER_SHARE),
            per_application=fraction_of(connections, APPLICATION_SHARE),
            max_waiting=sys.maxsize,
        )
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Connect. Raises ``Internal(reason="database")`` with the error of PostgreSQL or of the network."""
        self._pool = await create_pool(
            self.url,
            size=self._connections,
            timeout=STATEMENT_TIMEOUT_S,
            settings={"jit": "off"},
            transaction_pooler=self._transaction_pooler,
        )

    async def close(self) -> None:
        open_pool, self._pool = self._pool, None
        if open_pool is None:
            return
        try:
            await asyncio.wait_for(open_pool.close(), 5)
        except DRIVER_ERRORS:
            open_pool.terminate()

    @property
    def max_connections(self) -> int:
        """The size of the pool."""
        return self._connections

    @property
    def usage(self) -> PoolUsage:
        if self._pool is None:
            return PoolUsage(limit=self._connections)
        idle = self._pool.get_idle_size()
        used = self._pool.get_size() - idle
        return PoolUsage(limit=self._connections, used=used, idle=idle, waiting=max(0, self._active - used))

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        return await self._run(lambda connection: connection.fetch(sql, *args), read_only=_is_select(sql))

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        return await self._run(lambda connection: connection.fetchrow(sql, *args), read_only=_is_select(sql))

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return await self._run(lambda connection: connection.fetchval(sql, *args), read_only=_is_select(sql))

    async def call(self, sql: str, *args: Any) -> Row | None:
        """The row of a SELECT that calls a function which changes something. Unlike that of ``fetchrow``, it is not
        repeated if it may have been executed."""
        return await self._run(lambda connection: connection.fetchrow(sql, *args))

    async def execute(self, sql: str, *args: Any) -> str:
        """Returns the command tag, e.g. ``UPDATE 1``."""
        return await self._run(lambda connection: connection.execute(sql, *args))

    async def transaction(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> list[Row]:
        """Execute the statements, each with its parameters, in one transaction. Returns the rows of the last one. A
        retry iterates over ``statements`` again."""
        return (await self.transaction_rows(statements))[-1]

    async def transaction_rows(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> list[list[Row]]:
        """Like ``transaction``. Returns the rows of every statement."""

        async def work(connection: Connection) -> list[list[Row]]:
            rows: list[list[Row]] = []
            async with connection.transaction():
                for number, (sql, args) in enumerate(statements):
                    self.statement_count += number > 0
                    rows.append(await connection.fetch(sql, *args))
            return rows

        return await self._run(work)

    async def _run(self, work: Callable[[Connection], Awaitable[T]], *, read_only: bool = False) -> T:
        """Run ``work`` on a connection once the task's owner may use one. ``read_only``: it may be repeated even if it
        may have been executed."""
        if self._pool is None:
            raise Internal(reason="database", detail="the database is closed")
        owner = current_owner()
        self._active += 1
        try:
            if owner is None:
                return await self._run_on(self._pool, work, read_only=read_only)
            async with self._semaphore.slot(owner, STATEMENT_TIMEOUT_S):
                return await self._run_on(self._pool, work, read_only=read_only)
        except QueueTimeout as error:
            log.warning("statement not begun", app=owner and owner[0], waiting=self._semaphore.waiting)
            raise Internal(reason="database", detail="its caller's other statements took too long") from error
        finally:
            self._active -= 1

    async def _run_on(self, pool: Pool, work: Callable[[Connection], Awaitable[T]], *, read_only: bool) -> T:
        attempt = 1
        while True:
            acquired = False
            self.statement_count += 1
            try:
                async with pool.acquire(timeout=STATEMENT_TIMEOUT_S) as connection:
                    acquired = True
                    if await is_usable(connection) or attempt > self._connections:
                        return await self._call(work, connection)
                    self.lost_connections += 1
            except DRIVER_ERRORS as error:
                retryable = isinstance(error, RETRYABLE_ERRORS) or (
                    is_connection_lost(error) and (read_only or not acquired or is_rolled_back(error))
                )
                # All connections of the pool may be lost at once, each costing an attempt; but if no connection can be
                # made, more attempts do not help.
                unreachable = isinstance(error, OSError) and not acquired
                max_attempts = MAX_ATTEMPTS + (
                    self._connections if is_connection_lost(error) and not unreachable else 0
                )
                if not retryable or attempt >= max_attempts:
                    problem = to_problem(error)
                    log.warning("statement failed", error=problem.detail)
                    raise problem from error
            attempt += 1

    async def _call(self, work: Callable[[Connection], Awaitable[T]], connection: Connection) -> T:
        try:
            return await work(connection)
        except DRIVER_ERRORS as error:
            if is_connection_lost(error):
                self.lost_connections += 1
                with suppress(*DRIVER_ERRORS):  # already released to the pool if it was closed
                    connection.terminate()
            raise


def _is_select(sql: str) -> bool:
    return sql.lstrip().startswith("SELECT")
