"""The domain model, shared by every layer: immutable values without behaviour.

Every entity has an ``id`` (int64, below 2**53 so that JavaScript reads it exactly) *and* a ``uid`` (a UUID), because
vendors disagree on which of the two they expose. A *ref* is either of them, or an alias, as the caller sent it.
"""

from __future__ import annotations

import math
import time
from datetime import datetime
from enum import StrEnum
from os import urandom
from typing import Any, Literal, cast
from uuid import UUID, uuid5

import msgspec

from palaver.core.problems import Problem

Ref = int | UUID | str
"""How a caller identifies a resource: its id, its UUID, or an alias."""

MAX_ID = 2**63 - 1


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all values: immutable, compared by content, keyword arguments only."""


# Message parts ------------------------------------------------------------------------------------------------------


class Part(Value, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """One piece of a message. ``provider_data`` is opaque data that the model expects back in the next request."""

    provider_data: dict[str, Any] | None = None


class Text(Part, frozen=True, kw_only=True, tag="text"):
    """Text of the answer or question, as the reader sees it. ``final_data``: provider data that came after the text."""

    text: str = ""
    final_data: dict[str, Any] | None = None


class Thinking(Part, frozen=True, kw_only=True, tag="thinking"):
    """A model's reasoning, shown separately from its answer or not at all. ``final_data``: provider data that came
    after the text, such as a signature."""

    text: str = ""
    final_data: dict[str, Any] | None = None


class ToolCall(Part, frozen=True, kw_only=True, tag="tool_call"):
    """A tool call by the model, or by the turn itself for retrieval. ``at`` is in epoch milliseconds."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    malformed: str = ""
    """The raw arguments if they are not a JSON object; ``arguments`` is then empty."""
    at: int = 0


class ToolResult(Part, frozen=True, kw_only=True, tag="tool_result"):
    """The output of a tool. ``content`` is the text for the model, ``data`` the machine-readable form."""

    call_id: str
    name: str
    content: str
    data: Any = None
    error: bool = False
    at: int = 0


class File(Part, frozen=True, kw_only=True, tag="file"):
    """An attachment: ``ref`` is the stored file's key, or the URL that the caller sent. In an answer, ``problem``
    explains why a file of the question could not be read."""

    ref: str
    name: str = ""
    media_type: str = ""
    problem: str = ""


AnyPart = Text | Thinking | ToolCall | ToolResult | File
StreamedPart = Text | Thinking
"""The parts that grow by deltas."""


# Entities -----------------------------------------------------------------------------------------------------------


class User(Value, frozen=True, kw_only=True):
    """An end user, identified by ``name``: an arbitrary string, unique within one application."""

    id: int
    uid: UUID
    name: str
    nickname: str | None = None
    avatar: str | None = None


class Token(Value, frozen=True, kw_only=True):
    """A short-lived token for an end user: an access or refresh token, an authorization code, or permission to read
    one file. All tokens derived from one code share its ``family``."""

    app: int
    credential: int
    generation: int
    """The credential's generation at issue time; the token is invalid under any other generation."""
    family: UUID
    kind: Literal["access", "refresh", "code", "file"]
    user: str
    scopes: tuple[str, ...]
    redirect: str | None
    expires: datetime


class StoredFile(Value, frozen=True, kw_only=True):
    """An uploaded or generated file. ``key`` identifies it in URLs; ``size`` is in bytes, ``digest`` is its SHA-256;
    ``details`` is private data of the dialect that accepted it."""

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


BUILTIN_TOOLS = ("now",)
"""The names of the built-in tools. An agent has those that its file names."""


class ModelSettings(Value, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of a model call, as the Chat Completions API names them; ``None`` leaves the choice to the model."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    """Maximum tokens of the answer."""
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None

    def overridden_by(self, other: ModelSettings) -> ModelSettings:
        """These settings, except for those that ``other`` has."""
        chosen = {name: value for name in other.__struct_fields__ if (value := getattr(other, name)) is not None}
        return msgspec.structs.replace(self, **chosen)


class AgentSpec(Value, frozen=True, kw_only=True):
    """An agent's configuration: the front matter of its file, and the body as ``instructions``."""

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
    parameters: ModelSettings = ModelSettings()
    tools: tuple[str, ...] = ()
    """The built-in tools that it may use: ``BUILTIN_TOOLS``."""
    image_model: str | None = None
    speech_model: str | None = None
    icon: str | None = None
    history: int = 40
    """Maximum number of earlier messages sent to the model."""
    extra: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict[str, dict[str, Any]])
    """Dialect-specific fields, keyed by dialect name."""


