"""Servers that share a database: two processes, or one with several workers, and what a test makes for them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from secrets import token_bytes
from typing import Any, TypeVar

import msgspec
from support.databases import Databases
from support.kit import run, store_on
from support.server_process import Installation, installed

from palaver.app import all_dialects
from palaver.core.types import Agent, AgentSpec, ApiKey, Message
from palaver.store.postgres import PostgresStore

T = TypeVar("T")
Step = dict[str, Any]

APPLICATION = "acme"


class Neighbours:
    """``first`` and ``second`` are servers on the database at ``url``."""

    def __init__(self, url: str, *servers: Installation) -> None:
        self.url = url
        self.servers = servers
        self._numbers = itertools.count(1)

    @property
    def first(self) -> Installation:
        return self.servers[0]

    @property
    def second(self) -> Installation:
        return self.servers[1]

    def new_name(self, kind: str) -> str:
        """A name that nothing else here has."""
        return f"{kind}-{next(self._numbers)}"

    # As a third process, which the servers hear of through PostgreSQL ------------------------------------------------

    def do(self, work: Callable[[PostgresStore], Awaitable[T]]) -> T:
        """Do something with the database, as another process."""

        async def alone() -> T:
            async with store_on(self.url) as store:
                return await work(store)

        return run(alone())

    def key(self, dialect: str = "snail", **settings: Any) -> ApiKey:
        """A credential, made as the dialect makes its own."""
        made = next(one for one in all_dialects() if one.name == dialect)
        name, secret = made.new_credential(token_bytes(32))

        async def create(store: PostgresStore) -> ApiKey:
            return await store.keys.create(
                await store.applications.get_or_create(APPLICATION), dialect, name, secret, settings
            )

        return self.do(create)

    def agent(self, *script: Step | str, model: str = "scripted") -> Agent:
        """An agent that plays ``script``; a text is said as it is."""
        steps = [{"text": step} if isinstance(step, str) else step for step in script]
        spec = AgentSpec(name=self.new_name("agent"), model=model, instructions=json.dumps(steps))

        async def apply(store: PostgresStore) -> Agent:
            return await store.agents.upsert(await store.applications.get_or_create(APPLICATION), spec)

        return self.do(apply)

    def change(self, agent: Agent, **spec: Any) -> None:
        """Change the agent's spec; every server knows of it."""
        changed = msgspec.structs.replace(agent.spec, **spec)

        async def apply(store: PostgresStore) -> Agent:
            return await store.agents.upsert(await store.applications.get_or_create(APPLICATION), changed)

        self.do(apply)
        time.sleep(0.3)

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a statement."""
        return self.do(lambda store: store.db.fetch(statement, *arguments))

    def said(self, alias: str) -> list[tuple[str, str, str | None]]:
        """(role, text, status) of every message of the conversation with that alias, in order."""

        async def read(store: PostgresStore) -> Sequence[Message]:
            row = await store.db.fetchrow("SELECT app, id FROM conversation WHERE alias = $1", alias)
            if row is None:
                return ()
            page = await store.conversations.get_messages(row["app"], row["id"], limit=1000, max_bytes=2**30)
            return page.messages

        return [(message.role, message.text, _status(message)) for message in self.do(read)]


def _status(message: Message) -> str | None:
    if message.ended is not None:
        return message.ended.status.value
    return None if message.role == "user" else "live"


@contextmanager
def neighbours(cluster: Databases, count: int = 2, **environment: str) -> Generator[Neighbours]:
    """``count`` servers on a database of their own, which do not run yet."""
    name, url = run(cluster.acquire())
    shared = {
        "PALAVER_DATABASE_URL": url,
        "PALAVER_MASTER_KEY": bytes(32).hex(),
        "PALAVER_DEMO": "false",
        "PALAVER_DRAIN_S": "0",
        **environment,
    }
    try:
        with ExitStack() as stack:
            yield Neighbours(url, *(stack.enter_context(installed(**shared)) for _ in range(count)))
    finally:
        run(cluster.release(name))
