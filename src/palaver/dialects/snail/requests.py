"""What callers send. Source: wire specification ``snail.md``, sections 4.1, 5 and 7."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from palaver.core.problems import Invalid
from palaver.core.types import Principal
from palaver.dialects.snail.errors import on_b
from palaver.wire.bodies import json_object, parse
from palaver.wire.contract import Request

MAX_CONVERSATION_ID = 128
MAX_OPEN_ID = 255
MAX_SID = 255
MAX_SIZE = 200
SHORTEST_TTL, LONGEST_TTL = 60, 86_400

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


OpenId = Annotated[str | None, Meta(description="The end user.", extra_json_schema={"maxLength": MAX_OPEN_ID})]
Content = Annotated[str | None, Meta(description="What the user says.")]
ConversationId = Annotated[
    str | None,
    Meta(
        description="Without it a new conversation is begun; one there is not is begun under that id.",
        extra_json_schema={"maxLength": MAX_CONVERSATION_ID},
    ),
]
Servers = Annotated[list[int] | None, Meta(description="MCP servers that are off for this message.")]
Skills = Annotated[list[int] | None, Meta(description="Skills that are off for this message.")]


class SnailRequest(msgspec.Struct, rename="camel"):
    """A request's members: camel case on the wire."""


# Surface A ----------------------------------------------------------------------------------------------------------


class SnailChatRequest(SnailRequest, kw_only=True):
    """The body of ``POST /snail-ai/open-api/chat``, in the order its fields are checked in."""

    agent_id: Annotated[int | str | None, Meta(description="The agent's number.")] = None
    open_id: OpenId = None
    content: Content = None
    conversation_id: ConversationId = None
    disabled_mcp_server_ids: Servers = None
    disabled_skill_ids: Skills = None


class SnailChat(msgspec.Struct, kw_only=True, frozen=True):
    """A request that breaks no rule."""

    agent: int
    user: str
    content: str
    conversation: str | None
    off: frozenset[tuple[str, int]]


def validated(body: SnailChatRequest) -> SnailChat:
    """Raises ``Invalid`` for the first rule broken, in the specification's order."""
    agent, content, user = body.agent_id, body.content, body.open_id
    if isinstance(agent, str) and agent.strip():
        raise Invalid(field="agentId", rule="type", detail=f"{agent[:40]!r} is no number")
    if agent is None or isinstance(agent, str) or content is None or not content.strip():
        raise Invalid(field="agentId", rule="required")
    if user is None or not user.strip():
        raise Invalid(field="openId", rule="required")
    if len(user) > MAX_OPEN_ID:
        raise Invalid(field="openId", rule="length", detail=f"more than {MAX_OPEN_ID} characters")
    return SnailChat(
        agent=agent,
        user=user,
        content=content,
        conversation=conversation_name(body.conversation_id),
        off=disabled_tools(body.disabled_mcp_server_ids, body.disabled_skill_ids),
    )


class SearchRequest(SnailRequest, kw_only=True):
    """The body of ``POST /snail-ai/open-api/rag/search``."""

    rag_id: Annotated[int | str | None, Meta(description="The knowledge base's number.")] = None
    query: Annotated[str | None, Meta(description="What is looked for.")] = None
    debug: Annotated[bool | None, Meta(description="Whether the answer has `metrics`.")] = None


def search_terms(body: SearchRequest) -> tuple[int, str]:
    """(knowledge base, query) of a search that breaks no rule."""
    if isinstance(body.rag_id, str) and body.rag_id.strip():
        raise Invalid(field="ragId", rule="type", detail=f"{body.rag_id[:40]!r} is no number")
    if body.rag_id is None or isinstance(body.rag_id, str) or not (body.query or "").strip():
        raise Invalid(field="ragId", rule="required")
    return body.rag_id, body.query or ""


# Both ---------------------------------------------------------------------------------------------------------------


def conversation_name(name: str | None) -> str | None:
    """The conversation that a caller names; a blank name is none."""
    if name is None or not name.strip():
        return None
    if len(name) > MAX_CONVERSATION_ID or any(unicodedata.category(char) == "Cc" for char in name):
        raise Invalid(field="conversationId", rule="length")
    return name


def disabled_tools(servers: list[int] | None, skills: list[int] | None) -> frozenset[tuple[str, int]]:
    """What is off for one message, as core names it."""
    return frozenset([("mcp", number) for number in servers or ()] + [("skill", number) for number in skills or ()])


# Surface B ----------------------------------------------------------------------------------------------------------


AgentId = Annotated[int | None, Meta(description="The agent's number.")]
NamedId = Annotated[str | None, Meta(extra_json_schema={"maxLength": MAX_CONVERSATION_ID})]
Page = Annotated[int | None, Meta(description="Which page; 1 is the first.", extra_json_schema={"minimum": 1})]
Size = Annotated[
    int | None, Meta(description=f"Entries of a page, {MAX_SIZE} at most.", extra_json_schema={"minimum": 1})
]


