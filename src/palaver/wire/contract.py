"""The interface between ``http`` and a dialect.

A dialect maps values to values: ``claim`` and ``verify`` authenticate the caller, a route's ``endpoint`` returns a
``Response`` or a ``StreamingResponse``, ``refuse`` turns any ``Problem`` into the vendor's error format, and an
``Encoder`` turns a run's events into the vendor's bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Generic, Literal, Protocol, Required, TypedDict, TypeVar, Unpack, overload, runtime_checkable

from palaver.core.admit import CredentialClaim
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
from palaver.wire.operation import JSON, DialectInfo, Operation, Shape
from palaver.wire.requirements import Requirement

T = TypeVar("T")
B = TypeVar("B")
R = TypeVar("R")

MAX_REQUEST_ID = 128
Method = Literal["GET", "POST", "PUT", "DELETE"]


class Headers(Mapping[str, str]):
    """Request headers: names are case-insensitive, values trimmed; the last of repeated headers wins.

    Only spaces and tabs are trimmed: Python also treats 0x85 and 0xA0 as white space, but here they are UTF-8 bytes.
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
    """The caller's ``X-Request-ID``, unchanged; ``None`` if it is missing, too long or not printable."""
    header = headers.get("x-request-id", "")
    try:
        value = header.encode("latin-1").decode()
    except UnicodeDecodeError:
        value = header
    return value if 0 < len(value) <= MAX_REQUEST_ID and value.isprintable() else None


class Upload(ByteSource, Protocol):
    """The body of an upload route. It need not be in memory."""

    def read(self, start: int, end: int) -> bytes: ...

    async def run_in_thread(self, work: Callable[[Upload], T]) -> T:
        """The result of ``work``, run in the background: it may take time proportional to the upload's size."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. ``now`` is in Unix seconds; ``trace`` is the request's id in logs and in vendors' trace fields."""

    method: str
    path: str
    """Percent-decoded."""
    target: str
    """Path and query exactly as sent, for signature schemes."""
    headers: Headers
    route: str
    """The path template of the matched route, with its ``{name}`` segments; empty without a match."""
    path_params: Mapping[str, str]
    """The path parameters, percent-decoded."""
    body: bytes
    """Empty if there is an ``upload``."""
    now: float
    trace: str
    base_url: str = ""
    """The public base URL of this server: the configured one, otherwise ``https://host`` as used by the caller."""
    upload: Upload | None = None
    """The body of a route with ``upload=True``."""
    language: str = "en-US"
    """The server's default language, for callers that request none."""

    @property
    def raw_path(self) -> str:
        """The path as sent, without the query."""
        return self.target.partition("?")[0]

    @property
    def query_string(self) -> str:
        """The query string as sent, without the question mark."""
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A complete response."""

    status: int = 200
    body: bytes = b""
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    counts_toward_quota: bool = True
    """Whether the call counts towards the credential's ``total``."""
    body_iterator: AsyncIterator[bytes] | None = None
    """Sent lazily instead of ``body``, ``length`` bytes in total."""
    length: int | None = 0
    """``None``: unknown in advance; the response is sent without ``Content-Length``."""
    buffered_bytes: int = 0
    """Memory used by ``body_iterator`` until they are sent, in bytes."""
    chunks: tuple[bytes, ...] = ()
    """Sent instead of ``body``, one write each, like a stream: without a length, not cacheable."""


@runtime_checkable
class PacedEncoder(Protocol):
    """An encoder that keeps a minimum interval between writes."""

    def on_written(self, now: float) -> None:
        """Called after all bytes so far have been passed to the socket, possibly delayed by a slow reader."""
        ...


class Encoder(Protocol):
    """Turns one run's events into the vendor's bytes. Each item that ``encode`` returns is sent as one write.

    ``encode`` must accept every sequence of events that ``Draft`` accepts, and keeps its own state. ``now`` is in Unix
    seconds.
    """

    aborts_on_failure: bool
    """Whether a failed run's stream is aborted, so that the reader notices the failure."""
    always_heartbeat: bool
    """Whether heartbeats are sent at every interval, rather than only on an idle stream."""
    flush_at: float | None
    """When (Unix seconds) to call ``flush`` if no event arrives first; read after every ``encode``."""

    @property
    def heartbeat(self) -> bytes:
        """The bytes sent on an idle stream."""
        ...

    def encode(self, event: Event, now: float) -> list[bytes]: ...

    def flush(self, now: float) -> list[bytes]:
        """The buffered output that is due now, without a further event."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingResponse:
    """A streaming response that follows a run from the cursor of ``reader`` to its end."""

    reader: RunReader
    encoder: Encoder
    media_type: str
    headers: tuple[tuple[str, str], ...] = ()
    replayed: bool = False
    """Whether an earlier identical call started the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectSettings:
    """The server settings that dialects use."""

    timezone: tzinfo
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services available to route handlers."""

    chat: Chat
    users: Users
    files: Files
    media: Media
    idempotency: Idempotency
    knowledge: KnowledgeBases
    settings: DialectSettings


class RouteOptions(TypedDict, total=False):
    """The members of ``Route`` besides its method, path, endpoint and types."""

    summary: Required[str]
    idempotent: bool
    public: bool
    upload: bool
    secret_path: bool
    authorize: Callable[[Principal], None] | None
    resolve_principal: Callable[[Request, Principal, Services], Awaitable[Principal]] | None
    operation: Operation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestType(Generic[B]):
    """The type of a route's body or query. ``parse`` returns the request's value, or raises ``Invalid``."""

    shape: type[B]
    parse: Callable[[Request], B]
    location: Literal["body", "query"] = "body"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseType(Generic[R]):
    """The type that a route's endpoint returns. ``render`` converts a value to the response."""

    render: Callable[[Request, Principal, Services, R], Awaitable[Response | StreamingResponse]]
    shape: Shape | None = None
    """The JSON of the response, with the dialect's envelope; ``None`` for text, bytes and empty responses."""


