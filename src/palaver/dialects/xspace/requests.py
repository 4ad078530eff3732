"""What callers send. Source: wire specification ``xspace.md``, sections 3, 5 and 7.1."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar, get_args
from urllib.parse import parse_qsl, unquote
from uuid import UUID

import msgspec
from msgspec import Meta

from palaver.core.problems import Invalid, NotFound
from palaver.core.types import MAX_ID, AnyPart, File, Text, as_uid, clean
from palaver.wire.bodies import as_id, fields, json_object, parse
from palaver.wire.contract import Request

MAX_TOPIC = 255
MAX_ICON = 500
MOST = 100
"""The longest page of a list."""
TARGET = "^[A-Za-z0-9_-]{1,64}$"
INT64 = "^-?[0-9]{1,18}$"
SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode white space, as a class of a regular expression has it."""
_SPACES = re.compile(f"[{SPACE}]+")
_SAID = re.compile(f"[^{SPACE}]")
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_literals = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

S = TypeVar("S", bound=msgspec.Struct)


Topic = Annotated[
    str | None, Meta(description="The wanted topic, kept as it is.", extra_json_schema={"maxLength": MAX_TOPIC})
]
Values = Annotated[dict[str, Any] | None, Meta(description="Values for the agent's instructions.")]
Limit = Annotated[int, Meta(description=f"How many, 1 to {MOST}; outside of that the nearest.")]


class TopicRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /api/v1/chat/conversation/{conversationId}/update``."""

    firstMessage: Annotated[  # noqa: N815
        str | None, Meta(description="The user's first message; without `topic` it makes the topic.")
    ] = None
    topic: Topic = None
    icon: Annotated[str | None, Meta(description="The topic's icon.", extra_json_schema={"maxLength": MAX_ICON})] = None


class AddRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /api/v1/chat/conversation/add``."""

    agentId: Annotated[int | None, Meta(description="The agent's number.")] = None  # noqa: N815
    topic: Topic = None
    variables: Values = None


class XSpaceCreateRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /api/v1/conversation/create``."""

    variables: Values = None


class AttachmentRequest(msgspec.Struct, kw_only=True):
    """A file beside a message: an uploaded one by its key, any other by its address."""

    fileKey: str | None = None  # noqa: N815
    fileUrl: str | None = None  # noqa: N815
    fileName: str | None = None  # noqa: N815
    mimeType: str | None = None  # noqa: N815


class XSpaceChatRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /api/v1/chat/{conversationId}`` and of ``POST /api/v1/chat``."""

    message: Annotated[str | None, Meta(description="What the user says.")] = None
    conversationId: Annotated[  # noqa: N815
        int | None, Meta(description="The conversation's number, where the path does not name it.")
    ] = None
    attachments: Annotated[
        list[dict[str, Any]] | None,
        Meta(description="Files: `fileKey` of an uploaded one or `fileUrl`, and `fileName`, `mimeType`."),
    ] = None
    variableParams: Values = None  # noqa: N815


class ConversationListQuery(msgspec.Struct, kw_only=True):
    """The query of ``GET /api/v1/chat/conversation/list``."""

    agentId: Annotated[int, Meta(description="The agent's number.")]  # noqa: N815
    lastId: Annotated[  # noqa: N815
        int | None, Meta(description="The conversation behind which the list goes on.")
    ] = None
    limit: Limit = 10
    topic: Annotated[str | None, Meta(description="What the topic contains.")] = None


class HistoryQuery(msgspec.Struct, kw_only=True):
    """The query of ``GET /api/v1/chat/{conversationId}/messages``."""

    index: Annotated[int | None, Meta(description="The message before which the history ends.")] = None
    limit: Limit = 10


class AddressQuery(msgspec.Struct, kw_only=True):
    """The query of ``GET /api/v1/file/ak``."""

    fileUrl: Annotated[str, Meta(description="The address of an uploaded file of the end user.")]  # noqa: N815
    download: Annotated[bool, Meta(description="Whether a browser is to save the file instead of showing it.")] = False


class StoredQuery(msgspec.Struct, kw_only=True):
    """The query of a stored file's address."""

    ak: Annotated[str | None, Meta(description="The token that stands in for a key.")] = None
    download: Annotated[bool, Meta(description="Whether a browser is to save the file instead of showing it.")] = False


class UploadForm(msgspec.Struct, kw_only=True):
    """The fields of an uploaded form that are no files."""

    targetType: Annotated[  # noqa: N815
        str | None, Meta(description="`Default` where nothing is said.", extra_json_schema={"pattern": TARGET})
    ] = None
    targetId: Annotated[  # noqa: N815
        str | None, Meta(description="A number; -1 where nothing is said.", extra_json_schema={"pattern": INT64})
    ] = None
    metadata: Annotated[str | None, Meta(description="Kept as it is.")] = None


def body_of(shape: type[S], request: Request, *, empty_is_object: bool = False) -> S:
    """The call's body as a ``shape``: digits count as numbers, and where a text is due other scalars become one, a
    number the digits it was written with. Raises ``Invalid``."""
    members = json_object(request.body, empty_is_object=empty_is_object)
    return parse(shape, _with_texts(shape, members, request.body), digits_are_numbers=True)


