"""Request bodies, queries and headers. Source: ``docs/native.md``, sections 3 and 5 to 8."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
from msgspec import Meta

from palaver.core.problems import Invalid, NotFound, Noun
from palaver.core.types import Conversation, Ref, clean, parse_id, parse_uid
from palaver.wire.bodies import json_object, parse, valid_id
from palaver.wire.contract import Request, RequestType

S = TypeVar("S", bound=msgspec.Struct)
MAX_TITLE = 255
MAX_FILES = 20
MAX_FILE_NAME = 255
MAX_PAGE = 100
PAGE = 20
MAX_CURSOR = 2**53 - 1
"""The largest whole number that JavaScript reads exactly."""
WAIT_S = 300
"""Seconds that a call without streaming waits for the run's end, unless it sends ``Prefer: wait=``."""
_DIGITS = re.compile(r"[0-9]{1,16}", re.ASCII)
_BEHIND = re.compile(r"([0-9]{1,17})-([0-9]{1,16})", re.ASCII)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(?:[ \t]*;[\x20-\x7e]*)?", re.ASCII | re.IGNORECASE)
_PREFERS = re.compile(r"(respond-async|wait)(?:[ \t]*=[ \t]*\"?([0-9]{1,9})\"?)?", re.ASCII | re.IGNORECASE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


AgentIdentifier = Annotated[int | str | None, Meta(description="An agent's `id`, `uid` or alias.")]
Values = Annotated[dict[str, Any] | None, Meta(description="Values for `{{name}}` in the agent's instructions.")]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE, description="The page size.")]
Place = Annotated[int, Meta(ge=0, le=MAX_CURSOR)]


class CreateConversationRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST conversations``. Fields are checked in this order."""

    agent: AgentIdentifier = None
    title: Annotated[str | None, Meta(extra_json_schema={"maxLength": MAX_TITLE})] = None
    variables: Values = None


class SendMessageRequest(msgspec.Struct, kw_only=True):
    """The body of both calls that send a message; only ``POST messages`` reads ``agent``."""

    agent: Annotated[int | str | None, Meta(description="For a new conversation: an agent's `id`, `uid` or alias.")] = (
        None
    )
    content: Annotated[str | None, Meta(description="The user's message; required unless there are files.")] = None
    files: Annotated[
        list[str] | None,
        Meta(description="Keys of uploaded files, or URLs.", extra_json_schema={"maxItems": MAX_FILES}),
    ] = None
    variables: Values = None
    stream: Annotated[bool | None, Meta(description="Stream events; defaults to the preference in `Accept`.")] = None


class SetTitleRequest(msgspec.Struct, kw_only=True):
    """The body of ``PUT conversations/{conversation}/title``."""

    title: Annotated[str | None, Meta(extra_json_schema={"maxLength": MAX_TITLE})] = None


class NativeConversationsQuery(msgspec.Struct, kw_only=True):
    """The query of ``GET conversations``."""

    agent: Annotated[str | None, Meta(description="Only conversations with this agent.")] = None
    q: Annotated[str | None, Meta(description="Only conversations whose title contains this text.")] = None
    limit: Limit = PAGE
    after: Annotated[str | None, Meta(description="The `next` of the previous page.")] = None


class NativeMessagesQuery(msgspec.Struct, kw_only=True):
    """The query of ``GET conversations/{conversation}/messages``."""

    limit: Limit = PAGE
    before: Annotated[Place | None, Meta(description="Only messages before the one with this `id`.")] = None
    after: Annotated[Place | None, Meta(description="Only messages after the one with this `id`.")] = None


class EventsQuery(msgspec.Struct, kw_only=True):
    """The query of ``GET runs/{uid}/events``."""

    after: Annotated[Place | None, Meta(description="The cursor to continue from.")] = None


class UploadQuery(msgspec.Struct, kw_only=True):
    """The query of ``POST files``."""

    name: Annotated[str, Meta(description="The file's name.", extra_json_schema={"maxLength": MAX_FILE_NAME})] = "file"


def json_request(shape: type[S], check: Callable[[S], None] = lambda _: None) -> RequestType[S]:
    """A JSON object. ``check`` raises ``Invalid``."""

    def parse_body(request: Request) -> S:
        body = parse(shape, json_object(request.body))
        check(body)
        return body

    return RequestType(shape=shape, parse=parse_body)


def query_request(shape: type[S], parse: Callable[[Request], S]) -> RequestType[S]:
    return RequestType(shape=shape, parse=parse, location="query")


def blank(text: str | None) -> bool:
    return text is None or not text.strip()


def ref_of(value: int | str, noun: Noun) -> Ref:
    """The ref of an agent or conversation in a request: digits are an ``id``, other text is a ``uid`` or an alias.

    Raises ``NotFound`` for a number that is not an id.
    """
    if isinstance(value, str):
        return parse_id(value) or value
    number = valid_id(value)
    if number is None:
        raise NotFound(noun=noun)
    return number


def run_of(request: Request) -> UUID:
    """The uid of the run in the path. Raises ``NotFound`` if it is malformed."""
    uid = parse_uid(request.path_params["uid"])
    if uid is None:
        raise NotFound(noun="run")
    return uid


def check_message(body: SendMessageRequest) -> None:
    """Raises ``Invalid`` for the first violated rule."""
    files = body.files or []
    if blank(body.content) and not files:
        raise Invalid(field="content", rule="required")
    if len(files) > MAX_FILES or any(map(blank, files)):
        raise Invalid(field="files", rule="length", detail=f"more than {MAX_FILES}, or a blank one")


def title_of(title: str | None) -> str | None:
    """The title to store; ``None`` if it is blank. Raises ``Invalid`` if it is too long."""
    if title is None or blank(title):
        return None
    if len(title) > MAX_TITLE:
        raise Invalid(field="title", rule="length", detail=f"more than {MAX_TITLE} characters")
    return title


# Queries and headers ------------------------------------------------------------------------------------------------


def query_of(request: Request) -> dict[str, str]:
    """The query parameters: the last of repeated ones wins, and an empty one equals absent."""
    query = request.query_string.encode("latin-1").decode("utf-8", "replace")  # some clients do not percent-encode
    pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    return {name: clean(value) for name, value in dict(pairs).items() if value}


def conversations_query(request: Request) -> NativeConversationsQuery:
    """Raises ``Invalid``."""
    query = query_of(request)
    return NativeConversationsQuery(
        agent=query.get("agent"), q=query.get("q"), limit=_limit_in(query), after=query.get("after")
    )


def messages_query(request: Request) -> NativeMessagesQuery:
    """Raises ``Invalid``."""
    query = query_of(request)
    before, after = _number_in(query, "before"), _number_in(query, "after")
    if before is not None and after is not None:
        raise Invalid(field="before", rule="choice", detail="not together with after")
    return NativeMessagesQuery(limit=_limit_in(query), before=before, after=after)


def upload_query(request: Request) -> UploadQuery:
    """Raises ``Invalid``."""
    name = query_of(request).get("name", "file")
    if "\ufffd" in name:
        raise Invalid(field="name", rule="type", detail="not UTF-8")
    if len(name) > MAX_FILE_NAME:
        raise Invalid(field="name", rule="length", detail=f"more than {MAX_FILE_NAME} characters")
    return UploadQuery(name=name)


def events_query(request: Request) -> EventsQuery:
    """Raises ``Invalid``. ``Last-Event-ID`` takes precedence over ``after``: a reconnecting EventSource repeats its
    original URL."""
    last = request.headers.get("last-event-id", "")
    return EventsQuery(after=_whole(last, "Last-Event-ID") if last else _number_in(query_of(request), "after"))


def _limit_in(query: dict[str, str]) -> int:
    limit = _number_in(query, "limit")
    if limit is None:
        return PAGE
    if not 1 <= limit <= MAX_PAGE:
        raise Invalid(field="limit", rule="range", detail=f"not in 1 to {MAX_PAGE}")
    return limit


def _number_in(query: dict[str, str], name: str) -> int | None:
    return None if name not in query else _whole(query[name], name)


def _whole(text: str, name: str) -> int:
    if not _DIGITS.fullmatch(text) or int(text) > MAX_CURSOR:
        raise Invalid(field=name, rule="range", detail="not a whole number below 2**53")
    return int(text)


def cursor_after(conversation: Conversation) -> str:
    """The cursor of the page after the conversation."""
    return f"{(conversation.modified - _EPOCH) // timedelta(microseconds=1)}-{conversation.id}"


def parse_cursor(after: str | None) -> tuple[datetime, int] | None:
    """The inverse of ``cursor_after``; ``None`` for the first page. Raises ``Invalid``."""
    if after is None:
        return None
    match = _BEHIND.fullmatch(after)
    if match is None:
        raise Invalid(field="after", rule="range", detail="not a 'next' of this list")
    return _EPOCH + timedelta(microseconds=int(match[1])), int(match[2])


def wants_events(request: Request, body: SendMessageRequest) -> bool:
    """Whether to stream the answer: ``stream`` in the body takes precedence over ``Accept``."""
    if body.stream is not None:
        return body.stream
    return "text/event-stream" in request.headers.get("accept", "").lower()


def preferred_wait(request: Request) -> tuple[int, str]:
    """(seconds to wait for the complete answer, the applied preferences of ``Prefer``). Source: RFC 7240."""
    matches = [_PREFERS.fullmatch(one.strip(" \t")) for one in request.headers.get("prefer", "").split(",")]
    preferences = {match[1].lower(): match[2] for match in matches if match}
    applied = ["respond-async"] if "respond-async" in preferences else []
    if preferences.get("wait") is None:
        return (0 if applied else WAIT_S), ", ".join(applied)
    seconds = min(WAIT_S, int(preferences["wait"]))
    return seconds, ", ".join([*applied, f"wait={seconds}"])


def media_type_of(request: Request) -> str:
    media_type = request.headers.get("content-type", "")
    return (
        media_type
        if len(media_type) <= MAX_FILE_NAME and _MEDIA_TYPE.fullmatch(media_type)
        else "application/octet-stream"
    )
