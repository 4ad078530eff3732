"""Request bodies and queries. Source: wire specification ``xspace.md``, sections 3, 5 and 7.1."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import msgspec
from msgspec import Meta

from palaver.core.problems import Invalid, NotFound
from palaver.core.types import MAX_ID, AnyPart, File, Text, clean, parse_uid
from palaver.wire.bodies import fields, json_object, parse, valid_id
from palaver.wire.contract import Request, RequestType

MAX_TOPIC = 255
MAX_ICON = 500
MAX_PAGE = 100
"""Maximum number of items in a page."""
TARGET = "^[A-Za-z0-9_-]{1,64}$"
INT64 = "^-?[0-9]{1,18}$"
SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode white space, for a regular expression's character class."""
_SPACES = re.compile(f"[{SPACE}]+")
_NOT_BLANK = re.compile(f"[^{SPACE}]")
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_literals = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

S = TypeVar("S", bound=msgspec.Struct)


Topic = Annotated[
    str | None, Meta(description="The new topic, stored unchanged.", extra_json_schema={"maxLength": MAX_TOPIC})
]
Values = Annotated[dict[str, Any] | None, Meta(description="Values for the agent's instructions.")]
Limit = Annotated[
    int, Meta(description=f"Maximum number of items, 1 to {MAX_PAGE}; other values are clamped to this range.")
]
Download = Annotated[bool, Meta(description="Whether browsers save the file instead of showing it.")]


class TopicRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of ``POST /api/v1/chat/conversation/{conversationId}/update``."""

    first_message: Annotated[
        str | None, Meta(description="The user's first message; without `topic`, the topic is derived from it.")
    ] = None
    topic: Topic = None
    icon: Annotated[str | None, Meta(description="The topic's icon.", extra_json_schema={"maxLength": MAX_ICON})] = None


class AddRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of ``POST /api/v1/chat/conversation/add``."""

    agent_id: Annotated[int | None, Meta(description="The agent's id.")] = None
    topic: Topic = None
    variables: Values = None


class XSpaceCreateRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of ``POST /api/v1/conversation/create``."""

    variables: Values = None


class AttachmentRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """A file attached to a message: an uploaded file by its key, any other by its URL."""

    file_key: str | None = None
    file_url: str | None = None
    file_name: str | None = None
    mime_type: str | None = None


class XSpaceChatRequest(msgspec.Struct, kw_only=True, rename="camel"):
    """The body of ``POST /api/v1/chat/{conversationId}`` and of ``POST /api/v1/chat``."""

    message: Annotated[str | None, Meta(description="The user's message.")] = None
    conversation_id: Annotated[int | None, Meta(description="The conversation's id, unless the path contains it.")] = (
        None
    )
    attachments: Annotated[
        list[dict[str, Any]] | None,
        Meta(description="Files: `fileKey` of an uploaded one or `fileUrl`, and `fileName`, `mimeType`."),
    ] = None
    variable_params: Values = None


class ConversationListQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """The query of ``GET /api/v1/chat/conversation/list``."""

    agent_id: Annotated[int, Meta(description="The agent's id.")]
    last_id: Annotated[int | None, Meta(description="The last conversation of the previous page.")] = None
    limit: Limit = 10
    topic: Annotated[str | None, Meta(description="A substring of the topic.")] = None


class HistoryQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """The query of ``GET /api/v1/chat/{conversationId}/messages``."""

    index: Annotated[int | None, Meta(description="Only messages before this one.")] = None
    limit: Limit = 10


class SignedUrlQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """The query of ``GET /api/v1/file/ak``."""

    file_url: Annotated[str, Meta(description="The URL of a file that the end user has uploaded.")]
    download: Download = False


class StoredFileQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """The query of an uploaded file's URL."""

    ak: Annotated[str | None, Meta(description="A token that replaces the API key.")] = None
    download: Download = False


class UploadForm(msgspec.Struct, kw_only=True, rename="camel"):
    """The text fields of an upload form."""

    target_type: Annotated[
        str | None, Meta(description="Default `Default`.", extra_json_schema={"pattern": TARGET})
    ] = None
    target_id: Annotated[
        str | None, Meta(description="An integer; default -1.", extra_json_schema={"pattern": INT64})
    ] = None
    metadata: Annotated[str | None, Meta(description="Stored unchanged.")] = None


# Bodies -------------------------------------------------------------------------------------------------------------


def json_request(shape: type[S], *, empty_is_object: bool = False) -> RequestType[S]:
    """A JSON body. Strings of digits are accepted as numbers; other scalars are accepted as strings, a number as its
    literal text. Raises ``Invalid``."""

    def parse_body(request: Request) -> S:
        members = json_object(request.body, empty_is_object=empty_is_object)
        return parse(shape, _with_strings(shape, members, request.body), digits_are_numbers=True)

    return RequestType(shape=shape, parse=parse_body)


def _with_strings(shape: type[msgspec.Struct], members: dict[str, Any], source: bytes) -> dict[str, Any]:
    strings = [field.encode_name for field in fields(shape) if _is_string(field.type)]
    scalars = [name for name in strings if isinstance(members.get(name), int | float)]
    if not scalars:
        return members
    literals = _literals(source)
    return {**members, **{name: bytes(literals[name]).decode() for name in scalars}}


