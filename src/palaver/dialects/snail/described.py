"""What the OpenAPI document says of this dialect. Examples are the vendor's where its page has one.

Source: the vendor's page "对话接口", and the wire specification ``snail.md``.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from palaver.core.problems import Noun
from palaver.dialects.snail.auth import APP_ID, APP_TOKEN, HEADER
from palaver.dialects.snail.shapes import (
    ChatRequest,
    Embedding,
    ForAgent,
    ForUser,
    ListedConversations,
    NewConversation,
    OldConversations,
    Paged,
    Registration,
    SearchRequest,
    Session,
    Subscription,
    Talk,
)
from palaver.dialects.snail.shapes import Messages as MessagesOf
from palaver.dialects.snail.stream import Frames, Lines
from palaver.dialects.snail.words import EVENT_STREAM, NDJSON, C
from palaver.wire.contract import Encoder
from palaver.wire.describe import About, Answer, Body, Operation, Parameter, Query, Scheme, example_run

T = TypeVar("T")
SPEC = "wire specification `snail.md`, section"


# What answers look like ---------------------------------------------------------------------------------------------


class Envelope(msgspec.Struct, Generic[T], kw_only=True):
    """What is around every answer but streams: the documented members, then the implemented ones."""

    code: Annotated[int, Meta(description="1 for success.")]
    msg: str
    data: T
    status: Annotated[int, Meta(description="1 for success, 5001 for a credential or end user that is not known.")]
    message: str


class Listed(Envelope[T], Generic[T], kw_only=True):
    """The same around a page of a list."""

    page: int
    size: int
    total: Annotated[int, Meta(description="Of all pages.")]


class Refused(msgspec.Struct, kw_only=True):
    """A refusal."""

    code: Literal[0]
    msg: str
    data: None
    status: int
    message: str
    type: Annotated[Literal["error"] | msgspec.UnsetType, Meta(description="On surface A.")] = msgspec.UNSET


class Passage(msgspec.Struct, kw_only=True):
    chunkId: str  # noqa: N815
    content: str
    score: float
    documentId: int  # noqa: N815
    documentName: str  # noqa: N815
    metadata: dict[str, Any]


class Found(msgspec.Struct, kw_only=True):
    results: list[Passage]
    metrics: Annotated[dict[str, int] | None, Meta(description="With `debug`.")]


class Agent(msgspec.Struct, kw_only=True):
    id: int
    name: str
    description: str
    avatar: str | None
    greeting: str
    presetQuestions: list[str]  # noqa: N815
    mcpEnabled: bool  # noqa: N815
    mcpServers: list[dict[str, Any]]  # noqa: N815
    skillEnabled: bool  # noqa: N815
    skills: list[dict[str, Any]]
    webSearchEnabled: bool  # noqa: N815
    viewCount: int  # noqa: N815
    isFeatured: bool  # noqa: N815
    status: Annotated[int, Meta(description="1 active, 4 disabled.")]
    createDt: str  # noqa: N815
    updateDt: str  # noqa: N815
    subscribed: bool | None


class User(msgspec.Struct, kw_only=True):
    openId: str  # noqa: N815
    externalId: str | None  # noqa: N815
    nickname: str | None
    avatarUrl: str | None  # noqa: N815
    created: bool


class Conversation(msgspec.Struct, kw_only=True):
    conversationId: str  # noqa: N815
    agentId: int  # noqa: N815
    title: str
    createDt: str  # noqa: N815
    updateDt: str  # noqa: N815


class Message(msgspec.Struct, kw_only=True):
    role: Literal["user", "assistant"]
    content: str
    thinking: str | None
    status: int
    createDt: str  # noqa: N815


class Spoken(msgspec.Struct, kw_only=True):
    conversationId: str  # noqa: N815
    content: str
    durationMs: Annotated[int, Meta(ge=0)]  # noqa: N815


class Config(msgspec.Struct, kw_only=True):
    gatewayPath: Annotated[  # noqa: N815
        str, Meta(description="Where the calls are; with the server's name for a page from elsewhere.")
    ]
    pageTitle: str  # noqa: N815
    logo: str
    resourceBaseUrl: str  # noqa: N815


class EmbedToken(msgspec.Struct, kw_only=True):
    token: str
    tokenType: str  # noqa: N815
    authHeader: str  # noqa: N815
    expiresAt: str  # noqa: N815
    ttlSeconds: int  # noqa: N815
    openId: str  # noqa: N815
    nickname: str | None
    avatarUrl: str | None  # noqa: N815


def _given(meaning: str, shape: Any, data: Any, **page: int) -> Answer:
    said = {"code": 1, "msg": "success", "data": data, "status": 1, "message": "success", **page}
    return Answer(meaning=meaning, shape=shape, examples={"success": said})


# Surface A ----------------------------------------------------------------------------------------------------------

_CONVERSATION, _OPEN_ID = "2f1c9d60-6a0e-4f7b-9b7d-0a1b2c3d4e5f", "3787cf89001f43bd832b7adeb8134d96"
_PLACE = Parameter(name="X-Conversation-Id", meaning="The conversation, percent-encoded where need be.")


def _spoken(encoder: Encoder) -> dict[str, str]:
    """The example of a stream, as its encoder writes it."""
    return {"a turn": b"".join(piece for event in example_run() for piece in encoder.encode(event, 0)).decode()}


_LINES = Answer(
    meaning="One JSON object a line: `thinking`, `text`, then `done`; a failure is an `error` line, after which the"
    " connection breaks.",
    media_type=NDJSON,
    examples=_spoken(Lines(_CONVERSATION)),
    headers=(_PLACE,),
)
_FRAMES = Answer(
    meaning="Server-sent events: `thinking`, `text`, then `done` or `error`.",
    media_type=EVENT_STREAM,
    examples=_spoken(Frames(_CONVERSATION, "5c0d7f5e-7a40-4b0e-8d0a-3b6a1f2e9c11")),
    headers=(_PLACE,),
)

CHAT = Operation(
    source=f'the vendor\'s page "对话接口"; {SPEC} 4',
    body=Body(
        shape=ChatRequest,
        required=("agentId", "openId", "content"),
        examples={
            "the vendor's, a new conversation": {
                "agentId": 1,
                "openId": "external-user-001",
                "content": "帮我分析一下上季度的销售数据",
            },
            "the vendor's, going on": {
                "agentId": 1,
                "openId": "external-user-001",
                "content": "能再详细说明一下华东区域的数据吗?",
                "conversationId": "conv-abc123",
            },
            "the vendor's, without some tools": {
                "agentId": 1,
                "openId": "external-user-001",
                "content": "查询今天的天气",
                "disabledMcpServerIds": [3],
                "disabledSkillIds": [2],
            },
        },
    ),
    answers=(_LINES, _FRAMES),
    more="Lines, unless `Accept` names `text/event-stream` and not `application/x-ndjson`.",
    finds=("agent",),
)
SEARCH = Operation(
    source=f"{SPEC} 5",
    body=Body(
        shape=SearchRequest,
        required=("ragId", "query"),
        examples={"a question": {"ragId": 1, "query": "How do I configure a model?"}},
    ),
    answers=(
        _given(
            "The best passages, the best first.",
            Envelope[Found],
            {
                "results": [
                    {
                        "chunkId": "12",
                        "content": "…",
                        "score": 0.83,
                        "documentId": 7,
                        "documentName": "a.md",
                        "metadata": {},
                    }
                ],
                "metrics": None,
            },
        ),
    ),
    finds=("knowledge",),
)


# Surface B ----------------------------------------------------------------------------------------------------------

_PAIR = (("app", "token"),)
_AGENT: dict[str, Any] = {
    "id": 1,
    "name": "Weather",
    "description": "",
    "avatar": None,
    "greeting": "",
    "presetQuestions": [],
    "mcpEnabled": False,
    "mcpServers": [],
    "skillEnabled": False,
    "skills": [],
    "webSearchEnabled": False,
    "viewCount": 0,
    "isFeatured": False,
    "status": 1,
    "createDt": "2026-04-13 13:07:10",
    "updateDt": "2026-04-13 13:07:10",
    "subscribed": None,
}
_USER = {"openId": _OPEN_ID, "externalId": "ann", "nickname": "Ann", "avatarUrl": None, "created": False}
_SHOWN = {
    "conversationId": _CONVERSATION,
    "agentId": 1,
    "title": "Weather",
    "createDt": "2026-04-13T13:07:10",
    "updateDt": "2026-04-13T13:07:54",
}
_WHERE = {"agentId": 1, "openId": _OPEN_ID}
_DONE = _given("Done.", Envelope[None], None)


def _on_b(
    answer: Answer,
    *more: Answer,
    body: Body | None = None,
    query: Query | None = None,
    finds: tuple[Noun, ...] = (),
    section: str = "7",
) -> Operation:
    return Operation(
        source=f"{SPEC} {section}",
        answers=(answer, *more),
        body=body,
        query=query,
        finds=finds,
        needs=_PAIR,
    )


AGENTS = _on_b(
    _given("Agents, the one changed last first.", Listed[list[Agent]], [_AGENT], page=1, size=50, total=1),
    query=Query(shape=Paged, example={"page": 1, "size": 50}),
)
AGENT = _on_b(
    _given("The agent.", Envelope[Agent], _AGENT),
    query=Query(shape=ForAgent, required=("agentId",), example={"agentId": 1}),
    finds=("agent",),
)
SUBSCRIBED = _on_b(
    _given("The agents that the user subscribed.", Envelope[list[Agent]], [{**_AGENT, "subscribed": True}]),
    query=Query(shape=ForUser, required=("openId",), example={"openId": _OPEN_ID}),
    finds=("user",),
)
SUBSCRIBE = _on_b(
    _DONE,
    body=Body(shape=Subscription, required=("openId", "agentId"), examples={"an agent": {**_WHERE}}),
    finds=("agent", "user"),
)
UNSUBSCRIBE = _on_b(
    _DONE, query=Query(shape=Subscription, required=("openId", "agentId"), example=_WHERE), finds=("user",)
)
REGISTER = _on_b(
    _given("The user; `created` says whether it is a new one.", Envelope[User], _USER),
    body=Body(shape=Registration, examples={"a user": {"externalId": "ann", "nickname": "Ann"}}),
)
USER = _on_b(
    _given("The user.", Envelope[User], _USER),
    query=Query(shape=ForUser, required=("openId",), example={"openId": _OPEN_ID}),
    finds=("user",),
)
CONVERSATIONS = _on_b(
    _given(
        "Conversations, the one changed last first.",
        Listed[list[Conversation]],
        [_SHOWN],
        page=1,
        size=20,
        total=1,
    ),
    query=Query(shape=ListedConversations, required=("agentId", "openId"), example=_WHERE),
    finds=("user",),
)
NEW_CONVERSATION = _on_b(
    _given("The conversation.", Envelope[Conversation], _SHOWN),
    body=Body(
        shape=NewConversation,
        required=("agentId", "openId", "title"),
        examples={"a conversation": {**_WHERE, "title": "Weather"}},
    ),
    finds=("agent", "user"),
)
OLD_CONVERSATIONS = _on_b(
    _DONE,
    query=Query(shape=OldConversations, required=("agentId", "openId"), example=_WHERE),
    finds=("user",),
)
MESSAGES = _on_b(
    _given(
        "What was said, oldest first; nothing for a conversation there is not.",
        Envelope[list[Message]],
        [
            {
                "role": "assistant",
                "content": "It is sunny.",
                "thinking": "look it up",
                "status": 1,
                "createDt": "2026-04-13T13:07:22",
            }
        ],
    ),
    query=Query(
        shape=MessagesOf,
        required=("agentId", "conversationId", "openId"),
        example={**_WHERE, "conversationId": _CONVERSATION},
    ),
    finds=("user",),
)
_TALK = Body(
    shape=Talk,
    required=("agentId", "openId", "content"),
    examples={"a message": {**_WHERE, "content": "What is the weather like?"}},
)
TALK = _on_b(_FRAMES, body=_TALK, finds=("agent", "user"), section="6")
TALK_SYNC = _on_b(
    _given(
        "The whole answer.",
        Envelope[Spoken],
        {"conversationId": _CONVERSATION, "content": "It is sunny.", "durationMs": 1450},
    ),
    body=_TALK,
    finds=("agent", "user"),
)
_ISSUED = _given(
    "The token, with which the user's browser calls surfaces A and C.",
    Envelope[EmbedToken],
    {
        "token": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
        "tokenType": "Snail-Ai-Auth",
        "authHeader": "Snail-Ai-Auth",
        "expiresAt": "2026-04-13 14:07:10",
        "ttlSeconds": 3600,
        "openId": _OPEN_ID,
        "nickname": "Ann",
        "avatarUrl": None,
    },
)
TOKEN = _on_b(
    _ISSUED,
    body=Body(shape=Embedding, required=("openId",), examples={"for an hour": {"openId": _OPEN_ID}}),
    finds=("user",),
)
TOKEN_BY_QUERY = _on_b(
    _ISSUED, query=Query(shape=Embedding, required=("openId",), example={"openId": _OPEN_ID}), finds=("user",)
)


# Surface C ----------------------------------------------------------------------------------------------------------


def _on_c(of_b: Operation, *, body: Body | None = None, query: Query | None = None) -> Operation:
    """The operation of surface B, for the user of the caller's token."""
    return Operation(
        source=f"{SPEC} 8",
        answers=of_b.answers,
        body=body,
        query=query,
        finds=of_b.finds,
        more="The token's user replaces any `openId` that is named.",
    )


