"""What ``http`` hands to a dialect and what it takes back.

A dialect is values in, values out: ``claim`` and ``verify`` say who calls, a route's ``handle`` does what was asked
and answers a ``Response`` or a ``StreamingResponse``, ``refuse`` turns any ``Problem`` into the vendor's form, and an
``Encoder`` turns a run's events into the vendor's bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from palaver.core.byte_source import ByteSource
from palaver.core.chat import Chat
from palaver.core.events import Event
from palaver.core.files import Files
from palaver.core.idempotency import Idempotency
from palaver.core.knowledge import KnowledgeBases
from palaver.core.media import Media
from palaver.core.problems import AnyProblem
from palaver.core.runs import RunReader
from palaver.core.types import ApiKey, Principal, Token
from palaver.core.users import Users
from palaver.wire.operation import JSON, DialectInfo, Operation
from palaver.wire.requirements import Requirement

T = TypeVar("T")

MAX_REQUEST_ID = 128
Method = Literal["GET", "POST", "PUT", "DELETE"]


class Headers(Mapping[str, str]):
    """Request headers: names case-insensitive, values trimmed; of a repeated one the last counts.

    Trimmed are spaces and tabs alone: 0x85 and 0xA0 are white space to Python, and here the end of a UTF-8 character.
    """

    __slots__ = ("_values",)

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._values = {name.decode("latin-1").lower(): value.decode("latin-1").strip(" \t") for name, value in raw}

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def request_id(headers: Headers) -> str | None:
    """The caller's own ``X-Request-ID`` as it wrote it; ``None`` where it sent none, or none that can be repeated."""
    header = headers.get("x-request-id", "")
    try:
        sent = header.encode("latin-1").decode()
    except UnicodeDecodeError:
        sent = header
    return sent if 0 < len(sent) <= MAX_REQUEST_ID and sent.isprintable() else None


class Upload(ByteSource, Protocol):
    """The body of a route that takes uploads. It need not be in memory."""

    def read(self, start: int, end: int) -> bytes: ...

    async def examine(self, work: Callable[[Upload], T]) -> T:
        """What ``work`` makes of it. It is done beside everything else: it may take as long as the upload is large."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. ``now`` is Unix seconds, ``trace`` the request's id in logs and in the vendors' trace members."""

    method: str
    path: str
    """Percent-decoded."""
    target: str
    """Path and query exactly as sent, for schemes that sign them."""
    headers: Headers
    route: str
    """The path of the route that serves it, with its ``{name}`` segments; empty where none does."""
    params: Mapping[str, str]
    """What the route's ``{name}`` segments matched, percent-decoded."""
    body: bytes
    """Empty where there is an ``upload``."""
    now: float
    trace: str
    origin: str = ""
    """``https://host`` the caller used."""
    upload: Upload | None = None
    """The body of a route with ``upload``."""
    language: str = "en-US"
    """The server's, for callers who do not say which one they read."""

    @property
    def raw_path(self) -> str:
        """As sent, without the query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """As sent, without the question mark."""
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    charged: bool = True
    """Whether the call counts towards the credential's ``total``."""
    pieces: AsyncIterator[bytes] | None = None
    """What goes out instead of ``body`` as it is taken, ``length`` bytes in all."""
    length: int | None = 0
    """``None``: it is not known before, and the end of the answer is marked in another way."""
    held: int = 0
    """Bytes of memory that an answer in pieces takes until it is taken."""
    writes: tuple[bytes, ...] = ()
    """What goes out write by write instead of ``body``: sent as a stream is, without a length, not to be cached."""


@runtime_checkable
class Punctual(Protocol):
    """An encoder whose writes keep a distance in time."""

    def written(self, now: float) -> None:
        """All that it gave so far has been handed to the socket, which may have had to wait for the reader."""
        ...


