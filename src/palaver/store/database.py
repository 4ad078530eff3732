"""The pool and the ways to run a statement.

Whatever goes wrong between here and PostgreSQL becomes ``Internal(reason="database")``, the driver's error chained.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import structlog

from palaver.core.problems import Internal
from palaver.store.driver import FAILURES, GIVEN_WAY, Connection, Pool, Row, failure, pool

__all__ = ["Database", "Row"]

TIMEOUT = 8.0
"""Seconds for one statement, waiting for a connection included: a caller is answered within ten."""

ATTEMPTS = 3
"""How often a statement is tried that had to give way to another one."""

log = structlog.get_logger("palaver.store")

T = TypeVar("T")


class Database:
    """A PostgreSQL database. ``statements`` counts what was asked of it."""

    def __init__(self, url: str, *, connections: int = 10) -> None:
        self.url = url
        self.statements = 0
        self._connections = connections
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Connect. Raises ``Internal(reason="database")`` with what PostgreSQL or the network said."""
        settings = {"application_name": "palaver", "jit": "off", "timezone": "UTC"}
        self._pool = await pool(self.url, size=self._connections, timeout=TIMEOUT, settings=settings)

    async def close(self) -> None:
        open_pool, self._pool = self._pool, None
        if open_pool is None:
            return
        try:
            await asyncio.wait_for(open_pool.close(), 5)
        except FAILURES:
            open_pool.terminate()

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        return await self._run(lambda connection: connection.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        return await self._run(lambda connection: connection.fetchrow(sql, *args))

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return await self._run(lambda connection: connection.fetchval(sql, *args))

    async def execute(self, sql: str, *args: Any) -> str:
        """The command tag, e.g. ``UPDATE 1``."""
        return await self._run(lambda connection: connection.execute(sql, *args))

    async def together(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """All of ``statements`` in one transaction, or none."""

        async def work(connection: Connection) -> None:
            self.statements += len(statements) - 1
            async with connection.transaction():
                for sql, args in statements:
                    await connection.execute(sql, *args)

        await self._run(work)

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        if self._pool is None:
            raise Internal(reason="database", detail="the database is closed")
        attempt = 1
        while True:
            self.statements += 1
            try:
                async with self._pool.acquire(timeout=TIMEOUT) as connection:
                    return await work(connection)
            except FAILURES as error:
                if isinstance(error, GIVEN_WAY) and attempt < ATTEMPTS:
                    attempt += 1
                    continue
                problem = failure(error)
                log.warning("statement failed", error=problem.detail)
                raise problem from error
