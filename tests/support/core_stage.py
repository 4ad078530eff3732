"""A product with one caller on a scripted model: where the tests of the use cases play."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.kit import product, read

from palaver.app import Core
from palaver.core.chat import NewMessage, Turn
from palaver.core.events import TextDelta
from palaver.core.types import Agent, AgentSpec, Message, Principal, Ref, RunEnded, Text

SLOW = "- text: begun\n- wait: 60\n- text: never"


class Stage:
    """A product with one caller."""

    def __init__(self, core: Core, who: Principal) -> None:
        self.core = core
        self.who = who

    async def agent(self, script: str = "", *, app: str = "acme", **spec: Any) -> Agent:
        application = await self.core.store.applications.get_or_create(app)
        chosen: dict[str, Any] = {"name": "guide", "model": "scripted", "instructions": script, **spec}
        made = await self.core.store.agents.upsert(application, AgentSpec(**chosen))
        while await self.core.store.agents.get(application.id, made.id) != made:  # noqa: ASYNC110  PostgreSQL tells of it
            await asyncio.sleep(0.001)
        return made

    async def say(self, agent: Agent, text: str = "hi", conversation: Ref | None = None, **said: Any) -> Turn:
        parts = (Text(text=text),)
        return await self.core.chat.send(self.who, agent, NewMessage(parts=parts, **said), conversation=conversation)

    async def begun(self, sent: Turn, text: str = "") -> None:
        """Wait for the answer's first words, or for all of ``text``."""
        heard = ""
        while not heard or len(heard) < len(text):
            await sent.reader.wait()
            heard += "".join(event.text for event in sent.reader.take() if isinstance(event, TextDelta))

    async def ended(self, sent: Turn) -> RunEnded:
        _, (_, ended) = await read(sent.reader)
        assert ended is not None
        return ended

    async def answers(self, sent: Turn) -> list[Message]:
        """The answers of the conversation, as they are stored."""
        messages = await self.core.chat.list_messages(self.who, sent.conversation, limit=500)
        return [message for message in messages if message.role == "assistant"]


@asynccontextmanager
async def stage(url: str, folder: Path, **settings: Any) -> AsyncGenerator[Stage]:
    async with product(url, folder, **settings) as core:
        app = await core.store.applications.get_or_create("acme")
        keys = await core.store.keys.list_all(app)
        key = keys[0][1] if keys else await core.store.keys.create(app, "snail", "app-1", "SAI_1", {})
        yield Stage(core, Principal(key=key, user="ann"))
