"""Tools of the tests. No mocks of palaver's own code: real PostgreSQL, a scripted model, ASGI as a transport."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from palaver.store.driver import connect
from palaver.store.migrate import migrate

T = TypeVar("T")

GUARD = 20.0
"""Seconds after which a test that waits for something has failed."""

_numbers = itertools.count(1)


def run(work: Coroutine[Any, Any, T], *, guard: float = GUARD) -> T:
    """Run a coroutine to its end, in a loop of its own."""

    async def guarded() -> T:
        async with asyncio.timeout(guard):
            return await work

    return asyncio.run(guarded())


class Scratch:
    """A PostgreSQL server for tests, which copies databases from a migrated one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def at(self, name: str) -> str:
        return self.url.replace("/postgres?", f"/{name}?")

    async def prepare(self) -> None:
        """Make the migrated database that the tests' are copies of; whoever comes first does."""
        connection = await connect(self.url, timeout=10)
        try:
            await connection.execute("SELECT pg_advisory_lock(1)")
            if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = 'template'"):
                await connection.execute("CREATE DATABASE template")
                await migrate(self.at("template"))
        finally:
            await connection.close()

    async def create(self) -> tuple[str, str]:
        """(name, address) of a new database."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        await self._admin(f"CREATE DATABASE {name} TEMPLATE template STRATEGY file_copy")
        return name, self.at(name)

    async def drop(self, name: str) -> None:
        await self._admin(f"DROP DATABASE {name} WITH (FORCE)")

    async def _admin(self, sql: str) -> None:
        connection = await connect(self.url, timeout=10)
        try:
            # Copying needs the template to itself, and one copy at a time.
            await connection.execute("SELECT pg_advisory_lock(1)")
            await connection.execute(sql)
        finally:
            await connection.close()
