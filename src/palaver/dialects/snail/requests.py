"""Request bodies and queries. Source: wire specification ``snail.md``, sections 4.1, 5, 7 and 8."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from palaver.core.problems import Invalid
from palaver.wire.bodies import json_object, parse
from palaver.wire.contract import Request, RequestType

MAX_CONVERSATION_ID = 128
MAX_OPEN_ID = 255
MAX_SID = 255
MAX_PAGE_SIZE = 200
MIN_TTL_S, MAX_TTL_S = 60, 86_400
DEFAULT_TTL_S = 3600

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


OpenId = Annotated[str | None, Meta(description="The end user.", extra_json_schema={"maxLength": MAX_OPEN_ID})]
Content = Annotated[str | None, Meta(description="The user's message.")]
ConversationId = Annotated[
    str | None,
    Meta(
        description="If absent, a new conversation is created; if unknown, it is created with this id.",
        extra_json_schema={"maxLength": MAX_CONVERSATION_ID},
    ),
]
DisabledServers = Annotated[list[int] | None, Meta(description="MCP servers to disable for this message.")]
DisabledSkills = Annotated[list[int] | None, Meta(description="Skills to disable for this message.")]


class SnailRequest(msgspec.Struct, rename="camel"):
    """The members of a request; camel case on the wire."""


# Surface A ----------------------------------------------------------------------------------------------------------


class SnailChatRequest(SnailRequest, kw_only=True):
    """The body of ``POST /snail-ai/open-api/chat``. Fields are checked in this order."""

    agent_id: Annotated[int | str | None, Meta(description="The agent's number.")] = None
    open_id: OpenId = None
    content: Content = None
    conversation_id: ConversationId = None
    disabled_mcp_server_ids: DisabledServers = None
    disabled_skill_ids: DisabledSkills = None


class SnailChat(msgspec.Struct, kw_only=True, frozen=True):
    """A valid ``SnailChatRequest``."""

    agent: int
    user: str
    content: str
    conversation: str | None
    disabled_tools: frozenset[tuple[str, int]]


def validated(body: SnailChatRequest) -> SnailChat:
    """Check the fields. Raises ``Invalid`` for the first broken rule, in the specification's order."""
    agent, content, user = body.agent_id, body.content, body.open_id
    if isinstance(agent, str) and agent.strip():
        raise Invalid(field="agentId", rule="type", detail=f"{agent[:40]!r} is not a number")
    if agent is None or isinstance(agent, str) or content is None or not content.strip():
        raise Invalid(field="agentId", rule="required")
    if user is None or not user.strip():
        raise Invalid(field="openId", rule="required")
    return SnailChat(
        agent=agent,
        user=user_name(user),
        content=content,
        conversation=conversation_name(body.conversation_id),
        disabled_tools=disabled_tools(body.disabled_mcp_server_ids, body.disabled_skill_ids),
    )


class SearchRequest(SnailRequest, kw_only=True):
    """The body of ``POST /snail-ai/open-api/rag/search``."""

    rag_id: Annotated[int | str | None, Meta(description="The knowledge base's number.")] = None
    query: Annotated[str | None, Meta(description="The search query.")] = None
    debug: Annotated[bool | None, Meta(description="Whether the response includes `metrics`.")] = None


def search_terms(body: SearchRequest) -> tuple[int, str]:
    """(knowledge base, query). Raises ``Invalid``."""
    if isinstance(body.rag_id, str) and body.rag_id.strip():
        raise Invalid(field="ragId", rule="type", detail=f"{body.rag_id[:40]!r} is not a number")
    if body.rag_id is None or isinstance(body.rag_id, str) or not (body.query or "").strip():
        raise Invalid(field="ragId", rule="required")
    return body.rag_id, body.query or ""


# All surfaces -------------------------------------------------------------------------------------------------------


def conversation_name(name: str | None) -> str | None:
    """The conversation's name; blank means none. Raises ``Invalid`` for one too long or with control characters."""
    if name is None or not name.strip():
        return None
    if len(name) > MAX_CONVERSATION_ID or any(unicodedata.category(char) == "Cc" for char in name):
        raise Invalid(field="conversationId", rule="length")
    return name


def disabled_tools(servers: list[int] | None, skills: list[int] | None) -> frozenset[tuple[str, int]]:
    """The tools to disable, as core names them."""
    return frozenset([("mcp", number) for number in servers or ()] + [("skill", number) for number in skills or ()])


def user_name(value: str, field: str = "openId") -> str:
    """A name for an end user. Raises ``Invalid`` if it is too long."""
    if len(value) > MAX_OPEN_ID:
        raise Invalid(field=field, rule="length", detail=f"more than {MAX_OPEN_ID} characters")
    return value


# Surfaces B and C ---------------------------------------------------------------------------------------------------


