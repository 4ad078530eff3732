"""What callers send. Source: wire specification ``snail.md``, section 4.1."""

from __future__ import annotations

import unicodedata

import msgspec

from palaver.core.problems import Invalid

MAX_CONVERSATION_ID = 128
MAX_OPEN_ID = 255


class ChatRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /snail-ai/open-api/chat``, in the order its fields are checked in."""

    agentId: int | str | None = None  # noqa: N815
    openId: str | None = None  # noqa: N815
    content: str | None = None
    conversationId: str | None = None  # noqa: N815
    disabledMcpServerIds: list[int] | None = None  # noqa: N815
    disabledSkillIds: list[int] | None = None  # noqa: N815


class Chat(msgspec.Struct, kw_only=True, frozen=True):
    """A request that breaks no rule."""

    agent: int
    user: str
    content: str
    conversation: str | None
    off: frozenset[tuple[str, int]]


def checked(request: ChatRequest) -> Chat:
    """Raises ``Invalid`` for the first rule broken, in the specification's order."""
    agent, content, user = request.agentId, request.content, request.openId
    if isinstance(agent, str) and agent.strip():
        raise Invalid(field="agentId", rule="type", detail=f"{agent[:40]!r} is no number")
    if agent is None or isinstance(agent, str) or content is None or not content.strip():
        raise Invalid(field="agentId", rule="required")
    if user is None or not user.strip():
        raise Invalid(field="openId", rule="required")
    if len(user) > MAX_OPEN_ID:
        raise Invalid(field="openId", rule="length", detail=f"more than {MAX_OPEN_ID} characters")
    conversation = request.conversationId if (request.conversationId or "").strip() else None
    if conversation is not None and not _is_name(conversation):
        raise Invalid(field="conversationId", rule="length")
    return Chat(
        agent=agent,
        user=user,
        content=content,
        conversation=conversation,
        off=frozenset(
            [("mcp", number) for number in request.disabledMcpServerIds or ()]
            + [("skill", number) for number in request.disabledSkillIds or ()]
        ),
    )


def _is_name(text: str) -> bool:
    return len(text) <= MAX_CONVERSATION_ID and all(unicodedata.category(char) != "Cc" for char in text)