class Encoder(Protocol):
    """Turns one run's events into the vendor's bytes. Each item of what ``encode`` returns goes out as one write.

    ``encode`` must take any sequence of events that ``Draft`` takes, and owns the state that takes. ``now`` is Unix
    seconds.
    """

    aborts_on_failure: bool
    """Whether a failed run's stream ends abnormally, so that the reader notices the break."""
    always_heartbeat: bool
    """Whether heartbeats come at their interval in any case, and not only when nothing else does."""
    flush_at: float | None
    """When (Unix seconds) ``flush`` wants to be called if no event comes before; read after every ``encode``."""

    @property
    def heartbeat(self) -> bytes:
        """What an idle stream sends."""
        ...

    def encode(self, event: Event, now: float) -> list[bytes]: ...

    def flush(self, now: float) -> list[bytes]:
        """What was held back and goes out now, without a further event."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingResponse:
    """An answer that follows a run from where ``reader`` stands to its end."""

    reader: RunReader
    encoder: Encoder
    media_type: str
    headers: tuple[tuple[str, str], ...] = ()
    replayed: bool = False
    """Whether an equal call before began the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialClaim:
    """Which credential a caller says it has: by its id, by the secret (where that is all that is sent), or by an
    access token that stands for it. A token beside an id is looked up as well. ``signed``: the token is one that was
    signed, and not stored."""

    id: str | None = None
    secret: str | None = None
    token: str | None = None
    signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSettings:
    """What dialects show of the server's settings. Life times are in seconds."""

    timezone: tzinfo
    language: str
    token_ttl_s: float
    refresh_token_ttl_s: float
    code_ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a route's handler may use."""

    chat: Chat
    users: Users
    files: Files
    media: Media
    idempotency: Idempotency
    knowledge: KnowledgeBases
    settings: PublicSettings


Handler = Callable[[Request, Principal, Services], Awaitable[Response | StreamingResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method and path. ``{name}`` matches one segment, literal segments win over it."""

    method: Method
    path: str
    handle: Handler
    purpose: str
    idempotent: bool = False
    """Honours ``Idempotency-Key``."""
    public: bool = False
    """Needs no credential. The exception: a route without this is closed."""
    upload: bool = False
    """Takes a body as large as an upload may be."""
    capability: bool = False
    """Its path is worth as much as a credential, so no log has it."""
    permit: Callable[[Principal], None] | None = None
    """Raises ``Forbidden`` for callers who may not use the path, whatever its method."""
    operation: Operation | None = None
    """What it takes and gives, for the OpenAPI document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySetting:
    """A setting that a credential of the dialect may have. ``read`` turns a JSON value into the stored one or raises
    ``ValueError`` with what is allowed."""

    name: str
    read: Callable[[Any], Any]
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurlSample:
    """What a newcomer pastes: made for one credential and one agent."""

    base_url: str
    id: str
    secret: str
    agent_id: int
    agent_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One vendor's API."""

    name: str
    prefixes: tuple[str, ...]
    """Paths below these that no route serves are refused in this dialect's form."""
    routes: tuple[Route, ...]
    claim: Callable[[Request], CredentialClaim]
    """Which credential the call names. Raises ``Unauthenticated(reason="missing")``."""
    verify: Callable[[Request, ApiKey | None, Token | None], Principal]
    """Whether the call proves it; the key is ``None`` when there is none as claimed, the token likewise."""
    refuse: Callable[[AnyProblem, Request, ApiKey | None], Response]
    """The vendor's form of a problem, for a caller of that key if it has shown one. Total: every kind has a form."""
    new_credential: Callable[[bytes], tuple[str, str]]
    """(id, secret) of a new credential, made from 32 random bytes."""
    curl: Callable[[CurlSample], str]
    unrouted: Literal["first", "after size", "after rate"] = "first"
    """Where in the vendor's order of checks a call that no route serves is refused."""
    traced_as: Callable[[Request], Mapping[str, str]] | None = None
    """What the vendor's answers call the request, by the member's name: logged, so that it can be found."""
    exposed: tuple[str, ...] = ()
    """Answer headers that pages in a browser may read, beside those of every dialect."""
    signs_body: bool = False
    """Whether ``verify`` needs the body. Elsewhere a body is read for verified callers alone."""
    settings: tuple[KeySetting, ...] = field(default=())
    requirements: tuple[Requirement, ...] = field(default=())
    """What it promises, for whoever wants to know."""
    info: DialectInfo | None = None
    """What its routes have in common, for the OpenAPI document."""
