"""Response bodies, and the envelope that they share.

Source: wire specification ``snail.md``, sections 3 to 5, 7 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

from msgspec import Meta

from palaver.core.types import Agent, Conversation, Message, Passage, User
from palaver.dialects.snail.errors import SnailError, SnailResponseModel, failure_reason
from palaver.wire.contract import ResponseType
from palaver.wire.responses import JSONValue, json_response

T = TypeVar("T")

MAX_QUESTIONS = 8
TITLE_LENGTH = 16
"""Length of an untitled conversation's title: the beginning of its first message."""
DATE_WITH_SPACE, DATE_WITH_T = "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"
TOKEN = "Snail-Ai-Auth"  # noqa: S105  the header's name


class SnailEnvelope(SnailResponseModel, Generic[T], frozen=True, kw_only=True):
    """The envelope of every response except streams: the documented members, then those of the vendor's server."""

    code: Annotated[int, Meta(description="1 for success.")]
    msg: str
    data: T
    status: Annotated[int, Meta(description="1 for success, 5001 for an unknown credential or end user.")]
    message: str


class SnailPage(SnailEnvelope[T], Generic[T], frozen=True, kw_only=True):
    """The envelope of a page of a list."""

    page: int
    size: int
    total: Annotated[int, Meta(description="Across all pages.")]


class SnailAgent(SnailResponseModel, frozen=True, kw_only=True):
    id: int
    name: str
    description: str
    avatar: str | None
    greeting: str
    preset_questions: tuple[str, ...]
    mcp_enabled: bool
    mcp_servers: tuple[dict[str, Any], ...]
    skill_enabled: bool
    skills: tuple[dict[str, Any], ...]
    web_search_enabled: bool
    view_count: int
    is_featured: bool
    status: Annotated[int, Meta(description="1 active, 4 disabled.")]
    create_dt: str
    update_dt: str
    subscribed: bool | None


class SnailUser(SnailResponseModel, frozen=True, kw_only=True):
    open_id: str
    external_id: str | None
    nickname: str | None
    avatar_url: str | None
    created: bool


class SnailConversation(SnailResponseModel, frozen=True, kw_only=True):
    conversation_id: str
    agent_id: int
    title: str
    create_dt: str
    update_dt: str


class SnailMessage(SnailResponseModel, frozen=True, kw_only=True):
    role: Literal["user", "assistant"]
    content: str
    thinking: str | None
    status: int
    create_dt: str


class SyncChatResponse(SnailResponseModel, frozen=True, kw_only=True):
    conversation_id: str
    content: str
    duration_ms: Annotated[int, Meta(ge=0)]


class SnailPassage(SnailResponseModel, frozen=True, kw_only=True):
    chunk_id: str
    content: str
    score: float
    document_id: int
    document_name: str
    metadata: dict[str, Any]


class SearchMetrics(SnailResponseModel, frozen=True, kw_only=True):
    """Times in milliseconds and numbers of passages, by search method."""

    embedding_ms: int
    vector_search_ms: int
    bm25_search_ms: int
    fusion_ms: int
    rerank_ms: int
    total_ms: int
    vector_hit_count: int
    bm25_hit_count: int
    final_count: int


class SearchResponse(SnailResponseModel, frozen=True, kw_only=True):
    results: tuple[SnailPassage, ...]
    metrics: Annotated[SearchMetrics | None, Meta(description="With `debug`.")]


class EmbedTokenResponse(SnailResponseModel, frozen=True, kw_only=True):
    token: str
    token_type: str
    auth_header: str
    expires_at: str
    ttl_seconds: int
    open_id: str
    nickname: str | None
    avatar_url: str | None


class ChatPageConfig(SnailResponseModel, frozen=True, kw_only=True):
    gateway_path: Annotated[str, Meta(description="Base path of the API; absolute for a page from another origin.")]
    page_title: str
    logo: str
    resource_base_url: str


# In the envelope ----------------------------------------------------------------------------------------------------


def envelope(data: T) -> SnailEnvelope[T]:
    return SnailEnvelope(code=1, msg="success", data=data, status=1, message="success")


def page_envelope(items: list[T], *, page: int, size: int, total: int) -> SnailPage[list[T]]:
    return SnailPage(code=1, msg="success", data=items, status=1, message="success", page=page, size=size, total=total)


def ok_response(shape: type[T]) -> ResponseType[JSONValue[T]]:
    """A ``shape`` in the envelope."""
    return json_response(cast("Any", SnailEnvelope)[shape], lambda _request, data: envelope(data))


