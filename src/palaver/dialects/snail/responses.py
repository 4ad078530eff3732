"""What callers get to see of the nouns. Source: wire specification ``snail.md``, sections 4.2 and 7."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any

from palaver.core.types import Agent, Conversation, Message, Passage, User
from palaver.dialects.snail.errors import failure_reason

QUESTIONS = 8
TITLE = 16
"""How many characters of its first message are a conversation's title until it is given one."""
SPACED, JOINED = "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"


def name_of(conversation: Conversation) -> str:
    """The id a caller sees: the one it chose, else the UUID."""
    return conversation.alias if conversation.alias is not None else str(conversation.uid)


def date(moment: datetime, zone: tzinfo, form: str) -> str:
    return moment.astimezone(zone).strftime(form)


def agent_response(agent: Agent, zone: tzinfo, *, subscribed: bool | None = None) -> dict[str, Any]:
    """MCP servers, skills, web search, views and features are not palaver's yet: off, none and zero."""
    spec = agent.spec
    return {
        "id": agent.id,
        "name": spec.name,
        "description": spec.description,
        "avatar": spec.icon,
        "greeting": spec.opening_message,
        "presetQuestions": list(spec.suggested_questions[:QUESTIONS]),
        "mcpEnabled": False,
        "mcpServers": [],
        "skillEnabled": False,
        "skills": [],
        "webSearchEnabled": False,
        "viewCount": 0,
        "isFeatured": False,
        "status": 1 if spec.enabled else 4,
        "createDt": date(agent.created, zone, SPACED),
        "updateDt": date(agent.modified, zone, SPACED),
        "subscribed": subscribed,
    }


def external_id(user: User) -> str | None:
    """The calling system's own name for the user; who was registered without one is named by the issued id."""
    return None if user.name == user.uid.hex else user.name


def user_response(user: User, *, created: bool = False) -> dict[str, Any]:
    return {
        "openId": user.uid.hex,
        "externalId": external_id(user),
        "nickname": user.nickname,
        "avatarUrl": user.avatar,
        "created": created,
    }


def conversation_response(conversation: Conversation, zone: tzinfo) -> dict[str, Any]:
    title = conversation.title if conversation.title is not None else conversation.opening[:TITLE]
    return {
        "conversationId": name_of(conversation),
        "agentId": conversation.agent,
        "title": title,
        "createDt": date(conversation.created, zone, JOINED),
        "updateDt": date(conversation.modified, zone, JOINED),
    }


def message_response(message: Message, zone: tzinfo) -> dict[str, Any]:
    """A failed turn says so; one without words has the reason in their place."""
    failed = message.ended is not None and message.ended.status.failed
    return {
        "role": message.role,
        "content": failure_reason(message.ended.problem)
        if message.ended and failed and not message.text.strip()
        else message.text,
        "thinking": message.thinking or None,
        "status": 0 if failed else 1,
        "createDt": date(message.created, zone, JOINED),
    }


def search_response(passages: Sequence[Passage], took_ms: int, *, debug: bool) -> dict[str, Any]:
    """palaver searches words alone: there is nothing to embed, to fuse or to rank again."""
    count = len(passages)
    metrics = {
        "embeddingMs": 0,
        "vectorSearchMs": 0,
        "bm25SearchMs": took_ms,
        "fusionMs": 0,
        "rerankMs": 0,
        "totalMs": took_ms,
        "vectorHitCount": 0,
        "bm25HitCount": count,
        "finalCount": count,
    }
    return {"results": [_passage_response(passage) for passage in passages], "metrics": metrics if debug else None}


def _passage_response(passage: Passage) -> dict[str, Any]:
    return {
        "chunkId": str(passage.chunk),
        "content": passage.text,
        "score": passage.score,
        "documentId": passage.document,
        "documentName": passage.source,
        "metadata": {},
    }
