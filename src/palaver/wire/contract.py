"""What ``http`` hands to a dialect and what it takes back.

A dialect is values in, values out: ``claim`` and ``verify`` say who calls, a route's ``handle`` does what was asked
and answers a ``Reply`` or a ``Stream``, ``refuse`` turns any ``Problem`` into the vendor's form, and an ``Encoder``
turns a run's events into the vendor's bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from palaver.core.chat import Chat, Sent
from palaver.core.events import Event
from palaver.core.problems import AnyProblem
from palaver.core.types import Key, Principal

JSON = "application/json"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. ``now`` is Unix seconds, ``trace`` the request's id in logs and in the vendors' trace members."""

    method: str
    path: str
    """Percent-decoded."""
    raw_path: str
    """As sent, for schemes that sign it."""
    query: str
    """As sent, without the question mark."""
    headers: Headers
    params: Mapping[str, str]
    """What the route's ``{name}`` segments matched, percent-decoded."""
    body: bytes
    now: float
    trace: str
    origin: str = ""
    """``https://host`` the caller used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    media_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Encoder(Protocol):
    """Turns one run's events into the vendor's bytes. Each item of what ``encode`` returns goes out as one write.

    ``encode`` must take any sequence of events that ``Draft`` takes, and owns the state that takes.
    """

    heartbeat: bytes
    """What an idle stream sends."""
    breaks_off: bool
    """Whether a failed run's stream ends abnormally, so that the reader notices the break."""

    def encode(self, event: Event) -> list[bytes]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer that follows a run from its beginning to its end."""

    sent: Sent
    encoder: Encoder
    media_type: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Which credential a caller says it has: by its id, or (where the secret is all that is sent) by the secret."""

    id: str | None = None
    secret: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a route's handler may use."""

    chat: Chat


Handler = Callable[[Call, Principal, Room], Awaitable[Reply | Stream]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method and path. ``{name}`` matches one segment, literal segments win over it."""

    method: Method
    path: str
    handle: Handler
    purpose: str
    creating: bool = False
    """Honours ``Idempotency-Key``."""
    public: bool = False
    """Needs no credential. The exception: a route without this is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A setting that a credential of the dialect may have. ``read`` turns a JSON value into the stored one or raises
    ``ValueError`` with what is allowed."""

    name: str
    read: Callable[[Any], Any]
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
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
    claim: Callable[[Call], Claim]
    """Which credential the call names. Raises ``Unauthenticated(reason="missing")``."""
    verify: Callable[[Call, Key | None], Principal]
    """Whether the call proves it; the key is ``None`` when there is none of that id."""
    refuse: Callable[[AnyProblem, Call], Reply]
    """The vendor's form of a problem. Total: every kind has one."""
    new_credential: Callable[[bytes], tuple[str, str]]
    """(id, secret) of a new credential, made from 32 random bytes."""
    curl: Callable[[Sample], str]
    settings: tuple[Setting, ...] = field(default=())