CONFIG = Operation(
    source=f"{SPEC} 8",
    answers=(
        _given(
            "The page's configuration.",
            Envelope[Config],
            {"gatewayPath": C, "pageTitle": "Chat", "logo": "", "resourceBaseUrl": ""},
        ),
    ),
)
SESSION = Operation(
    source=f"{SPEC} 8",
    body=Body(
        shape=Session,
        required=("openId",),
        examples={
            "for an embed token": {
                "openId": _OPEN_ID,
                "trustedCredential": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
            }
        },
    ),
    answers=(_ISSUED,),
    finds=("user",),
    more="Without an embed token it works where one credential has `open_sessions`.",
)
_USERS = ("openId",)
"""What the caller's token says."""
_ONE: dict[str, Any] = {"agentId": 1}
_BY_AGENT = Query(shape=ForAgent, required=("agentId",), example=_ONE)
C_AGENTS = _on_c(AGENTS, query=AGENTS.query)
C_AGENT = _on_c(AGENT, query=_BY_AGENT)
C_SUBSCRIBED = _on_c(SUBSCRIBED)
C_SUBSCRIPTION = _on_c(
    UNSUBSCRIBE, query=Query(shape=Subscription, without=_USERS, required=("agentId",), example=_ONE)
)
C_CONVERSATIONS = _on_c(
    CONVERSATIONS,
    query=Query(shape=ListedConversations, without=_USERS, required=("agentId",), example=_ONE | {"size": 50}),
)
C_NEW_CONVERSATION = _on_c(
    NEW_CONVERSATION,
    body=Body(
        shape=NewConversation,
        without=_USERS,
        required=("agentId", "title"),
        examples={"a conversation": _ONE | {"title": "Weather"}},
    ),
)
C_OLD_CONVERSATIONS = _on_c(
    OLD_CONVERSATIONS, query=Query(shape=OldConversations, without=_USERS, required=("agentId",), example=_ONE)
)
C_MESSAGES = _on_c(
    MESSAGES,
    query=Query(
        shape=MessagesOf,
        without=_USERS,
        required=("agentId", "conversationId"),
        example=_ONE | {"conversationId": _CONVERSATION},
    ),
)
C_TALK = _on_c(
    TALK,
    body=Body(
        shape=Talk,
        without=_USERS,
        required=("agentId", "content"),
        examples={"a message": _ONE | {"content": "What is the weather like?"}},
    ),
)


# What all have in common --------------------------------------------------------------------------------------------

ABOUT = About(
    title="Snail AI",
    meaning="Three surfaces: A, `/snail-ai/open-api/`, is the documented one; B, `/snail-ai/openapi/v1/`, is what the"
    " vendor's released server and its Java client speak; C, `/api/snail/chat/`, is the gateway of its chat page.",
    refusal=Refused,
    schemes=(
        Scheme(
            name="auth",
            header=HEADER.title(),
            meaning="Surface A: a JWT (HS256) signed with the credential's secret, with the claims `appId` and `exp`;"
            " or the secret itself. Surface C: such a JWT with the claim `openId`.",
        ),
        Scheme(
            name="app",
            header=APP_ID.title(),
            meaning="Surface B: the credential's id.",
        ),
        Scheme(
            name="token",
            header=APP_TOKEN.title(),
            meaning="Surface B: the credential's secret.",
        ),
    ),
    needs=(("auth",),),
)