AgentId = Annotated[int | None, Meta(description="The agent's number.")]
Page = Annotated[int | None, Meta(description="The page number, starting at 1.", extra_json_schema={"minimum": 1})]
Size = Annotated[
    int | None,
    Meta(description=f"The page size; values above {MAX_PAGE_SIZE} are reduced.", extra_json_schema={"minimum": 1}),
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
            description="The calling system's own id for the user. Registering the same id again returns the same"
            " user.",
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
    """A page of the conversations."""

    page: Page = None
    size: Size = None


class SnailNewConversationRequest(ConversationsRequest, kw_only=True):
    """A new conversation."""

    title: str | None = None


class ConversationIdRequest(ConversationsRequest, kw_only=True):
    """One conversation, or all."""

    conversation_id: Annotated[
        str | None, Meta(description="If absent, all.", extra_json_schema={"maxLength": MAX_CONVERSATION_ID})
    ] = None


class MessagesRequest(SnailRequest, kw_only=True):
    agent_id: AgentId = None
    conversation_id: Annotated[str | None, Meta(extra_json_schema={"maxLength": MAX_CONVERSATION_ID})] = None
    open_id: OpenId = None


class SurfaceBChatRequest(SnailRequest, kw_only=True):
    """The body of chat requests on surfaces B and C."""

    agent_id: AgentId = None
    open_id: OpenId = None
    content: Content = None
    conversation_id: ConversationId = None
    disabled_mcp_server_ids: DisabledServers = None
    disabled_skill_ids: DisabledSkills = None
    sid: Annotated[
        str | None,
        Meta(description="Returned in every event.", extra_json_schema={"maxLength": MAX_SID}),
    ] = None


class EmbedTokenRequest(SnailRequest, kw_only=True):
    open_id: OpenId = None
    trusted_credential: Annotated[str | None, Meta(description="A claim to include in the token.")] = None
    ttl_seconds: Annotated[
        int | None,
        Meta(
            description=f"The token's TTL; default {DEFAULT_TTL_S}.",
            extra_json_schema={"minimum": MIN_TTL_S, "maximum": MAX_TTL_S},
        ),
    ] = None


class SessionRequest(SnailRequest, kw_only=True):
    """The body of surface C's sign-in."""

    open_id: OpenId = None
    trusted_credential: Annotated[
        str | None, Meta(description="An embed token for the user; optional if the server signs in anyone.")
    ] = None


def surface_a_request(shape: type[S]) -> RequestType[S]:
    """A JSON body of surface A."""
    return RequestType(
        shape=shape, parse=lambda request: parse(shape, json_object(request.body), digits_are_numbers=True)
    )


def json_request(shape: type[S]) -> RequestType[S]:
    """A JSON body of surface B."""
    return RequestType(shape=shape, parse=lambda request: _parse(shape, json_object(request.body)))


def query_request(shape: type[S], *, keep_blank: str = "") -> RequestType[S]:
    """Query parameters of surface B."""
    return RequestType(
        shape=shape,
        parse=lambda request: _parse(shape, _query_parameters(request), keep_blank=keep_blank),
        location="query",
    )


def browser_request(
    shape: type[S], location: Literal["body", "query"] = "query", *, keep_blank: str = "", signed_in: bool = True
) -> RequestType[S]:
    """A request of surface C: the JSON body of a POST, or the query if it has none. If ``signed_in``, any ``openId`` is
    ignored, because the token determines the end user. ``location`` is the documented place."""

    def parse_request(request: Request) -> S:
        has_body = request.method == "POST" and request.body
        members = json_object(request.body) if has_body else _query_parameters(request)
        if signed_in:
            members.pop("openId", None)
        return _parse(shape, members, keep_blank=keep_blank)

    return RequestType(shape=shape, parse=parse_request, location=location)


def _query_parameters(request: Request) -> dict[str, Any]:
    pairs = parse_qsl(request.query_string.encode("latin-1").decode("utf-8", "replace"), keep_blank_values=True)
    return {name: value.replace("\0", "\ufffd") for name, value in pairs}


def _parse(shape: type[S], members: dict[str, Any], *, keep_blank: str = "") -> S:
    """``members`` as a ``shape``. Blank strings count as absent, except in the field ``keep_blank``."""
    present = {
        name: value
        for name, value in members.items()
        if not isinstance(value, str) or value.strip() or name == keep_blank
    }
    return parse(shape, present, digits_are_numbers=True)


def require(value: T | None, field: str) -> T:
    """A required field. Raises ``Invalid`` if it is absent."""
    if value is None:
        raise Invalid(field=field, rule="required")
    return value


def page_bounds(page: int | None, size: int | None, default_size: int) -> tuple[int, int]:
    """(page number, page size). Raises ``Invalid`` for values below 1."""
    page, size = 1 if page is None else page, default_size if size is None else size
    if page < 1:
        raise Invalid(field="page", rule="range")
    if size < 1:
        raise Invalid(field="size", rule="range")
    return page, min(size, MAX_PAGE_SIZE)


def token_ttl(seconds: int | None) -> int:
    """An embed token's TTL in seconds. Raises ``Invalid`` if it is out of range."""
    if seconds is None:
        return DEFAULT_TTL_S
    if seconds < MIN_TTL_S:
        raise Invalid(field="ttlSeconds", rule="range")
    if seconds > MAX_TTL_S:
        raise Invalid(field="ttlSeconds", rule="size")
    return seconds


def check_sid(sid: str | None) -> None:
    """Raises ``Invalid`` if it is too long: it is repeated in every event."""
    if sid is not None and len(sid) > MAX_SID:
        raise Invalid(field="sid", rule="length", detail=f"more than {MAX_SID} characters")
