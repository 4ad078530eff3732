"""The pool and the ways to run a statement.

Whatever goes wrong between here and PostgreSQL becomes ``Internal(reason="database")``, the driver's error chained.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from palaver.core.fair_queue import FairQueue, QueueTimeout, current_owner, share
from palaver.core.problems import Internal
from palaver.store.driver import FAILURES, GIVEN_WAY, Connection, Pool, Row, failure, lost, pool, undone, usable

__all__ = ["Database", "Row"]

TIMEOUT = 8.0
"""Seconds for one statement, waiting for a connection included: a caller is answered within ten."""

OF_APPLICATION = 3 / 4
OF_USER = 1 / 2
"""Of the connections, what one application's work and one end user's may hold at a time."""

ATTEMPTS = 3
"""How often a statement is tried that had to give way to another one, or whose connection was lost before it began."""

log = structlog.get_logger("palaver.store")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUsage:
    """Connections that work and that do not, of ``limit``; statements that wait for one."""

    limit: int
    used: int = 0
    idle: int = 0
    waiting: int = 0


class Database:
    """A PostgreSQL database. ``statements`` counts what was asked of it, ``lost`` the connections that broke.
    ``shared``: the address is that of a pooler which may lead each transaction to another session.

    Whoever has slow statements leaves connections to others, who do not wait for him: see ``core.turns``. What is done
    for nobody in particular takes part in no turns.
    """

    def __init__(self, url: str, *, connections: int = 10, shared: bool = False) -> None:
        self.url = url
        self.statements = 0
        self.lost = 0
        self._running = 0
        self._shared = shared
        self._connections = connections
        self._turns = FairQueue(
            connections, share(connections, OF_USER), of_app=share(connections, OF_APPLICATION), max_waiting=sys.maxsize
        )
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Connect. Raises ``Internal(reason="database")`` with what PostgreSQL or the network said."""
        self._pool = await pool(
            self.url, size=self._connections, timeout=TIMEOUT, settings={"jit": "off"}, shared=self._shared
        )

    async def close(self) -> None:
        open_pool, self._pool = self._pool, None
        if open_pool is None:
            return
        try:
            await asyncio.wait_for(open_pool.close(), 5)
        except FAILURES:
            open_pool.terminate()

    @property
    def connections(self) -> int:
        """How many there are at most."""
        return self._connections

    @property
    def usage(self) -> PoolUsage:
        if self._pool is None:
            return PoolUsage(limit=self._connections)
        idle = self._pool.get_idle_size()
        used = self._pool.get_size() - idle
        return PoolUsage(limit=self._connections, used=used, idle=idle, waiting=max(0, self._running - used))

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        return await self._run(lambda connection: connection.fetch(sql, *args), reads=_reads(sql))

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        return await self._run(lambda connection: connection.fetchrow(sql, *args), reads=_reads(sql))

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return await self._run(lambda connection: connection.fetchval(sql, *args), reads=_reads(sql))

    async def execute(self, sql: str, *args: Any) -> str:
        """The command tag, e.g. ``UPDATE 1``."""
        return await self._run(lambda connection: connection.execute(sql, *args))

    async def together(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> list[Row]:
        """All of ``statements`` in one transaction, or none; the rows of the last one. It may be tried again, and goes
        over them anew then."""

        async def work(connection: Connection) -> list[Row]:
            rows: list[Row] = []
            async with connection.transaction():
                for number, (sql, args) in enumerate(statements):
                    self.statements += number > 0
                    rows = await connection.fetch(sql, *args)
            return rows

        return await self._run(work)

    async def _run(self, work: Callable[[Connection], Awaitable[T]], *, reads: bool = False) -> T:
        """``work`` on a connection; again on another one where it was not begun, was undone, or only reads."""
        if self._pool is None:
            raise Internal(reason="database", detail="the database is closed")
        owner = current_owner()
        self._running += 1
        try:
            if owner is None:
                return await self._run_on(self._pool, work, reads=reads)
            async with self._turns.slot(owner, TIMEOUT):
                return await self._run_on(self._pool, work, reads=reads)
        except QueueTimeout as none:
            log.warning("statement not begun", app=owner and owner[0], waiting=self._turns.waiting)
            raise Internal(reason="database", detail="its caller's other statements took too long") from none
        finally:
            self._running -= 1

    async def _run_on(self, pool: Pool, work: Callable[[Connection], Awaitable[T]], *, reads: bool) -> T:
        attempt = 1
        while True:
            acquired = False
            self.statements += 1
            try:
                async with pool.acquire(timeout=TIMEOUT) as connection:
                    acquired = True
                    if await usable(connection) or attempt > self._connections:
                        return await self._do(work, connection)
                    self.lost += 1
            except FAILURES as error:
                again = isinstance(error, GIVEN_WAY) or (lost(error) and (reads or not acquired or undone(error)))
                # All connections of the pool may be lost at once, and new ones while they are set up. To one that
                # cannot be made it makes no difference.
                lasting = isinstance(error, OSError) and not acquired
                most = ATTEMPTS + (self._connections if lost(error) and not lasting else 0)
                if not again or attempt >= most:
                    problem = failure(error)
                    log.warning("statement failed", error=problem.detail)
                    raise problem from error
            attempt += 1

    async def _do(self, work: Callable[[Connection], Awaitable[T]], connection: Connection) -> T:
        try:
            return await work(connection)
        except FAILURES as error:
            if lost(error):
                self.lost += 1
                with suppress(*FAILURES):  # the pool has it back already where it was seen to be closed
                    connection.terminate()
            raise


def _reads(sql: str) -> bool:
    return sql.lstrip().startswith("SELECT")