class Agent(Value, frozen=True, kw_only=True):
    """A configured agent of one application."""

    app: int
    id: int
    uid: UUID
    spec: AgentSpec
    created: datetime
    modified: datetime
    revision: int = 1
    """Incremented with every change of ``spec``."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def identifiers(self) -> frozenset[str]:
        """Every string that identifies this agent in a credential's ``agents`` setting."""
        return frozenset((str(self.id), str(self.uid), self.uid.hex, self.spec.name, *self.spec.alias))


NONCE_S = 300


class ApiKey(Value, frozen=True, kw_only=True):
    """A credential of one dialect, owned by one application. ``number`` is its row id, ``id`` the one callers send."""

    app: int
    number: int
    dialect: str
    id: str
    secret: str
    enabled: bool
    settings: dict[str, Any]
    label: str = ""
    """The operators' name for it."""
    previous_secret: str | None = None
    """The secret before the last rotation, valid until ``previous_until`` (seconds since 1970)."""
    previous_until: float = 0
    generation: int = 1
    """Incremented with every new secret and when the credential is disabled; this invalidates earlier tokens."""
    previous_generation: int = 0
    """The generation of ``previous_secret``."""

    def versions(self, now: float) -> tuple[ApiKey, ...]:
        """The current credential and, during the overlap after a rotation, the previous one."""
        if self.previous_secret is None or now >= self.previous_until:
            return (self,)
        previous = msgspec.structs.replace(self, secret=self.previous_secret, generation=self.previous_generation)
        return (self, previous)

    def version(self, generation: int, now: float) -> ApiKey | None:
        """The version with that generation, if it is still valid."""
        return next((key for key in self.versions(now) if key.generation == generation), None)

    @property
    def expires_at(self) -> float:
        """When it expires, in seconds since 1970: at its ``expire`` setting, or at the end of a rotation's overlap."""
        expire = self.settings.get("expire")
        expiry = math.inf if expire is None else datetime.fromisoformat(expire).timestamp()
        return min(expiry, self.previous_until) if self.generation == self.previous_generation else expiry

    def setting(self, name: str, default: Any = None) -> Any:
        return self.settings.get(name, default)

    def __repr__(self) -> str:
        """Omits the secret: a credential may end up in a log."""
        return f"Key({self.dialect}/{self.id} of application {self.app})"


class Principal(Value, frozen=True, kw_only=True):
    """The authenticated caller: a credential, acting for one end user (``None`` until the call names one)."""

    key: ApiKey
    user: str | None = None
    nonce: str | None = None
    """A request id that this credential must not reuse within ``NONCE_S`` seconds."""
    expires_at: float = math.inf
    """When the caller's token expires, in seconds since 1970."""

    @property
    def app(self) -> int:
        return self.key.app

    def acting_for(self, user: str) -> Principal:
        return msgspec.structs.replace(self, user=user)

    def as_unrestricted(self) -> Principal:
        """The same caller, allowed to use every agent."""
        settings = {name: value for name, value in self.key.settings.items() if name != "agents"}
        return msgspec.structs.replace(self, key=msgspec.structs.replace(self.key, settings=settings))

    def may_use(self, agent: Agent) -> bool:
        """Whether the credential's ``agents`` setting allows this agent; without it, every agent is allowed."""
        allowed: list[Any] | None = self.key.settings.get("agents")
        return allowed is None or not agent.identifiers.isdisjoint(str(entry) for entry in allowed)


ANONYMOUS = Principal(key=ApiKey(app=0, number=0, dialect="", id="", secret="", enabled=False, settings={}))
"""The caller of a public route, in an application that owns nothing."""


class Conversation(Value, frozen=True, kw_only=True):
    """A thread of messages between one end user and one agent. ``alias`` is the caller's own id for it."""

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
    """Whether the variables were loaded; lists skip them if not requested, or if those of earlier rows are large."""
    working: bool = False
    """Whether a turn is running or queued."""
    last_status: Status | None = None
    """The final status of the most recently ended turn."""


class Status(StrEnum):
    """The state of an assistant message."""

    LIVE = "live"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def failed(self) -> bool:
        """Whether the answer is incomplete without having been stopped: it failed, or its process died."""
        return self in {Status.FAILED, Status.INTERRUPTED}


