"""Tools of the tests. No mocks of palaver's own code: real PostgreSQL, a scripted model, ASGI as a transport."""

from __future__ import annotations

import asyncio
import time
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
from palaver.store.postgres import PostgresStore
from palaver.store.secrets import SecretBox

T = TypeVar("T")

GUARD = 60.0
"""Seconds after which a test that waits for something has failed."""


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


def wait_until(holds: Callable[[], bool], *, within: float = 5.0) -> None:
    """Ask again and again, from a thread that may block; fails when it does not hold ``within`` seconds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@asynccontextmanager
async def store_on(url: str, master: bytes = bytes(32)) -> AsyncGenerator[PostgresStore]:
    """The store on a database, as one process has it; two of them are two processes to each other."""
    store = PostgresStore(url, SecretBox(master), connections=5)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


class SeededApp:
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


async def seed_app(store: PostgresStore, name: str = "acme", **settings: Any) -> SeededApp:
    """Make one, with the agent ``guide`` on the scripted model."""
    app = await store.applications.get_or_create(name)
    key = await store.keys.create(app, "snail", f"app-{name}", f"SAI_{name}", settings)
    agent = await store.agents.upsert(app, AgentSpec(name="guide", model="scripted"))
    who = Principal(key=key, user="ann")
    return SeededApp(store, app, who, await store.users.get_or_create(app.id, "ann"), agent)


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
