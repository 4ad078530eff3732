"""What the OpenAPI document says of this dialect. Examples are the vendor's where its page has one.

Source: the vendor's page "对话接口", and the wire specification ``snail.md``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from palaver.core.problems import Noun
from palaver.dialects.snail.auth import APP_ID, APP_TOKEN, HEADER
from palaver.dialects.snail.errors import EVENT_STREAM, NDJSON, C, SnailError
from palaver.dialects.snail.responses import (
    TOKEN,
    ChatPageConfig,
    EmbedTokenResponse,
    SearchResponse,
    SnailAgent,
    SnailConversation,
    SnailEnvelope,
    SnailMessage,
    SnailPassage,
    SnailUser,
    SyncChatResponse,
    envelope,
    page_envelope,
)
from palaver.dialects.snail.stream import SnailNdjsonEncoder, SnailSseEncoder
from palaver.wire.contract import Encoder
from palaver.wire.operation import (
    BodySpec,
    DialectInfo,
    Operation,
    Parameter,
    QuerySpec,
    ResponseSpec,
    SecurityScheme,
    example_run,
)

SPEC = "wire specification `snail.md`, section"


def _response(meaning: str, body: SnailEnvelope[Any]) -> ResponseSpec:
    return ResponseSpec(meaning=meaning, examples={"success": msgspec.to_builtins(body)})


# Surface A ----------------------------------------------------------------------------------------------------------

_CONVERSATION, _OPEN_ID = "2f1c9d60-6a0e-4f7b-9b7d-0a1b2c3d4e5f", "3787cf89001f43bd832b7adeb8134d96"
_PLACE = Parameter(name="X-Conversation-Id", meaning="The conversation, percent-encoded where need be.")


def _spoken(encoder: Encoder) -> dict[str, str]:
    """The example of a stream, as its encoder writes it."""
    return {"a turn": b"".join(piece for event in example_run() for piece in encoder.encode(event, 0)).decode()}


_LINES = ResponseSpec(
    meaning="One JSON object a line: `thinking`, `text`, then `done`; a failure is an `error` line, after which the"
    " connection breaks.",
    media_type=NDJSON,
    examples=_spoken(SnailNdjsonEncoder(_CONVERSATION)),
    headers=(_PLACE,),
)
_FRAMES = ResponseSpec(
    meaning="Server-sent events: `thinking`, `text`, then `done` or `error`.",
    media_type=EVENT_STREAM,
    examples=_spoken(SnailSseEncoder(_CONVERSATION, "5c0d7f5e-7a40-4b0e-8d0a-3b6a1f2e9c11")),
    headers=(_PLACE,),
)

CHAT = Operation(
    source=f'the vendor\'s page "对话接口"; {SPEC} 4',
    body=BodySpec(
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
    responses=(_LINES, _FRAMES),
    more="Lines, unless `Accept` names `text/event-stream` and not `application/x-ndjson`.",
    not_found=("agent",),
)
SEARCH = Operation(
    source=f"{SPEC} 5",
    body=BodySpec(
        required=("ragId", "query"),
        examples={"a question": {"ragId": 1, "query": "How do I configure a model?"}},
    ),
    responses=(
        _response(
            "The best passages, the best first.",
            envelope(
                SearchResponse(
                    results=(
                        SnailPassage(
                            chunk_id="12",
                            content="…",
                            score=0.83,
                            document_id=7,
                            document_name="a.md",
                            metadata={},
                        ),
                    ),
                    metrics=None,
                )
            ),
        ),
    ),
    not_found=("knowledge",),
)


# Surface B ----------------------------------------------------------------------------------------------------------

_PAIR = (("app", "token"),)
_AGENT = SnailAgent(
    id=1,
    name="Weather",
    description="",
    avatar=None,
    greeting="",
    preset_questions=(),
    mcp_enabled=False,
    mcp_servers=(),
    skill_enabled=False,
    skills=(),
    web_search_enabled=False,
    view_count=0,
    is_featured=False,
    status=1,
    create_dt="2026-04-13 13:07:10",
    update_dt="2026-04-13 13:07:10",
    subscribed=None,
)
_USER = SnailUser(open_id=_OPEN_ID, external_id="ann", nickname="Ann", avatar_url=None, created=False)
_SHOWN = SnailConversation(
    conversation_id=_CONVERSATION,
    agent_id=1,
    title="Weather",
    create_dt="2026-04-13T13:07:10",
    update_dt="2026-04-13T13:07:54",
)
_WHERE = {"agentId": 1, "openId": _OPEN_ID}
_DONE = _response("Done.", envelope(None))


def _on_b(
    answer: ResponseSpec,
    *more: ResponseSpec,
    body: BodySpec | None = None,
    query: QuerySpec | None = None,
    finds: tuple[Noun, ...] = (),
    section: str = "7",
) -> Operation:
    return Operation(
        source=f"{SPEC} {section}",
        responses=(answer, *more),
        body=body,
        query=query,
        not_found=finds,
        needs=_PAIR,
    )


AGENTS = _on_b(
    _response(
        "Agents, the one changed last first.",
        page_envelope([_AGENT], page=1, size=50, total=1),
    ),
    query=QuerySpec(example={"page": 1, "size": 50}),
)
AGENT = _on_b(
    _response("The agent.", envelope(_AGENT)),
    query=QuerySpec(required=("agentId",), example={"agentId": 1}),
    finds=("agent",),
)
SUBSCRIBED = _on_b(
    _response(
        "The agents that the user subscribed.",
        envelope([replace(_AGENT, subscribed=True)]),
    ),
    query=QuerySpec(required=("openId",), example={"openId": _OPEN_ID}),
    finds=("user",),
)
SUBSCRIBE = _on_b(
    _DONE,
    body=BodySpec(required=("openId", "agentId"), examples={"an agent": {**_WHERE}}),
    finds=("agent", "user"),
)
UNSUBSCRIBE = _on_b(_DONE, query=QuerySpec(required=("openId", "agentId"), example=_WHERE), finds=("user",))
REGISTER = _on_b(
    _response("The user; `created` says whether it is a new one.", envelope(_USER)),
    body=BodySpec(examples={"a user": {"externalId": "ann", "nickname": "Ann"}}),
)
USER = _on_b(
    _response("The user.", envelope(_USER)),
    query=QuerySpec(required=("openId",), example={"openId": _OPEN_ID}),
    finds=("user",),
)
CONVERSATIONS = _on_b(
    _response(
        "Conversations, the one changed last first.",
        page_envelope([_SHOWN], page=1, size=20, total=1),
    ),
    query=QuerySpec(required=("agentId", "openId"), example=_WHERE),
    finds=("user",),
)
NEW_CONVERSATION = _on_b(
    _response("The conversation.", envelope(_SHOWN)),
    body=BodySpec(
        required=("agentId", "openId", "title"),
        examples={"a conversation": {**_WHERE, "title": "Weather"}},
    ),
    finds=("agent", "user"),
)
OLD_CONVERSATIONS = _on_b(
    _DONE,
    query=QuerySpec(required=("agentId", "openId"), example=_WHERE),
    finds=("user",),
)
MESSAGES = _on_b(
    _response(
        "What was said, oldest first; nothing for a conversation there is not.",
        envelope(
            [
                SnailMessage(
                    role="assistant",
                    content="It is sunny.",
                    thinking="look it up",
                    status=1,
                    create_dt="2026-04-13T13:07:22",
                )
            ]
        ),
    ),
    query=QuerySpec(
        required=("agentId", "conversationId", "openId"),
        example={**_WHERE, "conversationId": _CONVERSATION},
    ),
    finds=("user",),
)
_TALK = BodySpec(
    required=("agentId", "openId", "content"),
    examples={"a message": {**_WHERE, "content": "What is the weather like?"}},
)
TALK = _on_b(_FRAMES, body=_TALK, finds=("agent", "user"), section="6")
TALK_SYNC = _on_b(
    _response(
        "The whole answer.",
        envelope(SyncChatResponse(conversation_id=_CONVERSATION, content="It is sunny.", duration_ms=1450)),
    ),
    body=_TALK,
    finds=("agent", "user"),
)
_ISSUED = _response(
    "The token, with which the user's browser calls surfaces A and C.",
    envelope(
        EmbedTokenResponse(
            token="eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",  # noqa: S106  an example
            token_type=TOKEN,
            auth_header=TOKEN,
            expires_at="2026-04-13 14:07:10",
            ttl_seconds=3600,
            open_id=_OPEN_ID,
            nickname="Ann",
            avatar_url=None,
        )
    ),
)
EMBED_TOKEN = _on_b(
    _ISSUED,
    body=BodySpec(required=("openId",), examples={"for an hour": {"openId": _OPEN_ID}}),
    finds=("user",),
)
EMBED_TOKEN_BY_QUERY = _on_b(
    _ISSUED,
    query=QuerySpec(required=("openId",), example={"openId": _OPEN_ID}),
    finds=("user",),
)


# Surface C ----------------------------------------------------------------------------------------------------------


def _on_c(of_b: Operation, *, body: BodySpec | None = None, query: QuerySpec | None = None) -> Operation:
    """The operation of surface B, for the user of the caller's token."""
    return Operation(
        source=f"{SPEC} 8",
        responses=of_b.responses,
        body=body,
        query=query,
        not_found=of_b.not_found,
        more="The token's user replaces any `openId` that is named.",
    )


