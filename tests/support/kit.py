"""Tools of the tests. No mocks of palaver's own code: real PostgreSQL, a scripted model, ASGI as a transport."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from palaver.app import Core, open_core
from palaver.config import Settings
from palaver.core.events import Event, MessageContent, fold
from palaver.core.ports.store import NewTurn
from palaver.core.runs import RunReader
from palaver.core.types import Agent, AgentSpec, Application, Principal, Text, User, new_uid
from palaver.store.driver import connect
from palaver.store.migrate import migrate
from palaver.store.postgres import PostgresStore
from palaver.store.secrets import SecretBox

T = TypeVar("T")

GUARD = 60.0
"""Seconds after which a test that waits for something has failed."""

_numbers = itertools.count(1)


def run(work: Coroutine[Any, Any, T], *, guard: float = GUARD) -> T:
    """Run a coroutine to its end, in a loop of its own."""

    async def guarded() -> T:
        async with asyncio.timeout(guard):
            return await work

    return asyncio.run(guarded())


async def until(ask: Callable[[], Awaitable[T]], answer: T, *, within: float = 5.0) -> None:
    """Ask again and again until the answer is ``answer``; ``TimeoutError`` when it is not ``within`` seconds."""
    async with asyncio.timeout(within):
        while await ask() != answer:  # noqa: ASYNC110  what is waited for is in another process
            await asyncio.sleep(0.005)


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
                # Every copy and every drop would wait for the disk; nothing here outlives the machine.
                await connection.execute("ALTER SYSTEM SET fsync = off")
                await connection.execute("SELECT pg_reload_conf()")
                await connection.execute("CREATE DATABASE template")
                await migrate(self.at("template"))
        finally:
            await connection.close()

    async def create(self, how: str = "TEMPLATE template STRATEGY file_copy") -> tuple[str, str]:
        """(name, address) of a new database; ``how`` another one than a migrated copy is made."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        await self._admin(f"CREATE DATABASE {name} {how}")
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


@asynccontextmanager
async def store_on(url: str, master: bytes = bytes(32)) -> AsyncGenerator[PostgresStore]:
    """The store on a database, as one process has it; two of them are two processes to each other."""
    store = PostgresStore(url, SecretBox(master), connections=5)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


class Cast:
    """An application with a key, an agent and an end user, as a test needs them."""

    def __init__(self, store: PostgresStore, app: Application, who: Principal, user: User, agent: Agent) -> None:
        self.store = store
        self.app = app
        self.who = who
        self.user = user
        self.agent = agent

    def opening(self, text: str = "hi", **changes: Any) -> NewTurn:
        """A message about to be stored."""
        opening = NewTurn(
            principal=self.who,
            user=self.user,
            agent=self.agent,
            run=new_uid(),
            question=new_uid(),
            parts=(Text(text=text),),
            conversation=None,
            worker=self.store.presence.worker,
        )
        return msgspec.structs.replace(opening, **changes)


async def cast(store: PostgresStore, name: str = "acme", **settings: Any) -> Cast:
    """Make one, with the agent ``guide`` on the scripted model."""
    app = await store.applications.get_or_create(name)
    key = await store.keys.create(app, "snail", f"app-{name}", f"SAI_{name}", settings)
    agent = await store.agents.upsert(app, AgentSpec(name="guide", model="scripted"))
    who = Principal(key=key, user="ann")
    return Cast(store, app, who, await store.users.get_or_create(app.id, "ann"), agent)


@asynccontextmanager
async def product(
    url: str, folder: Path, *, environment: Mapping[str, str] | None = None, **settings: Any
) -> AsyncGenerator[Core]:
    """Everything but HTTP, on a database, as one process has it."""
    chosen: dict[str, Any] = {"master_key": "00" * 32, "data": str(folder), "database_url": url, **settings}
    async with open_core(Settings(**chosen), environment or {}) as core:
        yield core


async def drained(reader: RunReader) -> list[Event]:
    """Every event up to the end."""
    events: list[Event] = []
    while not reader.done:
        events += reader.take()
        if not reader.done:
            await reader.wait()
    reader.close()
    return events


async def read(reader: RunReader) -> tuple[list[Event], MessageContent]:
    """Every event from the beginning to the end, and what they come to."""
    events = await drained(reader)
    return events, fold(events)
