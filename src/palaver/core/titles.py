"""Conversation titles from the agent's model."""

from __future__ import annotations

from palaver.core.completion import complete
from palaver.core.observer import Observer
from palaver.core.ports.models import ModelMessage, Models
from palaver.core.types import Agent, Text

TIMEOUT_S = 30.0
_PROMPT = (
    "Name the conversation that begins with this message: a title of at most ten words, in the message's language,"
    " without quotes or anything else."
)


async def generate_title(
    models: Models, observer: Observer, agent: Agent, first_message: str, summary: str | None
) -> str:
    """A title on one line; empty if the model fails, or is a built-in one, which cannot write text."""
    prompt = (
        f"{_PROMPT}\n\n{first_message}" if summary is None else f"{_PROMPT}\n\n{first_message}\n\nSo far: {summary}"
    )
    message = ModelMessage(role="user", parts=(Text(text=prompt),))
    text = await complete(models, observer, agent, (message,), timeout_s=TIMEOUT_S)
    return " ".join((text or "").split()).strip('"“”「」《》 ')
