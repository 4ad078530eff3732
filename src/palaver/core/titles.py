"""What a conversation is about, in a few words, by the agent's own model."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from palaver.core.ports.models import ContentDelta, ModelMessage, ModelRequest, Models
from palaver.core.problems import Problem
from palaver.core.types import Agent, Text

TIMEOUT_S = 30.0
_ASK = (
    "Name the conversation that begins with this message: a title of at most ten words, in the message's language,"
    " without quotes or anything else."
)


async def title(models: Models, agent: Agent, first_message: str, summary: str | None) -> str:
    """A title in one line; empty when the model fails, or the agent has none with words of its own."""
    about = f"{_ASK}\n\n{first_message}" if summary is None else f"{_ASK}\n\n{first_message}\n\nSo far: {summary}"
    said: list[str] = []
    try:
        model, name = models.chat_model(agent.spec.model)
        if not name:
            return ""
        turn = ModelMessage(role="user", parts=(Text(text=about),))
        request = ModelRequest(model=name, instructions=agent.spec.instructions, history=(turn,))
        async with asyncio.timeout(TIMEOUT_S), aclosing(model.stream(request)) as deltas:
            said.extend([delta.text async for delta in deltas if isinstance(delta, ContentDelta)])
    except (Problem, TimeoutError):
        return ""
    return " ".join("".join(said).split()).strip('"“”「」《》 ')
