"""Request bodies and queries. Source: wire specification ``sonaops.md``, section 5.

Fields are checked in the order of their declaration.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from palaver.core.problems import Invalid
from palaver.dialects.sonaops.canonical import fields, trimmed
from palaver.wire.bodies import idempotency_key_header, json_object, parse
from palaver.wire.contract import Request, RequestType

RANGED = ("pageNum", "pageSize")
"""Numeric fields with bounds: a wrong type and an out-of-range value are different errors."""
DEFAULT_VOICE = "English_radiant_girl"
S = TypeVar("S", bound=msgspec.Struct)


Agent = Annotated[str | None, Meta(description="The agent's id, from `/v1/agent/list`.")]
Conversation = Annotated[str | None, Meta(description="A `conversationId` from `/v1/chat/conversation`.")]
Language = Annotated[str | None, Meta(description="The preferred language: `zh`, `en`, …")]


class SonaopsCreateRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of ``POST /v1/chat/conversation``."""

    agent_id: Agent = None


class AgentListRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body or the query of ``/v1/agent/list``."""

    page_num: Annotated[int, Meta(ge=1)] = 1
    page_size: Annotated[int, Meta(ge=1, le=100)] = 20
    language: Language = None


class ChatStreamRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of ``POST /v1/chat/stream``."""

    agent_id: Agent = None
    conversation_id: Conversation = None
    text: Annotated[str | None, Meta(description="The user's message.")] = None
    language: Language = None
    metadata: Annotated[dict[str, Any] | None, Meta(description="Values for the agent's instructions.")] = None


class InspirationRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of ``POST /v1/chat/inspiration``."""

    agent_id: Agent = None
    conversation_id: Conversation = None
    language: Language = None


class ImageRequest(ChatStreamRequest, kw_only=True, rename="camel"):
    """The body of ``POST /v1/chat/image``."""

    text: Annotated[str | None, Meta(description="A description of the image.")] = None
    metadata: Annotated[dict[str, Any] | None, Meta(description="Returned unchanged.")] = None


class SpeechRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of ``POST /v1/chat/tts``."""

    message_id: Annotated[str | None, Meta(description="From the event `message_saved`.")] = None
    processed_text: Annotated[str | None, Meta(description="The text to speak, without Markdown.")] = None
    voice_timbre_id: Annotated[str | None, Meta(description=f"A voice; default `{DEFAULT_VOICE}`.")] = None


def json_request(shape: type[S], *, idempotent: bool = False) -> RequestType[S]:
    """A JSON body; an empty one equals an empty object. If the route is ``idempotent``, ``Idempotency-Key`` is checked
    first. Raises ``Invalid`` for the first field with a wrong type or out of range."""

    def parse_body(request: Request) -> S:
        if idempotent:
            idempotency_key_header(request)
        return _convert(shape, json_object(request.body, empty_is_object=True))

    return RequestType(shape=shape, parse=parse_body)


def query_request(shape: type[S]) -> RequestType[S]:
    """Query parameters. Numbers are strings of digits, and blank parameters count as absent."""

    def parse_query(request: Request) -> S:
        members = {name: value for name, value in dict(fields(request.query_string)).items() if trimmed(value)}
        return _convert(shape, members, digits_are_numbers=True)

    return RequestType(shape=shape, parse=parse_query, location="query")


def required(field: str, value: str | None) -> str:
    """``value`` unchanged. Raises ``Invalid`` if it is absent or blank."""
    if value is None or not trimmed(value):
        raise Invalid(field=field, rule="required")
    return value


def _convert(shape: type[S], members: dict[str, Any], *, digits_are_numbers: bool = False) -> S:
    try:
        return parse(shape, members, digits_are_numbers=digits_are_numbers)
    except Invalid as problem:
        if problem.field in RANGED and _is_whole(members[problem.field], digits_are_numbers=digits_are_numbers):
            raise Invalid(field=problem.field, rule="range", detail=problem.detail) from problem
        raise


def _is_whole(value: Any, *, digits_are_numbers: bool) -> bool:
    if isinstance(value, str):
        text = value.strip().removeprefix("-")
        return digits_are_numbers and text.isascii() and text.isdigit()
    return isinstance(value, int) and not isinstance(value, bool)
