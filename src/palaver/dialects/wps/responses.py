"""Response bodies and their envelope, and how the vendor writes ids, names and times.

Source: the vendor's page, and the wire specification ``wps.md``, sections 2.3, 3, 4.2 and 6.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

import msgspec
from msgspec import Meta

from palaver.core.types import Agent, Conversation, Message
from palaver.dialects.wps.errors import DebugInfo, WpsError, WpsResponseModel
from palaver.wire.contract import ResponseType
from palaver.wire.responses import JSONValue, json_response

T = TypeVar("T")

TITLE_LENGTH = 16


class WpsEnvelope(WpsResponseModel, Generic[T], frozen=True, kw_only=True):
    """The envelope of every response except streams and tokens."""

    code: Annotated[int, Meta(description="0 for success.")]
    msg: str
    data: T


class EmptyObject(WpsResponseModel, frozen=True, kw_only=True):
    """No members."""


class WpsPage(WpsResponseModel, Generic[T], frozen=True, kw_only=True):
    items: tuple[T, ...]
    next_page_token: Annotated[str, Meta(description="Empty on the last page.")]


class ChatCreated(WpsResponseModel, frozen=True, kw_only=True):
    session_id: str
    chat_id: Annotated[str, Meta(description="For cancel chat.")]


class SessionId(WpsResponseModel, frozen=True, kw_only=True):
    session_id: str


class SessionResponse(SessionId, frozen=True, kw_only=True):
    name: str


class SessionListItem(SessionResponse, frozen=True, kw_only=True):
    ctime: Annotated[int, Meta(description="Creation time in Unix seconds.")]
    mtime: Annotated[int, Meta(description="Time of the last change in Unix seconds.")]


class SessionMessage(WpsResponseModel, frozen=True, kw_only=True):
    """A question or an answer."""

    id: str
    chat_id: str
    session_id: str
    role: Literal["user", "assistant"]
    text: str
    files: tuple[str, ...]
    state: Annotated[Literal["partial", "complete"], Meta(description="`partial` while the answer grows.")]
    error: bool
    timestamp: Annotated[str, Meta(description="Local time in the server's `timezone`, without an offset.")]
    events: Annotated[list[Any] | msgspec.UnsetType, Meta(description="The steps, with `with_event`.")] = msgspec.UNSET


class WpsVariable(WpsResponseModel, frozen=True, kw_only=True):
    key: str
    required: bool
    description: str


class AppDetail(WpsResponseModel, frozen=True, kw_only=True):
    app_id: Annotated[str, Meta(description="As in the path.")]
    name: str
    description: str
    icon: str | None
    variables: tuple[WpsVariable, ...]


class TokenResponse(WpsResponseModel, frozen=True, kw_only=True):
    access_token: str
    expires_in: Annotated[int, Meta(description="Seconds.")]
    refresh_token: str | msgspec.UnsetType = msgspec.UNSET
    refresh_expires_in: Annotated[int, Meta(description="Seconds.")] | msgspec.UnsetType = msgspec.UNSET
    token_type: Literal["bearer"]


OAuthError = Literal["invalid_request", "invalid_client", "invalid_grant", "unsupported_grant_type"]
_OAUTH_CODES: dict[OAuthError, int] = {
    "invalid_request": 40000001,
    "invalid_client": 40000002,
    "unsupported_grant_type": 40000003,
    "invalid_grant": 40000005,
}


class TokenError(WpsError, frozen=True, kw_only=True):
    """An error response of the OAuth endpoints, in both formats that clients read."""

    error: OAuthError
    error_description: str


def token_error(error: OAuthError, reason: str) -> TokenError:
    return TokenError(
        code=_OAUTH_CODES[error],
        msg=error,
        debug=DebugInfo(desc=reason),
        error=error,
        error_description=reason,
    )


def envelope(data: T) -> WpsEnvelope[T]:
    return WpsEnvelope(code=0, msg="success", data=data)


def ok_response(shape: type[T]) -> ResponseType[JSONValue[T]]:
    """A ``shape`` in the envelope."""
    return json_response(cast("Any", WpsEnvelope)[shape], lambda _request, data: envelope(data))


# From core's values -------------------------------------------------------------------------------------------------


def session_id_of(conversation: Conversation, requested: str | None = None) -> str:
    """A session's id: the alias if the caller used it, otherwise the UUID."""
    if requested is not None and requested == conversation.alias:
        return requested
    return str(conversation.uid)


def session_name(conversation: Conversation) -> str:
    """A session's title, or the beginning of its first message."""
    return conversation.opening[:TITLE_LENGTH] if conversation.title is None else conversation.title


def local_time(moment: datetime, zone: tzinfo) -> str:
    """A message's time, with microseconds and without a zone."""
    return moment.astimezone(zone).replace(tzinfo=None).isoformat(timespec="microseconds")


def session_list_item(conversation: Conversation) -> SessionListItem:
    return SessionListItem(
        session_id=session_id_of(conversation),
        name=session_name(conversation),
        ctime=int(conversation.created.timestamp()),
        mtime=int(conversation.modified.timestamp()),
    )


def message_response(
    message: Message, *, chat_id: str, session_id: str, zone: tzinfo, events: list[Any] | msgspec.UnsetType
) -> SessionMessage:
    ended = message.ended
    return SessionMessage(
        id=str(message.uid),
        chat_id=chat_id,
        session_id=session_id,
        role=message.role,
        text=message.text,
        files=tuple(file.ref for file in message.files),
        state="partial" if message.role == "assistant" and ended is None else "complete",
        error=ended is not None and ended.status.failed,
        timestamp=local_time(message.created, zone),
        events=events,
    )


def app_detail(agent: Agent, app_id: str) -> AppDetail:
    """An agent, with the ``app_id`` that the caller used."""
    spec = agent.spec
    return AppDetail(
        app_id=app_id,
        name=agent.name,
        description=spec.description,
        icon=spec.icon,
        variables=tuple(
            WpsVariable(key=variable.name, required=variable.required, description=variable.description)
            for variable in spec.variables
        ),
    )