def _is_string(kind: Any) -> bool:
    """Whether a field's type is an optional string, with or without metadata."""
    return (str | None) in (kind, *get_args(kind)[:1])


def blank(text: str | None) -> bool:
    """Whether ``text`` is absent, empty, or only white space."""
    return text is None or _NOT_BLANK.search(text) is None


def requested_topic(body: TopicRequest) -> str | None:
    """The topic exactly as sent, or ``None`` if it is to be derived from the first message.

    Raises ``Invalid`` if both are blank, or a field is too long.
    """
    if blank(body.topic) and blank(body.first_message):
        raise Invalid(field="firstMessage", rule="required")
    topic = None if blank(body.topic) else valid_topic(body.topic)
    if body.icon is not None and len(body.icon) > MAX_ICON:
        raise Invalid(field="icon", rule="length", detail=f"more than {MAX_ICON} characters")
    return topic


def valid_topic(topic: str | None) -> str | None:
    """``topic``, or ``None`` if it is blank. Raises ``Invalid`` if it is too long."""
    if topic is None or blank(topic):
        return None
    if len(topic) > MAX_TOPIC:
        raise Invalid(field="topic", rule="length", detail=f"more than {MAX_TOPIC} characters")
    return topic


def topic_from(first_message: str) -> str:
    """The topic derived from a first message: its text on one line."""
    return _SPACES.sub(" ", first_message).strip(" ")[:MAX_TOPIC]


def parts_of(body: XSpaceChatRequest, request: Request) -> tuple[AnyPart, ...]:
    """The parts of the user's message. Raises ``Invalid`` if there are none."""
    text = "" if body.message is None else body.message
    parts: list[AnyPart] = [] if blank(text) else [Text(text=text)]
    for members in body.attachments or ():
        attachment = parse(AttachmentRequest, {name: _as_string(value) for name, value in members.items()})
        ref = attachment.file_key or file_ref(attachment.file_url or "", request)
        if ref:
            parts.append(File(ref=ref, name=attachment.file_name or "", media_type=attachment.mime_type or ""))
    if not parts:
        raise Invalid(field="message", rule="required")
    return tuple(parts)


def _as_string(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, int | float) else value


def file_ref(url: str, request: Request) -> str:
    """The key of the file if ``url`` points to this server, otherwise ``url`` itself."""
    prefix = f"{request.base_url.rstrip('/')}/api/f/"
    return unquote(url.removeprefix(prefix)) if url.startswith(prefix) else url


def conversation_ref(text: str) -> int | UUID:
    """A conversation's id or UUID in a path. Raises ``NotFound`` for any other text."""
    number = valid_id(int(text)) if _NUMBER.fullmatch(text) else None
    ref = parse_uid(text) if number is None else number
    if ref is None:
        raise NotFound(noun="conversation", ref=text[:80])
    return ref


# Queries ------------------------------------------------------------------------------------------------------------


def query_request(shape: type[S], convert: Callable[[dict[str, str]], S]) -> RequestType[S]:
    """Query parameters, converted to a ``shape`` by ``convert``; the last of repeated parameters wins."""

    def parse_query(request: Request) -> S:
        pairs = parse_qsl(request.query_string, keep_blank_values=True, errors="replace")
        return convert({name: clean(value) for name, value in pairs})

    return RequestType(shape=shape, parse=parse_query, location="query")


def list_query(parameters: dict[str, str]) -> ConversationListQuery:
    agent_id = _number(parameters, "agentId")
    if agent_id is None:
        raise Invalid(field="agentId", rule="required")
    topic = None if blank(parameters.get("topic")) else parameters["topic"]
    last_id = _number(parameters, "lastId")
    return ConversationListQuery(agent_id=agent_id, last_id=last_id, limit=_limit(parameters), topic=topic)


def history_query(parameters: dict[str, str]) -> HistoryQuery:
    return HistoryQuery(index=_number(parameters, "index"), limit=_limit(parameters))


def signed_url_query(parameters: dict[str, str]) -> SignedUrlQuery:
    url = parameters.get("fileUrl", "").strip()
    if not url:
        raise Invalid(field="fileUrl", rule="required")
    return SignedUrlQuery(file_url=url, download=_download(parameters))


def stored_file_query(parameters: dict[str, str]) -> StoredFileQuery:
    return StoredFileQuery(ak=parameters.get("ak"), download=_download(parameters))


def _number(parameters: dict[str, str], name: str) -> int | None:
    """An integer parameter, ``None`` if it is absent or empty. Raises ``Invalid``."""
    text = parameters.get(name, "").strip()
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        raise Invalid(field=name, rule="range", detail="not a number")
    return max(-MAX_ID, min(MAX_ID, int(text)))


def _limit(parameters: dict[str, str]) -> int:
    limit = _number(parameters, "limit")
    return 10 if limit is None else min(MAX_PAGE, max(1, limit))


def _download(parameters: dict[str, str]) -> bool:
    return parameters.get("download", "").lower() == "true"