Handler = Callable[[Request, Principal, Services], Awaitable[Response | StreamingResponse]]
"""Handles a request. Raises ``Problem``."""


@dataclass(slots=True, kw_only=True, init=False, eq=False)
class Route:
    """One method and path. ``{name}`` matches one segment; literal segments take precedence.

    ``endpoint`` receives the parsed value of ``request`` after the request itself, and returns the value that
    ``response`` declares. Without ``request`` it receives none; without ``response`` it returns a ``Response`` or
    ``StreamingResponse`` itself.
    """

    method: Method
    path: str
    endpoint: Callable[..., Awaitable[Any]]
    request: RequestType[Any] | None
    response: ResponseType[Any] | None
    summary: str
    idempotent: bool
    """Supports ``Idempotency-Key``."""
    public: bool
    """Needs no credential; all other routes do."""
    upload: bool
    """Accepts bodies up to the upload limit."""
    secret_path: bool
    """Its path grants access like a credential, and is therefore never logged."""
    authorize: Callable[[Principal], None] | None
    """Raises ``Forbidden`` for callers that may not use the path, with any method."""
    resolve_principal: Callable[[Request, Principal, Services], Awaitable[Principal]] | None
    """Returns the principal for the endpoint, before the request is parsed. Raises ``Problem``."""
    operation: Operation | None
    """Its examples, errors and source, for the OpenAPI document."""

    @overload
    def __init__(
        self,
        *,
        method: Method,
        path: str,
        endpoint: Callable[[Request, B, Principal, Services], Awaitable[R]],
        request: RequestType[B],
        response: ResponseType[R],
        **options: Unpack[RouteOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        method: Method,
        path: str,
        endpoint: Callable[[Request, Principal, Services], Awaitable[R]],
        request: None = None,
        response: ResponseType[R],
        **options: Unpack[RouteOptions],
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        method: Method,
        path: str,
        endpoint: Handler,
        request: None = None,
        response: None = None,
        **options: Unpack[RouteOptions],
    ) -> None: ...

    def __init__(
        self,
        *,
        method: Method,
        path: str,
        endpoint: Callable[..., Awaitable[Any]],
        request: RequestType[Any] | None = None,
        response: ResponseType[Any] | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        self.method = method
        self.path = path
        self.endpoint = endpoint
        self.request = request
        self.response = response
        self.summary = options["summary"]
        self.idempotent = options.get("idempotent", False)
        self.public = options.get("public", False)
        self.upload = options.get("upload", False)
        self.secret_path = options.get("secret_path", False)
        self.authorize = options.get("authorize")
        self.resolve_principal = options.get("resolve_principal")
        self.operation = _typed(options.get("operation"), request, response)

    async def handle(self, request: Request, principal: Principal, services: Services) -> Response | StreamingResponse:
        """Parse the request, call the endpoint, and render what it returns. Raises ``Problem``."""
        if self.resolve_principal is not None:
            principal = await self.resolve_principal(request, principal, services)
        body = () if self.request is None else (self.request.parse(request),)
        result = await self.endpoint(request, *body, principal, services)
        return result if self.response is None else await self.response.render(request, principal, services, result)


def _typed(
    operation: Operation | None, request: RequestType[Any] | None, response: ResponseType[Any] | None
) -> Operation | None:
    """The operation with the types that its route declares."""
    if operation is None:
        return None
    if request is not None:
        match request.location:
            case "body":
                operation = operation.with_body(request.shape)
            case "query":
                operation = operation.with_query(request.shape)
    return operation if response is None or response.shape is None else operation.with_response(response.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSetting:
    """A setting of the dialect's credentials. ``read`` converts a JSON value to the stored one, or raises
    ``ValueError`` with a description of the allowed values."""

    name: str
    read: Callable[[Any], Any]
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurlSample:
    """The input of a sample curl command, for one credential and one agent."""

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
    """Unrouted paths under these are refused in this dialect's error format."""
    routes: tuple[Route, ...]
    claim: Callable[[Request], CredentialClaim]
    """The credential that the request claims. Raises ``Unauthenticated(reason="missing")``."""
    verify: Callable[[Request, ApiKey | None, Token | None], Principal]
    """Authenticates the request; key and token are ``None`` if none matches the claim. Raises ``Unauthenticated``."""
    refuse: Callable[[AnyProblem, Request, ApiKey | None], Response]
    """The vendor's error response for a problem; the key is the caller's, if known. Handles every kind of problem."""
    new_credential: Callable[[bytes], tuple[str, str]]
    """(id, secret) of a new credential, derived from 32 random bytes."""
    curl: Callable[[CurlSample], str]
    unrouted: Literal["first", "after size", "after rate"] = "first"
    """The point in the vendor's order of checks at which unrouted requests are refused."""
    trace_fields: Callable[[Request], Mapping[str, str]] | None = None
    """The request's ids in the vendor's responses, by field name; logged, so that they can be searched for."""
    id_headers: tuple[str, ...] = ()
    """Response headers that contain ids. Browser scripts may read them on every dialect's paths (CORS)."""
    cors_exposed_headers: tuple[str, ...] = ()
    """Further response headers that browser scripts may read on this dialect's paths."""
    signs_body: bool = False
    """Whether ``verify`` needs the body. Otherwise the body is read only after authentication."""
    settings: tuple[CredentialSetting, ...] = field(default=())
    requirements: tuple[Requirement, ...] = field(default=())
    """The documented requirements of the dialect."""
    info: DialectInfo | None = None
    """Properties common to its routes, for the OpenAPI document."""