def success_page(shape: type[T]) -> ResponseType[JSONValue[SnailPage[list[T]]]]:
    """A page of a list of ``shape``, from ``page_envelope``."""
    return json_response(cast("Any", SnailPage)[list[shape]], lambda _request, page: page)


def success_or_error(shape: type[T]) -> ResponseType[JSONValue[T | SnailError]]:
    """A ``shape`` in the envelope, or an error that is not a ``Problem`` of the request."""
    return json_response(
        cast("Any", SnailEnvelope)[shape],
        lambda _request, data: data if isinstance(data, SnailError) else envelope(data),
    )


DONE: ResponseType[JSONValue[None]] = json_response(SnailEnvelope[None], lambda _request, _data: envelope(None))
"""Success without data."""


# From core's values -------------------------------------------------------------------------------------------------


def name_of(conversation: Conversation) -> str:
    """The id that callers see: their own, otherwise the UUID."""
    return conversation.alias if conversation.alias is not None else str(conversation.uid)


def date(moment: datetime, zone: tzinfo, form: str) -> str:
    return moment.astimezone(zone).strftime(form)


def agent_response(agent: Agent, zone: tzinfo, *, subscribed: bool | None = None) -> SnailAgent:
    """An agent. palaver has no MCP servers, skills, web search, view counts or featured agents yet."""
    spec = agent.spec
    return SnailAgent(
        id=agent.id,
        name=spec.name,
        description=spec.description,
        avatar=spec.icon,
        greeting=spec.opening_message,
        preset_questions=spec.suggested_questions[:MAX_QUESTIONS],
        mcp_enabled=False,
        mcp_servers=(),
        skill_enabled=False,
        skills=(),
        web_search_enabled=False,
        view_count=0,
        is_featured=False,
        status=1 if spec.enabled else 4,
        create_dt=date(agent.created, zone, DATE_WITH_SPACE),
        update_dt=date(agent.modified, zone, DATE_WITH_SPACE),
        subscribed=subscribed,
    )


def external_id(user: User) -> str | None:
    """The calling system's own id for the user; ``None`` for a user that was registered without one."""
    return None if user.name == user.uid.hex else user.name


def user_response(user: User, *, created: bool = False) -> SnailUser:
    return SnailUser(
        open_id=user.uid.hex,
        external_id=external_id(user),
        nickname=user.nickname,
        avatar_url=user.avatar,
        created=created,
    )


def conversation_response(conversation: Conversation, zone: tzinfo) -> SnailConversation:
    return SnailConversation(
        conversation_id=name_of(conversation),
        agent_id=conversation.agent,
        title=conversation.title if conversation.title is not None else conversation.opening[:TITLE_LENGTH],
        create_dt=date(conversation.created, zone, DATE_WITH_T),
        update_dt=date(conversation.modified, zone, DATE_WITH_T),
    )


def message_response(message: Message, zone: tzinfo) -> SnailMessage:
    """A message. A failed answer without text has the reason as its content."""
    failed = message.ended is not None and message.ended.status.failed
    return SnailMessage(
        role=message.role,
        content=failure_reason(message.ended.problem)
        if message.ended and failed and not message.text.strip()
        else message.text,
        thinking=message.thinking or None,
        status=0 if failed else 1,
        create_dt=date(message.created, zone, DATE_WITH_T),
    )


def search_response(passages: Sequence[Passage], took_ms: int, *, debug: bool) -> SearchResponse:
    """Search results. palaver has keyword search only, so the metrics of the other stages are 0."""
    metrics = SearchMetrics(
        embedding_ms=0,
        vector_search_ms=0,
        bm25_search_ms=took_ms,
        fusion_ms=0,
        rerank_ms=0,
        total_ms=took_ms,
        vector_hit_count=0,
        bm25_hit_count=len(passages),
        final_count=len(passages),
    )
    return SearchResponse(results=tuple(map(_passage_response, passages)), metrics=metrics if debug else None)


def _passage_response(passage: Passage) -> SnailPassage:
    return SnailPassage(
        chunk_id=str(passage.chunk),
        content=passage.text,
        score=passage.score,
        document_id=passage.document,
        document_name=passage.source,
        metadata={},
    )


def embed_token_response(
    token: str, open_id: str, user: User, *, expires: int, ttl: int, zone: tzinfo
) -> EmbedTokenResponse:
    """An embed token that expires at ``expires`` (Unix seconds), in ``ttl`` seconds."""
    return EmbedTokenResponse(
        token=token,
        token_type=TOKEN,
        auth_header=TOKEN,
        expires_at=date(datetime.fromtimestamp(expires, UTC), zone, DATE_WITH_SPACE),
        ttl_seconds=ttl,
        open_id=open_id,
        nickname=user.nickname,
        avatar_url=user.avatar,
    )
