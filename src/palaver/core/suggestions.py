"""Suggestions for the user's next message, from the agent's model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import aclosing

from palaver.core.context import history_window
from palaver.core.ports.models import ContentDelta, ModelMessage, ModelRequest, Models
from palaver.core.problems import Problem
from palaver.core.types import Agent, Message, Text

MAX_SUGGESTIONS = 3
MAX_CHARACTERS = 200
TIMEOUT_S = 60.0
_ASK = (
    "Suggest what the user might say next in this conversation: at most three short messages in the user's own words"
    " and language, one on each line, without numbers, quotes or anything else."
)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)、])\s*")


async def suggest(models: Models, agent: Agent, history: Sequence[Message]) -> list[str]:
    """Up to ``MAX_SUGGESTIONS`` suggestions; none if the model fails. With a built-in model, which cannot write text,
    returns the agent's suggested questions that the user has not asked yet."""
    user_texts = {message.text.strip() for message in history if message.role == "user"}
    unasked = [question for question in agent.spec.suggested_questions if question.strip() not in user_texts]
    try:
        model, name = models.chat_model(agent.spec.model)
        if not name:
            return _select(unasked)
        turns = (*history_window(history), ModelMessage(role="user", parts=(Text(text=_ASK),)))
        request = ModelRequest(model=name, instructions=agent.spec.instructions, history=turns)
        chunks: list[str] = []
        async with asyncio.timeout(TIMEOUT_S), aclosing(model.stream(request)) as deltas:
            chunks.extend([delta.text async for delta in deltas if isinstance(delta, ContentDelta)])
    except (Problem, TimeoutError):
        return []
    return _select([_BULLET.sub("", line).strip().strip('"“”') for line in "".join(chunks).splitlines()])


def _select(suggestions: Sequence[str]) -> list[str]:
    valid = [text for text in dict.fromkeys(suggestions) if text.strip() and len(text) <= MAX_CHARACTERS]
    return valid[:MAX_SUGGESTIONS]
