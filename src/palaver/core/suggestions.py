"""What the user might say next: three short suggestions, by the agent's own model."""

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
    """Up to three suggestions; none when the model fails. An agent without a model of its own words offers those of
    its suggested questions that the user has not asked."""
    asked = {message.text.strip() for message in history if message.role == "user"}
    offline = [question for question in agent.spec.suggested_questions if question.strip() not in asked]
    try:
        model, name = models.chat_model(agent.spec.model)
        if not name:
            return _fitting(offline)
        turns = (*history_window(history), ModelMessage(role="user", parts=(Text(text=_ASK),)))
        request = ModelRequest(model=name, instructions=agent.spec.instructions, history=turns)
        said: list[str] = []
        async with asyncio.timeout(TIMEOUT_S), aclosing(model.stream(request)) as deltas:
            said.extend([delta.text async for delta in deltas if isinstance(delta, ContentDelta)])
    except (Problem, TimeoutError):
        return []
    return _fitting([_BULLET.sub("", line).strip().strip('"“”') for line in "".join(said).splitlines()])


def _fitting(suggestions: Sequence[str]) -> list[str]:
    kept = [one for one in dict.fromkeys(suggestions) if one.strip() and len(one) <= MAX_CHARACTERS]
    return kept[:MAX_SUGGESTIONS]