CONFIG = Operation(
    source=f"{SPEC} 8",
    responses=(
        _response(
            "The page's configuration.",
            envelope(ChatPageConfig(gateway_path=C, page_title="Chat", logo="", resource_base_url="")),
        ),
    ),
)
SESSION = Operation(
    source=f"{SPEC} 8",
    body=BodySpec(
        required=("openId",),
        examples={
            "for an embed token": {
                "openId": _OPEN_ID,
                "trustedCredential": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
            }
        },
    ),
    responses=(_ISSUED,),
    not_found=("user",),
    more="Without an embed token it works where one credential has `open_sessions`.",
)
_USERS = ("openId",)
"""What the caller's token says."""
_ONE: dict[str, Any] = {"agentId": 1}
_BY_AGENT = QuerySpec(required=("agentId",), example=_ONE)
C_AGENTS = _on_c(AGENTS, query=AGENTS.query)
C_AGENT = _on_c(AGENT, query=_BY_AGENT)
C_SUBSCRIBED = _on_c(SUBSCRIBED, query=QuerySpec(without=_USERS))
C_SUBSCRIPTION = _on_c(UNSUBSCRIBE, query=QuerySpec(without=_USERS, required=("agentId",), example=_ONE))
C_CONVERSATIONS = _on_c(
    CONVERSATIONS,
    query=QuerySpec(without=_USERS, required=("agentId",), example=_ONE | {"size": 50}),
)
C_NEW_CONVERSATION = _on_c(
    NEW_CONVERSATION,
    body=BodySpec(
        without=_USERS,
        required=("agentId", "title"),
        examples={"a conversation": _ONE | {"title": "Weather"}},
    ),
)
C_OLD_CONVERSATIONS = _on_c(OLD_CONVERSATIONS, query=QuerySpec(without=_USERS, required=("agentId",), example=_ONE))
C_MESSAGES = _on_c(
    MESSAGES,
    query=QuerySpec(
        without=_USERS,
        required=("agentId", "conversationId"),
        example=_ONE | {"conversationId": _CONVERSATION},
    ),
)
C_TALK = _on_c(
    TALK,
    body=BodySpec(
        without=_USERS,
        required=("agentId", "content"),
        examples={"a message": _ONE | {"content": "What is the weather like?"}},
    ),
)


# What all have in common --------------------------------------------------------------------------------------------

INFO = DialectInfo(
    title="Snail AI",
    meaning="Three surfaces: A, `/snail-ai/open-api/`, is the documented one; B, `/snail-ai/openapi/v1/`, is what the"
    " vendor's released server and its Java client speak; C, `/api/snail/chat/`, is the gateway of its chat page.",
    refusal=SnailError,
    schemes=(
        SecurityScheme(
            name="auth",
            header=HEADER.title(),
            meaning="Surface A: a JWT (HS256) signed with the credential's secret, with the claims `appId` and `exp`;"
            " or the secret itself. Surface C: such a JWT with the claim `openId`.",
        ),
        SecurityScheme(
            name="app",
            header=APP_ID.title(),
            meaning="Surface B: the credential's id.",
        ),
        SecurityScheme(
            name="token",
            header=APP_TOKEN.title(),
            meaning="Surface B: the credential's secret.",
        ),
    ),
    needs=(("auth",),),
)
