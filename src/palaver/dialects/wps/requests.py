"""Request bodies and queries. Source: the vendor's page, and the wire specification ``wps.md``, sections 4.1 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from palaver.core.problems import Invalid
from palaver.wire.bodies import idempotency_key_header, json_object, parse
from palaver.wire.contract import Request, RequestType

MAX_NAME = 255
MAX_PAGE = 100
PAGE = 20
MAX_FIELDS = 1000


class RunVariable(msgspec.Struct, kw_only=True):
    """A run variable."""

    key: str
    value: str | None = None


class CreateChatRequest(msgspec.Struct, kw_only=True):
    """The body of create chat."""

    text: Annotated[str | None, Meta(description="The user's message.")] = None
    stream: Annotated[
        bool | None, Meta(description="Whether to stream the answer. Default: true below `/v7/sse/`, otherwise false.")
    ] = None
    session_id: Annotated[str | None, Meta(description="If absent, a new session is created.")] = None
    files: Annotated[list[str] | None, Meta(description="IDs or URLs of files, stored with the message.")] = None
    variables: Annotated[list[RunVariable] | None, Meta(description="Values for the agent's instructions.")] = None

    @property
    def session(self) -> str | None:
        return self.session_id if self.session_id is not None and self.session_id.strip() else None

    @property
    def values(self) -> dict[str, Any]:
        """The run's variables. If a key is repeated, the last one wins."""
        return {pair.key: pair.value for pair in self.variables or () if pair.value is not None}


class CreateSessionRequest(msgspec.Struct, kw_only=True):
    """The body of create session."""

    name: Annotated[str | None, Meta(description="Its title.", extra_json_schema={"maxLength": MAX_NAME})] = None


class CancelChatRequest(msgspec.Struct, kw_only=True):
    """The body or query of cancel chat, when the path has no chat id."""

    chat_id: Annotated[str | None, Meta(description="From create chat.")] = None


Size = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
Next = Annotated[str, Meta(description="From the previous page; absent for the first page.")]


class WpsSessionsQuery(msgspec.Struct, kw_only=True):
    """The query of list sessions."""

    page_size: Size
    next_page_token: Next = ""


class WpsMessagesQuery(msgspec.Struct, kw_only=True):
    """The query of a session's messages."""

    session_id: str
    page_size: Size = PAGE
    with_event: Annotated[bool, Meta(description="Whether answers include their steps.")] = False
    next_page_token: Next = ""


class TokenRequest(msgspec.Struct, kw_only=True):
    """The form of ``/oauth2/token``."""

    grant_type: Annotated[
        str | None,
        Meta(extra_json_schema={"enum": ["authorization_code", "refresh_token", "client_credentials"]}),
    ] = None
    client_id: Annotated[str | None, Meta(description="APPID.")] = None
    client_secret: Annotated[str | None, Meta(description="APPKEY.")] = None
    code: Annotated[str | None, Meta(description="From the consent redirect, for `authorization_code`.")] = None
    redirect_uri: Annotated[str | None, Meta(description="The same as for the consent, for `authorization_code`.")] = (
        None
    )
    refresh_token: Annotated[str | None, Meta(description="For `refresh_token`.")] = None


class ConsentRequest(msgspec.Struct, kw_only=True):
    """The query of ``/oauth2/auth``."""

    client_id: Annotated[str | None, Meta(description="APPID.")] = None
    redirect_uri: Annotated[str | None, Meta(description="One registered with the credential.")] = None
    response_type: Annotated[str | None, Meta(description="`code`.")] = None
    scope: Annotated[str | None, Meta(description="Scopes, separated by commas.")] = None
    state: Annotated[str | None, Meta(description="Returned unchanged.")] = None


def _create_chat(request: Request) -> CreateChatRequest:
    """Missing fields are reported before malformed ones."""
    members = json_object(request.body)
    idempotency_key_header(request)
    required(members, "text")
    return parse(CreateChatRequest, members)


def _create_session(request: Request) -> CreateSessionRequest:
    members = json_object(request.body, empty_is_object=True)
    idempotency_key_header(request)
    body = parse(CreateSessionRequest, members)
    if body.name is not None and len(body.name) > MAX_NAME:
        raise Invalid(field="name", rule="length", detail=f"more than {MAX_NAME} characters")
    return body


def _cancel_chat(request: Request) -> CancelChatRequest:
    """The chat id from the body, otherwise from the query."""
    chat_id = parse(CancelChatRequest, json_object(request.body, empty_is_object=True)).chat_id
    members = form(request.query_string) if chat_id is None else {"chat_id": chat_id}
    return CancelChatRequest(chat_id=required(members, "chat_id"))


def _sessions_query(request: Request) -> WpsSessionsQuery:
    query = form(request.query_string)
    return WpsSessionsQuery(page_size=page_size(query), next_page_token=query.get("next_page_token", "").strip())


def _messages_query(request: Request) -> WpsMessagesQuery:
    query = form(request.query_string)
    return WpsMessagesQuery(
        session_id=required(query, "session_id"),
        page_size=page_size(query, PAGE),
        with_event=flag(query, "with_event"),
        next_page_token=query.get("next_page_token", "").strip(),
    )


CREATE_CHAT = RequestType(shape=CreateChatRequest, parse=_create_chat)
CREATE_SESSION = RequestType(shape=CreateSessionRequest, parse=_create_session)
CANCEL_CHAT = RequestType(shape=CancelChatRequest, parse=_cancel_chat)
SESSIONS_QUERY = RequestType(shape=WpsSessionsQuery, parse=_sessions_query, location="query")
MESSAGES_QUERY = RequestType(shape=WpsMessagesQuery, parse=_messages_query, location="query")


def required(members: Mapping[str, Any], name: str) -> Any:
    """The member ``name``. Raises ``Invalid`` if it is absent, null or blank."""
    value = members.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Invalid(field=name, rule="required")
    return value


def form(encoded: str) -> dict[str, str]:
    """The fields of a query or form. If one is repeated, the last wins. Raises ``Invalid`` if there are too many."""
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, errors="replace", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise Invalid(field="query", rule="length", detail=str(error)) from error
    return {name: value.replace("\0", "\ufffd") for name, value in pairs}


def page_size(query: Mapping[str, str], default: int | None = None) -> int:
    """The page size. Raises ``Invalid``, also if it is absent and there is no ``default``."""
    text = query.get("page_size", "").strip()
    if not text and default is not None:
        return default
    required(query, "page_size")
    if not text.isascii() or not text.isdigit() or len(text) > 3 or not 1 <= int(text) <= MAX_PAGE:
        raise Invalid(field="page_size", rule="range", detail=f"1 to {MAX_PAGE}")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A member that is ``true`` or ``false``; false if absent."""
    match query.get(name, "").strip().lower():
        case "true":
            return True
        case "" | "false":
            return False
        case text:
            raise Invalid(field=name, rule="choice", detail=f"{text[:40]!r} is neither true nor false")