class Usage(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Token counts reported by the model; ``None`` is unknown, not zero."""

    prompt: int | None = None
    """Tokens of the prompt, cached ones included."""
    completion: int | None = None
    """Tokens of the answer, reasoning included."""
    cached: int | None = None
    """Tokens of the prompt that were read from a cache."""
    reasoning: int | None = None

    @property
    def total(self) -> int | None:
        """Prompt and completion; ``None`` if both are unknown."""
        return None if self.prompt is None and self.completion is None else (self.prompt or 0) + (self.completion or 0)

    def __add__(self, other: Usage) -> Usage:
        def add(a: int | None, b: int | None) -> int | None:
            return b if a is None else a if b is None else a + b

        return Usage(
            prompt=add(self.prompt, other.prompt),
            completion=add(self.completion, other.completion),
            cached=add(self.cached, other.cached),
            reasoning=add(self.reasoning, other.reasoning),
        )

    def updated(self, latest: Usage) -> Usage:
        """The ``latest`` counts; unknown ones keep their value."""
        return Usage(
            prompt=self.prompt if latest.prompt is None else latest.prompt,
            completion=self.completion if latest.completion is None else latest.completion,
            cached=self.cached if latest.cached is None else latest.cached,
            reasoning=self.reasoning if latest.reasoning is None else latest.reasoning,
        )


class RunEnded(Value, frozen=True, kw_only=True):
    """The outcome of a run. ``reason`` is the model's finish reason (``stop``, ``length``, …)."""

    status: Status
    reason: str = "stop"
    usage: Usage = Usage()
    problem: Problem | None = None
    at: int = 0
    """Epoch milliseconds."""


class PendingCall(Value, frozen=True, kw_only=True):
    """A tool call whose result comes from outside. ``since`` is in epoch milliseconds."""

    call_id: str
    tool: str
    arguments: dict[str, Any]
    since: int


class Message(Value, frozen=True, kw_only=True):
    """One message of a conversation. An assistant message has the ``id`` and ``uid`` of the run that writes it;
    ``ended`` is ``None`` while that run is live."""

    app: int
    id: int
    uid: UUID
    conversation: int
    role: Literal["user", "assistant"]
    parts: tuple[AnyPart, ...] = ()
    created: datetime
    ended: RunEnded | None = None
    waiting: bool = False
    """Whether this is an answer whose run is queued behind another one."""
    waiting_for: tuple[PendingCall, ...] = ()
    """The calls that a paused run waits for."""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def files(self) -> tuple[File, ...]:
        """The attachments, without the entries in an answer that report unreadable files."""
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
    """A search result: an excerpt of a document. ``score`` is only comparable within one search."""

    text: str
    source: str
    title: str = ""
    heading: str = ""
    score: float = 0.0
    document: int = 0
    chunk: int = 0


def new_uid() -> UUID:
    """A version 7 UUID: random, but ascending with time, so that index pages fill up sequentially."""
    random = int.from_bytes(urandom(10), "big")
    timestamp = (time.time_ns() // 1_000_000) << 80
    return UUID(int=timestamp | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62 | random & (1 << 62) - 1)


def derived_uid(uid: UUID, purpose: str) -> UUID:
    """A UUID derived deterministically from ``uid`` and ``purpose``."""
    return uuid5(uid, purpose)


def parse_uid(ref: str) -> UUID | None:
    """Parse ``ref`` as a UUID in either text form (32 hex digits, or with hyphens); ``None`` if it is not one."""
    if len(ref) not in {32, 36} or (len(ref) == 36 and ref.count("-") != 4):
        return None
    try:
        uid = UUID(ref)
    except ValueError:
        return None
    return uid if ref.lower() in {uid.hex, str(uid)} else None


def parse_id(ref: str) -> int | None:
    """Parse ``ref`` as a decimal id between 1 and ``MAX_ID``; ``None`` if it is not one."""
    number = int(ref) if ref.isascii() and ref.isdigit() and len(ref) < 20 else 0
    return number if 0 < number <= MAX_ID else None


def clean(text: str) -> str:
    """``text`` in storable form: PostgreSQL rejects U+0000, and UTF-8 cannot encode lone surrogates."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean_json(value: Any) -> Any:
    """``value``, as decoded from JSON, with every string in storable form, member names included."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | tuple):
        return [clean_json(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {clean_json(name): clean_json(item) for name, item in cast("dict[str, Any]", value).items()}
    return value
