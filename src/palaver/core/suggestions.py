"""Suggestions for the user's next message, from the agent's model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from palaver.core.completion import can_generate_text, complete
from palaver.core.context import history_window
from palaver.core.observer import Observer
from palaver.core.ports.models import ModelMessage, Models
from palaver.core.problems import Upstream
from palaver.core.types import Agent, Message, Text

MAX_SUGGESTIONS = 3
MAX_CHARACTERS = 200
TIMEOUT_S = 60.0
_PROMPT = (
    "Suggest what the user might say next in this conversation: at most three short messages in the user's own words"
    " and language, one on each line, without numbers, quotes or anything else."
)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)、])\s*")


async def generate_suggestions(
    models: Models, observer: Observer, agent: Agent, history: Sequence[Message]
) -> list[str]:
    """Up to ``MAX_SUGGESTIONS`` suggestions; none if the model fails. With a built-in model, which cannot write text,
    returns the agent's suggested questions that the user has not asked yet."""
    try:
        if not can_generate_text(models, agent):
            asked = {message.text.strip() for message in history if message.role == "user"}
            return _select([text for text in agent.spec.suggested_questions if text.strip() not in asked])
    except Upstream:
        return []
    messages = (*history_window(history), ModelMessage(role="user", parts=(Text(text=_PROMPT),)))
    text = await complete(models, observer, agent, messages, timeout_s=TIMEOUT_S)
    return _select([_BULLET.sub("", line).strip().strip('"“”') for line in (text or "").splitlines()])


def _select(suggestions: Sequence[str]) -> list[str]:
    valid = [text for text in dict.fromkeys(suggestions) if text.strip() and len(text) <= MAX_CHARACTERS]
    return valid[:MAX_SUGGESTIONS]
