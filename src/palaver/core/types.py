"""The nouns everything speaks: values only.

Every noun has an ``id`` (int64, below 2**53 so that JavaScript reads it exactly) *and* a ``uid`` (a UUID), because
vendors disagree on which of them they show. A *ref* is either of them, or an alias, as a caller sent it.
"""

from __future__ import annotations

import math
import time
from datetime import datetime
from enum import StrEnum
from os import urandom
from typing import Any, Literal
from uuid import UUID, uuid5

import msgspec

from palaver.core.problems import Problem

Ref = int | UUID | str
"""How a caller names a thing: its number, its UUID, or an alias."""

MAX_ID = 2**63 - 1


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """What all nouns are: immutable, compared by content, written with names."""


# What a message is made of ------------------------------------------------------------------------------------------


class Part(Value, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """One piece of a message. ``provider_data`` is the opaque pocket for what a model wants handed back."""

    provider_data: dict[str, Any] | None = None


class Text(Part, frozen=True, kw_only=True, tag="text"):
    """Answer or question, in order, as the reader sees it."""

    text: str = ""


class Thinking(Part, frozen=True, kw_only=True, tag="thinking"):
    """A model's reasoning, shown apart from its answer or not at all."""

    text: str = ""


class ToolCall(Part, frozen=True, kw_only=True, tag="tool_call"):
    """The model (or the turn itself, for retrieval) asks a tool. ``at`` is epoch milliseconds."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    malformed: str = ""
    """What the model sent instead of a JSON object, ``arguments`` then being empty."""
    at: int = 0


class ToolResult(Part, frozen=True, kw_only=True, tag="tool_result"):
    """What the tool said. ``content`` is the text the model reads, ``data`` the same for programs."""

    call_id: str
    name: str
    content: str
    data: Any = None
    error: bool = False
    at: int = 0


class File(Part, frozen=True, kw_only=True, tag="file"):
    """An attachment: ``ref`` is the stored file's key or the address it was given by. In an answer, with a ``problem``:
    a file of the question that could not be read, and why."""

    ref: str
    name: str = ""
    media_type: str = ""
    problem: str = ""


AnyPart = Text | Thinking | ToolCall | ToolResult | File
StreamedPart = Text | Thinking
"""The parts that are written piece by piece."""


# Who and what -------------------------------------------------------------------------------------------------------


class User(Value, frozen=True, kw_only=True):
    """An end user: a person known to the calling system by ``name``, a free string inside one application."""

    id: int
    uid: UUID
    name: str
    nickname: str | None = None
    avatar: str | None = None


class Token(Value, frozen=True, kw_only=True):
    """Something short-lived that stands for an end user: an access or refresh token, a code to get them with, or the
    right to read one file. ``family`` is shared by all that comes from one code."""

    app: int
    credential: int
    generation: int
    """The credential's when it was issued; with another one the token is worth nothing."""
    family: UUID
    kind: Literal["access", "refresh", "code", "file"]
    user: str
    scopes: tuple[str, ...]
    redirect: str | None
    expires: datetime


class StoredFile(Value, frozen=True, kw_only=True):
    """A file that somebody gave us or that an agent made. ``key`` names it in addresses; ``size`` is in bytes,
    ``digest`` its SHA-256; ``details`` is what the dialect that took it wants back."""

    app: int
    id: int
    uid: UUID
    user: int
    key: str
    name: str
    media_type: str
    size: int
    digest: bytes
    details: dict[str, Any]
    created: datetime


class Variable(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value that a caller hands to a run; ``{{name}}`` in the instructions is replaced by it."""

    name: str
    required: bool = False
    description: str = ""


KnowledgeMode = Literal["always", "tool"]


class AgentSpec(Value, frozen=True, kw_only=True):
    """What an operator says of an agent: the front matter of its file, the body as ``instructions``."""

    name: str
    instructions: str = ""
    model: str | None = None
    fallback_model: str | None = None
    alias: tuple[str, ...] = ()
    description: str = ""
    opening_message: str = ""
    suggested_questions: tuple[str, ...] = ()
    enabled: bool = True
    auto_title: Literal["first_message", "model"] = "first_message"
    variables: tuple[Variable, ...] = ()
    knowledge: tuple[str, ...] = ()
    knowledge_mode: KnowledgeMode = "always"
    image_model: str | None = None
    speech_model: str | None = None
    icon: str | None = None
    history: int = 40
    """How many earlier messages the model gets to see at most."""
    extra: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict[str, dict[str, Any]])
    """What one dialect alone shows, by the dialect's name."""


class Agent(Value, frozen=True, kw_only=True):
    """What answers."""

    app: int
    id: int
    uid: UUID
    spec: AgentSpec
    created: datetime
    modified: datetime

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def names(self) -> frozenset[str]:
        """Every text by which a credential's ``agents`` setting may name this agent."""
        return frozenset((str(self.id), str(self.uid), self.uid.hex, self.spec.name, *self.spec.alias))


NONCE_S = 300


class ApiKey(Value, frozen=True, kw_only=True):
    """A credential of one dialect, belonging to one application. ``number`` is its row, ``id`` what callers say."""

    app: int
    number: int
    dialect: str
    id: str
    secret: str
    enabled: bool
    settings: dict[str, Any]
    label: str = ""
    """What operators call it."""
    previous_secret: str | None = None
    """The secret before the last rotation, good until ``previous_until`` (seconds since 1970)."""
    previous_until: float = 0
    generation: int = 1
    """Grows with every new secret, and when the credential is disabled; the tokens of the one before end with it."""
    previous_generation: int = 0
    """That of ``previous_secret``."""

    def versions(self, now: float) -> tuple[ApiKey, ...]:
        """The key as it is, and as it was before its last rotation while that one's overlap lasts."""
        if self.previous_secret is None or now >= self.previous_until:
            return (self,)
        before = msgspec.structs.replace(self, secret=self.previous_secret, generation=self.previous_generation)
        return (self, before)

    def version(self, generation: int, now: float) -> ApiKey | None:
        """The version of that generation, where it is still good."""
        return next((key for key in self.versions(now) if key.generation == generation), None)

    @property
    def until(self) -> float:
        """When it ends by itself, in seconds since 1970: with its ``expire``, or with the overlap of a rotation."""
        expire = self.settings.get("expire")
        ends = math.inf if expire is None else datetime.fromisoformat(expire).timestamp()
        return min(ends, self.previous_until) if self.generation == self.previous_generation else ends

    def setting(self, name: str, default: Any = None) -> Any:
        return self.settings.get(name, default)

    def __repr__(self) -> str:
        """Without the secret: a key may end up in a log."""
        return f"Key({self.dialect}/{self.id} of application {self.app})"


class Principal(Value, frozen=True, kw_only=True):
    """Who asks: a key of an application, for one of its end users (``None`` until the call names one)."""

    key: ApiKey
    user: str | None = None
    nonce: str | None = None
    """A request id that this key must not use twice within ``NONCE_S`` seconds."""
    until: float = math.inf
    """When what proves the caller, a token, ends by itself, in seconds since 1970."""

    @property
    def app(self) -> int:
        return self.key.app

    def acting_for(self, user: str) -> Principal:
        return msgspec.structs.replace(self, user=user)

    def may_use(self, agent: Agent) -> bool:
        """Whether the key's ``agents`` setting admits this agent; without the setting all of the application's."""
        allowed: list[Any] | None = self.key.settings.get("agents")
        return allowed is None or not agent.names.isdisjoint(str(entry) for entry in allowed)


ANONYMOUS = Principal(key=ApiKey(app=0, number=0, dialect="", id="", secret="", enabled=False, settings={}))
"""Who calls a public route: of an application that owns nothing."""


class Conversation(Value, frozen=True, kw_only=True):
    """A thread of messages between one end user and one agent. ``alias`` is the caller's own name for it."""

    app: int
    id: int
    uid: UUID
    user: int
    agent: int
    alias: str | None
    title: str | None
    opening: str
    created: datetime
    modified: datetime
    icon: str | None = None
    summary: str | None = None
    variables: dict[str, Any] | None = None
    with_variables: bool = True
    """Whether its variables were read: in a list not where they are not wanted, nor where those before are large."""
    working: bool = False
    """Whether a turn runs or waits."""
    last_status: Status | None = None
    """How the turn that ended last ended."""


class Status(StrEnum):
    """Where the writing of an assistant's message stands."""

    LIVE = "live"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def failed(self) -> bool:
        """Whether the answer is incomplete although nobody stopped it: it failed, or its process died."""
        return self in {Status.FAILED, Status.INTERRUPTED}


class Usage(Value, frozen=True, kw_only=True):
    """Tokens, as far as the model told; ``None`` is unknown, not zero."""

    prompt: int | None = None
    completion: int | None = None

    def __add__(self, other: Usage) -> Usage:
        def add(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return Usage(prompt=add(self.prompt, other.prompt), completion=add(self.completion, other.completion))


class RunEnded(Value, frozen=True, kw_only=True):
    """How a run came to its end. ``reason`` is the model's own finish reason (``stop``, ``length``, …)."""

    status: Status
    reason: str = "stop"
    usage: Usage = Usage()
    problem: Problem | None = None
    at: int = 0
    """Epoch milliseconds."""


class Message(Value, frozen=True, kw_only=True):
    """One contribution. An assistant's message is what a run writes: same ``id``, same ``uid``; ``ended`` is
    ``None`` while the run lives."""

    app: int
    id: int
    uid: UUID
    conversation: int
    role: Literal["user", "assistant"]
    parts: tuple[AnyPart, ...] = ()
    created: datetime
    ended: RunEnded | None = None
    waiting: bool = False
    """An answer whose run waits for another one to end."""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def files(self) -> tuple[File, ...]:
        """What is attached; not what an answer says of files that could not be read."""
        return tuple(part for part in self.parts if isinstance(part, File) and not part.problem)

    @property
    def thinking(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Thinking))


class Application(Value, frozen=True, kw_only=True):
    """The owner of credentials, agents, end users and conversations."""

    id: int
    name: str
    created: datetime


class Passage(Value, frozen=True, kw_only=True):
    """A piece of a document that answers a question. ``score`` only orders passages of one search."""

    text: str
    source: str
    title: str = ""
    heading: str = ""
    score: float = 0.0
    document: int = 0
    chunk: int = 0


def new_uid() -> UUID:
    """A UUID of version 7: random, and ascending with time, so that index pages are filled one after the other."""
    random = int.from_bytes(urandom(10), "big")
    head = (time.time_ns() // 1_000_000) << 80
    return UUID(int=head | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62 | random & (1 << 62) - 1)


def derived_uid(uid: UUID, purpose: str) -> UUID:
    """Another UUID that belongs to ``uid``: always the same one for the same purpose."""
    return uuid5(uid, purpose)


def as_uid(ref: str) -> UUID | None:
    """The UUID that ``ref`` writes, in either of its two text forms (32 hex digits, or with hyphens), else ``None``."""
    if len(ref) not in {32, 36} or (len(ref) == 36 and ref.count("-") != 4):
        return None
    try:
        uid = UUID(ref)
    except ValueError:
        return None
    return uid if ref.lower() in {uid.hex, str(uid)} else None


def as_number(ref: str) -> int | None:
    """The number that ``ref`` writes in plain digits, where it can be an id of ours, else ``None``."""
    number = int(ref) if ref.isascii() and ref.isdigit() and len(ref) < 20 else 0
    return number if 0 < number <= MAX_ID else None


def clean(text: str) -> str:
    """``text`` as it may be stored: PostgreSQL has no U+0000 and UTF-8 no lone surrogates."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