def _with_texts(shape: type[msgspec.Struct], members: dict[str, Any], source: bytes) -> dict[str, Any]:
    due = [field.encode_name for field in fields(shape) if _is_text(field.type)]
    loose = [name for name in due if isinstance(members.get(name), int | float)]
    if not loose:
        return members
    written = _literals(source)
    return {**members, **{name: bytes(written[name]).decode() for name in loose}}


def _is_text(kind: Any) -> bool:
    """Whether a field takes a text or nothing, whatever is said about it."""
    return (str | None) in (kind, *get_args(kind)[:1])


def blank(text: str | None) -> bool:
    return text is None or _SAID.search(text) is None


def requested_topic(body: TopicRequest) -> str | None:
    """The topic exactly as sent; ``None`` where only a first message is there to make one of.

    Raises ``Invalid`` where there is neither, or one is too long.
    """
    if blank(body.topic) and blank(body.firstMessage):
        raise Invalid(field="firstMessage", rule="required")
    topic = None if blank(body.topic) else valid_topic(body.topic)
    if body.icon is not None and len(body.icon) > MAX_ICON:
        raise Invalid(field="icon", rule="length", detail=f"more than {MAX_ICON} characters")
    return topic


def valid_topic(topic: str | None) -> str | None:
    """``topic`` unless it is blank. Raises ``Invalid`` for one that is too long."""
    if blank(topic):
        return None
    assert topic is not None
    if len(topic) > MAX_TOPIC:
        raise Invalid(field="topic", rule="length", detail=f"more than {MAX_TOPIC} characters")
    return topic


def topic_of(first_message: str) -> str:
    """The topic that a first message makes: its content in one line."""
    return _SPACES.sub(" ", first_message).strip(" ")[:MAX_TOPIC]


def parts_of(body: XSpaceChatRequest, request: Request) -> tuple[AnyPart, ...]:
    """What the user says. Raises ``Invalid`` for nothing at all."""
    text = "" if body.message is None else body.message
    parts: list[AnyPart] = [] if blank(text) else [Text(text=text)]
    for members in body.attachments or ():
        attachment = parse(AttachmentRequest, {name: _as_text(value) for name, value in members.items()})
        ref = attachment.fileKey or key_in(attachment.fileUrl or "", request)
        if ref:
            parts.append(File(ref=ref, name=attachment.fileName or "", media_type=attachment.mimeType or ""))
    if not parts:
        raise Invalid(field="message", rule="required")
    return tuple(parts)


def _as_text(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, int | float) else value


def key_in(address: str, request: Request) -> str:
    """The key of a file of ours in its address; any other address as it is."""
    ours = f"{request.base_url.rstrip('/')}/api/f/"
    return unquote(address.removeprefix(ours)) if address.startswith(ours) else address


def conversation_ref(text: str) -> int | UUID:
    """A conversation's number or UUID as a path names it; anything else names none."""
    number = as_id(int(text)) if _NUMBER.fullmatch(text) else None
    ref = as_uid(text) if number is None else number
    if ref is None:
        raise NotFound(noun="conversation", ref=text[:80])
    return ref


def query_of(request: Request) -> dict[str, str]:
    """The query's parameters; of a repeated one the last counts."""
    pairs = parse_qsl(request.query_string, keep_blank_values=True, errors="replace")
    return {name: clean(value) for name, value in pairs}


def number_in(query: dict[str, str], name: str) -> int | None:
    """A number of the query, ``None`` where it is absent or empty. Raises ``Invalid``."""
    text = query.get(name, "").strip()
    if not text:
        return None
    if not _INTEGER.fullmatch(text):
        raise Invalid(field=name, rule="range", detail="not a number")
    return max(-MAX_ID, min(MAX_ID, int(text)))


def limit_in(query: dict[str, str], name: str = "limit", *, default: int = 10) -> int:
    """How many are wanted: 1 to 100."""
    limit = number_in(query, name)
    return default if limit is None else min(MOST, max(1, limit))


def list_query(request: Request) -> ConversationListQuery:
    query = query_of(request)
    number = number_in(query, "agentId")
    if number is None:
        raise Invalid(field="agentId", rule="required")
    topic = None if blank(query.get("topic")) else query["topic"]
    return ConversationListQuery(agentId=number, lastId=number_in(query, "lastId"), limit=limit_in(query), topic=topic)


def address_query(request: Request) -> AddressQuery:
    query = query_of(request)
    url = query.get("fileUrl", "").strip()
    if not url:
        raise Invalid(field="fileUrl", rule="required")
    return AddressQuery(fileUrl=url, download=_is_download(query))


def stored_query(request: Request) -> StoredQuery:
    query = query_of(request)
    return StoredQuery(ak=query.get("ak"), download=_is_download(query))


def _is_download(query: dict[str, str]) -> bool:
    return query.get("download", "").lower() == "true"


def history_query(request: Request) -> HistoryQuery:
    query = query_of(request)
    return HistoryQuery(index=number_in(query, "index"), limit=limit_in(query))
