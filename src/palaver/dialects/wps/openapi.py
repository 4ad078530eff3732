"""OpenAPI descriptions of this dialect's operations, with the vendor's own examples where its page has them.

Source: the vendor's page "创建对话", and the wire specification ``wps.md``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from palaver.core.types import Agent, AgentSpec, Message, Text
from palaver.dialects.wps.auth import SCOPES
from palaver.dialects.wps.errors import WpsError
from palaver.dialects.wps.requests import (
    CancelChatRequest,
    ConsentRequest,
    TokenRequest,
)
from palaver.dialects.wps.responses import (
    AppDetail,
    ChatCreated,
    EmptyObject,
    OAuthError,
    SessionId,
    SessionListItem,
    SessionMessage,
    SessionResponse,
    TokenError,
    TokenResponse,
    WpsPage,
    WpsVariable,
    envelope,
    token_error,
)
from palaver.dialects.wps.settings import DATE_WINDOW_S, EVENT_STREAM, NDJSON
from palaver.dialects.wps.stream import WpsEncoder, WpsStreamOptions
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

SPEC = "wire specification `wps.md`, section"


def _success(meaning: str, data: object, *, headers: tuple[Parameter, ...] = ()) -> ResponseSpec:
    body = msgspec.to_builtins(envelope(data))
    return ResponseSpec(meaning=meaning, examples={"success": body}, headers=headers)


# Operations ---------------------------------------------------------------------------------------------------------

_SESSION, _CHAT = "7038a190-c4e9-44c3-9305-f560266be942", "a550de06-0198-4a57-a5cd-75000522bf1d"
_APP = "72cdefc1-940c-428d-bd8e-198386f3de5c"
_WHEN = datetime(2025, 5, 9, 7, 3, 47, 532881, UTC)


def _example_stream() -> str:
    agent = Agent(app=1, id=1, uid=UUID(int=1), spec=AgentSpec(name="Weather"), created=_WHEN, modified=_WHEN)
    parts = (Text(text="What is the weather like?"),)
    question = Message(app=1, id=1, uid=UUID(int=2), conversation=1, role="user", parts=parts, created=_WHEN)
    answer = Message(app=1, id=2, uid=UUID(_CHAT), conversation=1, role="assistant", created=_WHEN)
    encoder = WpsEncoder(_SESSION, agent, question, answer, WpsStreamOptions())
    now = _WHEN.timestamp()
    return b"".join(piece for event in example_run() for piece in encoder.encode(event, now)).decode()


_ID_HEADERS = (
    Parameter(name="X-Chat-Id", meaning="As `chat_id`."),
    Parameter(name="X-Session-Id", meaning="As `session_id`, percent-encoded if necessary."),
)
_EVENTS = "The answer as it is generated: one JSON object and an empty line per event."

SAY = Operation(
    source=f'the vendor\'s page "创建对话"; {SPEC}s 4 and 5',
    body=BodySpec(
        required=("text",),
        examples={
            "the vendor's": {
                "files": ["string"],
                "session_id": "string",
                "stream": True,
                "text": "string",
                "variables": [{"key": "string", "value": "string"}],
            },
            "a message": {"text": "What is the weather like?", "stream": True},
        },
    ),
    responses=(
        _success(
            "Accepted; read the answer from the messages endpoint.",
            ChatCreated(session_id=_SESSION, chat_id=_CHAT),
            headers=_ID_HEADERS,
        ),
        ResponseSpec(meaning=_EVENTS, media_type=EVENT_STREAM, examples={"a turn": _example_stream()}),
        ResponseSpec(meaning=_EVENTS, media_type=NDJSON),
    ),
    more=f"One question and its answer. With `stream`, the answer is streamed as `{EVENT_STREAM}`, or as"
    f" `{NDJSON}` if set in the credential's `stream_media_type`.",
    not_found=("agent", "conversation"),
)
CANCEL = Operation(
    source=f"{SPEC} 6.1",
    responses=(_success("Stopped, or no longer running.", EmptyObject()),),
    not_found=("agent",),
)
CANCEL_NAMED = Operation(
    source=f"{SPEC} 6.1",
    body=BodySpec(examples={"a chat": {"chat_id": _CHAT}}, empty=True),
    query=QuerySpec(shape=CancelChatRequest),
    responses=CANCEL.responses,
    more="`chat_id` may be in the body or in the query.",
    not_found=("agent",),
)
CREATE = Operation(
    source=f"{SPEC} 6.1",
    body=BodySpec(examples={"with a name": {"name": "Weather"}}, empty=True),
    responses=(_success("The new session.", SessionId(session_id=_SESSION)),),
    not_found=("agent",),
)
SESSIONS = Operation(
    source=f"{SPEC} 6.1",
    query=QuerySpec(required=("page_size",), example={"page_size": 20}),
    responses=(
        _success(
            "The end user's sessions with the agent, most recently changed first.",
            WpsPage(
                items=(SessionListItem(session_id=_SESSION, name="Weather", ctime=1746774227, mtime=1746774230),),
                next_page_token="",
            ),
        ),
    ),
    not_found=("agent",),
)
MESSAGES = Operation(
    source=f"{SPEC} 6.2",
    query=QuerySpec(required=("session_id",), example={"session_id": _SESSION}),
    responses=(
        _success(
            "The messages, oldest first.",
            WpsPage(
                items=(
                    SessionMessage(
                        id=_CHAT,
                        chat_id=_CHAT,
                        session_id=_SESSION,
                        role="assistant",
                        text="It is sunny.",
                        files=(),
                        state="complete",
                        error=False,
                        timestamp="2025-05-09T07:03:47.532881",
                    ),
                ),
                next_page_token="",
            ),
        ),
    ),
    not_found=("agent", "conversation"),
)
NAME = Operation(
    source=f"{SPEC} 6.1",
    responses=(_success("The session's name.", SessionResponse(session_id=_SESSION, name="Weather")),),
    more="If none is set, the beginning of the first message.",
    not_found=("conversation",),
)
DELETE = Operation(
    source=f"{SPEC} 6.1",
    responses=(_success("Deleted, with its messages.", EmptyObject()),),
    not_found=("conversation",),
)
DETAIL = Operation(
    source=f"{SPEC} 6.1",
    responses=(
        _success(
            "The agent.",
            AppDetail(
                app_id=_APP,
                name="Weather",
                description="",
                icon=None,
                variables=(WpsVariable(key="city", required=False, description=""),),
            ),
        ),
    ),
    not_found=("agent",),
)


def _token_error(error: OAuthError, reason: str) -> dict[str, Any]:
    return msgspec.to_builtins(token_error(error, reason))


_ISSUED = TokenResponse(access_token="kso_at_0123", expires_in=7200, token_type="bearer")  # noqa: S106  an example

TOKENS = Operation(
    source=f"{SPEC} 2.3",
    body=BodySpec(
        shape=TokenRequest,
        required=("grant_type", "client_id", "client_secret"),
        media_type="application/x-www-form-urlencoded",
        examples={
            "for the credential itself": {
                "grant_type": "client_credentials",
                "client_id": "AK0123456789abcdef",
                "client_secret": "0123456789abcdef0123456789abcdef",
            }
        },
    ),
    responses=(
        ResponseSpec(
            meaning="The token.",
            shape=TokenResponse,
            examples={"success": msgspec.to_builtins(_ISSUED)},
        ),
        ResponseSpec(
            meaning="No token was issued.",
            status=400,
            shape=TokenError,
            examples={"a used code": _token_error("invalid_grant", "code is unknown, used or expired")},
        ),
        ResponseSpec(
            meaning="Unknown credential or wrong secret.",
            status=401,
            shape=TokenError,
            examples={"a wrong secret": _token_error("invalid_client", "client_id or client_secret is wrong")},
        ),
    ),
)
CONSENT = Operation(
    source=f"{SPEC} 2.4",
    query=QuerySpec(
        shape=ConsentRequest,
        required=("client_id", "redirect_uri", "response_type", "scope"),
        example={
            "client_id": "AK0123456789abcdef",
            "redirect_uri": "https://example.com/callback",
            "response_type": "code",
            "scope": SCOPES[0],
        },
    ),
    responses=(
        ResponseSpec(
            meaning="Redirect to the application, with `code` or `error` in the query.",
            status=302,
            media_type="",
            headers=(Parameter(name="Location", meaning="The `redirect_uri` with these fields added."),),
        ),
        ResponseSpec(
            meaning="Unknown credential or unregistered URI.",
            status=400,
            shape=TokenError,
            examples={"another address": _token_error("invalid_request", "redirect_uri is not registered")},
        ),
        ResponseSpec(
            meaning="The credential has no `auto_approve_user`; an HTML page explains this.",
            status=403,
            media_type="text/html",
        ),
    ),
    more=f"Scopes: {', '.join(f'`{scope}`' for scope in SCOPES)}.",
)


# Common to all operations -------------------------------------------------------------------------------------------

INFO = DialectInfo(
    title="WPS open platform, agent chat",
    meaning="Requests are signed with KSO-1; an additional user token identifies the end user. The vendor's paths are"
    " served in every spelling it published.",
    refusal=WpsError,
    schemes=(
        SecurityScheme(
            name="signature",
            header="X-Kso-Authorization",
            meaning="`KSO-1 APPID:SIGNATURE`: HMAC-SHA256, keyed with APPKEY, of the concatenation of `KSO-1`, method,"
            " path with query, `Content-Type`, `X-Kso-Date` and the body's SHA-256 (empty without a body).",
        ),
        SecurityScheme(
            name="date",
            header="X-Kso-Date",
            meaning=f"Time of signing, `Mon, 02 Jan 2006 15:04:05 GMT`; at most {DATE_WINDOW_S} s off.",
        ),
        SecurityScheme(
            name="token",
            kind="bearer",
            meaning="A user token from `/oauth2/token`. Sufficient on its own if the credential's `require_signature`"
            " is false; required if its `user_token` is `required`.",
        ),
    ),
    needs=(("signature", "date"), ("signature", "date", "token"), ("token",)),
    path=(
        Parameter(
            name="app_id",
            meaning="The agent: its UUID, an alias or its name.",
            example=_APP,
        ),
        Parameter(name="chat_id", meaning="From create chat.", example=_CHAT),
        Parameter(name="session_id", meaning="The session: its UUID or an alias.", example=_SESSION),
    ),
)
