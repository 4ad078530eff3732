"""Conversation titles from the agent's model."""

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
    """A title on one line; empty if the model fails, or is a built-in one, which cannot write text."""
    prompt = f"{_ASK}\n\n{first_message}" if summary is None else f"{_ASK}\n\n{first_message}\n\nSo far: {summary}"
    chunks: list[str] = []
    try:
        model, name = models.chat_model(agent.spec.model)
        if not name:
            return ""
        turn = ModelMessage(role="user", parts=(Text(text=prompt),))
        request = ModelRequest(model=name, instructions=agent.spec.instructions, history=(turn,))
        async with asyncio.timeout(TIMEOUT_S), aclosing(model.stream(request)) as deltas:
            chunks.extend([delta.text async for delta in deltas if isinstance(delta, ContentDelta)])
    except (Problem, TimeoutError):
        return ""
    return " ".join("".join(chunks).split()).strip('"“”「」《》 ')