class PageRequest(SnailRequest, kw_only=True):
    page: Page = None
    size: Size = None


class AgentIdRequest(SnailRequest, kw_only=True):
    agent_id: AgentId = None


class OpenIdRequest(SnailRequest, kw_only=True):
    open_id: OpenId = None


class SubscriptionRequest(SnailRequest, kw_only=True):
    open_id: OpenId = None
    agent_id: AgentId = None


class RegistrationRequest(SnailRequest, kw_only=True):
    external_id: Annotated[
        str | None,
        Meta(
            description="What the calling system calls the user; the same one again is the same user.",
            extra_json_schema={"maxLength": MAX_OPEN_ID},
        ),
    ] = None
    nickname: str | None = None
    avatar_url: str | None = None


class ConversationsRequest(SnailRequest, kw_only=True):
    """One user's conversations with one agent."""

    agent_id: AgentId = None
    open_id: OpenId = None


class ListConversationsRequest(ConversationsRequest, kw_only=True):
    """A stretch of them."""

    page: Page = None
    size: Size = None


class SnailNewConversationRequest(ConversationsRequest, kw_only=True):
    """A new one of them."""

    title: str | None = None


class ConversationIdRequest(ConversationsRequest, kw_only=True):
    """One of them, or all."""

    conversation_id: Annotated[
        str | None, Meta(description="Without it: all.", extra_json_schema={"maxLength": MAX_CONVERSATION_ID})
    ] = None


class MessagesRequest(SnailRequest, kw_only=True):
    agent_id: AgentId = None
    conversation_id: NamedId = None
    open_id: OpenId = None


class SurfaceBChatRequest(SnailRequest, kw_only=True):
    """The body of surface B's chats."""

    agent_id: AgentId = None
    open_id: OpenId = None
    content: Content = None
    conversation_id: ConversationId = None
    disabled_mcp_server_ids: Servers = None
    disabled_skill_ids: Skills = None
    sid: Annotated[
        str | None,
        Meta(description="Comes back in every event.", extra_json_schema={"maxLength": MAX_SID}),
    ] = None


class EmbedTokenRequest(SnailRequest, kw_only=True):
    open_id: OpenId = None
    trusted_credential: Annotated[str | None, Meta(description="A claim of the token.")] = None
    ttl_seconds: Annotated[
        int | None,
        Meta(
            description="How long the token is good for; 3600 where nothing is said.",
            extra_json_schema={"minimum": SHORTEST_TTL, "maximum": LONGEST_TTL},
        ),
    ] = None


class SessionRequest(SnailRequest, kw_only=True):
    """The body of surface C's sign-in."""

    open_id: OpenId = None
    trusted_credential: Annotated[
        str | None, Meta(description="An embed token for that user; not needed where the server signs in anybody.")
    ] = None


def request_fields(request: Request, who: Principal) -> dict[str, Any]:
    """What a call of surface B or C brings: a POST's JSON body, else the query's fields. A user that the caller's token
    is bound to (surface C) replaces any that is named."""
    if request.method == "POST" and (request.body or on_b(request)):
        fields = json_object(request.body)
    else:
        query = parse_qsl(request.query_string.encode("latin-1").decode("utf-8", "replace"), keep_blank_values=True)
        fields = {name: value.replace("\0", "\ufffd") for name, value in query}
    return fields if who.user is None else {**fields, "openId": who.user}


def parse_fields(shape: type[S], fields: dict[str, Any]) -> S:
    """``given`` as a ``shape``; blank counts as absent."""
    present = {name: value for name, value in fields.items() if not isinstance(value, str) or value.strip()}
    return parse(shape, present, digits_are_numbers=True)


def require(value: T | None, field: str) -> T:
    """A field that has to be there."""
    if value is None:
        raise Invalid(field=field, rule="required")
    return value


def user_name(value: str, field: str = "openId") -> str:
    if len(value) > MAX_OPEN_ID:
        raise Invalid(field=field, rule="length", detail=f"more than {MAX_OPEN_ID} characters")
    return value


def page_bounds(page: int | None, size: int | None, default_size: int) -> tuple[int, int]:
    """(page, size) of a list whose pages usually have ``usual`` entries."""
    page, size = 1 if page is None else page, default_size if size is None else size
    if page < 1:
        raise Invalid(field="page", rule="range")
    if size < 1:
        raise Invalid(field="size", rule="range")
    return page, min(size, MAX_SIZE)


def token_ttl(seconds: int | None) -> int:
    """How long an embed token is good for."""
    if seconds is None:
        return 3600
    if seconds < SHORTEST_TTL:
        raise Invalid(field="ttlSeconds", rule="range")
    if seconds > LONGEST_TTL:
        raise Invalid(field="ttlSeconds", rule="size")
    return seconds


def check_sid(sid: str | None) -> None:
    """It goes out again with every event, so it has a limit."""
    if sid is not None and len(sid) > MAX_SID:
        raise Invalid(field="sid", rule="length", detail=f"more than {MAX_SID} characters")
