"""The port for the database: the values to store and one repository per entity.

There is one implementation, ``palaver.store`` on PostgreSQL. The Protocols are here because core must not depend on a
driver, and so that every statement of a use case is listed in one place. Parameters named ``app``, ``user``, ``agent``
and ``conversation`` of type int are ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Protocol
from uuid import UUID

import msgspec

from palaver.core.byte_source import ByteSource
from palaver.core.events import Piece
from palaver.core.ports.tools import ToolSpec
from palaver.core.types import (
    Agent,
    AgentSpec,
    AnyPart,
    ApiKey,
    Conversation,
    Message,
    ModelSettings,
    PendingCall,
    Principal,
    Ref,
    RunEnded,
    StoredFile,
    Token,
    ToolResult,
    Usage,
    User,
    Value,
)


class IdempotencyKey(Value, frozen=True, kw_only=True):
    """An ``Idempotency-Key`` as stored. ``digest`` identifies the request."""

    scope: str
    key: str
    digest: bytes

    def topic(self, principal: Principal, user: User) -> str:
        """A short name of the key, the same in every process."""
        name = repr((principal.app, principal.key.number, user.id, self.scope, self.key))
        return blake2b(name.encode(), digest_size=16).hexdigest()


class RunInput(Value, frozen=True, kw_only=True, omit_defaults=True):
    """What a run needs besides its messages. It is stored with the answer, so that any process can execute the run."""

    credential: int
    """The row id of the credential whose slot the run occupies."""
    agent_revision: int = 1
    variables: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    disabled_tools: tuple[tuple[str, int], ...] = ()
    """Tools that the caller disabled, as (``mcp`` or ``skill``, id)."""
    caller_tools: tuple[ToolSpec, ...] = ()
    """Tools that the caller offers: their results come from outside."""
    instructions: str = ""
    """The caller's instructions, which follow the agent's."""
    settings: ModelSettings = ModelSettings()
    trace: str = ""


class NewTurn(Value, frozen=True, kw_only=True):
    """One user message and the run that answers it, to be stored together."""

    principal: Principal
    user: User
    agent: Agent
    run: UUID
    question: UUID
    """Uid of the user's message."""
    parts: tuple[AnyPart, ...]
    conversation: Ref | None
    """``None`` creates a new one."""
    variables: dict[str, Any] | None = None
    """The variables of the conversation, if this turn creates it."""
    create_as: str | None = None
    """The alias under which to create an unknown ``conversation``; ``None`` raises ``NotFound`` instead."""
    max_waiting: int = 4
    worker: int
    input: RunInput
    idempotency_key: IdempotencyKey | None = None
    idempotency_ttl_s: float = 86_400
    """Seconds for which the idempotency key is remembered."""


class StoredTurn(Value, frozen=True, kw_only=True):
    """The result of ``RunRepository.open``. ``first``: the run may start now; otherwise it is queued."""

    conversation: Conversation
    question: Message
    answer: Message
    """Still empty; its id and uid are the run's."""
    first: bool
    ahead: tuple[int, ...] = ()
    """The ids of the runs ahead of it, the running one first."""


class StoredRun(Value, frozen=True, kw_only=True):
    """A live run as stored. ``step``: the number of model calls begun; 0 if it still waits for its turn. ``first``: it
    is the first in its conversation. ``spec``: that of the agent's revision with which it was accepted."""

    conversation: Conversation
    question: Message
    answer: Message
    input: RunInput
    spec: AgentSpec
    step: int
    first: bool
    usage: Usage


class Pause(Value, frozen=True, kw_only=True):
    """What a paused run waits for. ``steps`` is the cursor at the end of its message."""

    steps: int
    calls: tuple[PendingCall, ...]


class ReplayedRun(Value, frozen=True, kw_only=True):
    """The run that an earlier request with the same idempotency key and content started."""

    run: UUID


class RunResult(Value, frozen=True, kw_only=True):
    """The end of a run, to be stored. ``parts``: the whole answer, or ``None`` if its pieces are stored."""

    app: int
    run: int
    conversation: int
    parts: tuple[AnyPart, ...] | None
    ended: RunEnded
    size: int = 0
    """The approximate size of the parts as JSON, in bytes."""


class Growth(Value, frozen=True, kw_only=True):
    """A piece of a live run's message, to be stored."""

    app: int
    conversation: int
    run: int
    piece: Piece
    size: int = 0
    """The approximate size of its parts as JSON, in bytes."""


class StoredGrowth(Value, frozen=True, kw_only=True):
    """What another process has stored of a live run since some cursor; ``live`` is false if the run has ended or its
    message was deleted."""

    live: bool
    pieces: tuple[Piece, ...] = ()


class ConversationQuery(Value, frozen=True, kw_only=True):
    """A filter and a page of a user's conversations, always most recently modified first."""

    agent: int | None = None
    titled: bool = False
    """Only conversations with a title."""
    containing: str | None = None
    """Only conversations whose title contains this text."""
    after: tuple[datetime, int] | None = None
    """Start after this (modified, id)."""
    below: int | None = None
    """Start below this id; used if the conversation to start after no longer exists."""
    offset: int = 0
    limit: int = 20
    max_variables_bytes: int = 0
    """Limit on the stored bytes of variables to load, at least one conversation's; 0 loads none."""


class MessagePage(Value, frozen=True, kw_only=True):
    """Consecutive messages, oldest first, and their stored ``size`` in bytes. ``next`` is the uid of the next message
    in the query's direction, or ``None``."""

    messages: tuple[Message, ...] = ()
    size: int = 0
    next: UUID | None = None


class AgentRepository(Protocol):
    async def get(self, app_id: int, ref: Ref) -> Agent | None: ...

    async def list_for_application(self, app_id: int) -> tuple[Agent, ...]:
        """Every agent of the application, sorted by name, then id."""
        ...


class UserRepository(Protocol):
    async def get_or_create(self, app_id: int, name: str) -> User:
        """The end user with that name (or issued uid), created if missing."""
        ...

    async def get_by_name(self, app_id: int, name: str) -> User | None:
        """The end user with that name (or issued uid), or ``None``."""
        ...

    async def find(self, app_id: int, ref: Ref) -> User | None:
        """The end user with that id, issued uid or name, or ``None``."""
        ...

    async def register(
        self, app_id: int, name: str | None, nickname: str | None, avatar: str | None
    ) -> tuple[User, bool]:
        """Create the end user or update its profile; without a ``name``, always create one. Returns the end user, and
        whether it was created."""
        ...

    async def set_subscribed(self, app_id: int, user_id: int, agent_id: int, *, subscribed: bool) -> None: ...

    async def list_subscriptions(self, app_id: int, user_id: int) -> set[int]:
        """The ids of the agents that the user has subscribed to."""
        ...


class ConversationRepository(Protocol):
    async def create(
        self,
        principal: Principal,
        user: User,
        agent: Agent,
        *,
        alias: str | None = None,
        title: str | None = None,
        variables: dict[str, Any] | None = None,
    ) -> Conversation: ...

    async def get(self, app_id: int, user_id: int, ref: Ref) -> Conversation | None: ...

    async def list_page(self, app_id: int, user_id: int, query: ConversationQuery) -> list[Conversation]: ...

    async def count(self, app_id: int, user_id: int, query: ConversationQuery) -> int:
        """The number of conversations on all pages."""
        ...

    async def rename(
        self, app_id: int, user_id: int, ref: Ref, *, title: str, icon: str | None = None
    ) -> Conversation | None: ...

    async def delete(self, app_id: int, user_id: int, ref: Ref) -> list[UUID] | None:
        """Delete the conversation and its messages. Returns its live runs, or ``None`` if it does not exist."""
        ...

    async def delete_all(self, app_id: int, user_id: int, agent_id: int) -> list[UUID]:
        """Delete every conversation of the user with the agent. Returns their live runs."""
        ...

    async def get_messages(
        self,
        app_id: int,
        conversation_id: int,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int,
        max_bytes: int,
        always_one: bool = True,
    ) -> MessagePage:
        """At most ``limit`` messages, oldest first, with at most ``max_bytes`` stored bytes together: the newest ones
        below id ``before``, or the first ones above ``after``. With ``always_one``, a single larger message is returned
        alone."""
        ...

    async def find_message_id_before_newest(
        self, app_id: int, conversation_id: int, *, before: int | None, limit: int
    ) -> int:
        """An id just below the newest ``limit`` messages before id ``before``, for use as ``after``."""
        ...


class FileRepository(Protocol):
    async def add(
        self,
        app_id: int,
        user_id: int,
        *,
        key: str,
        name: str,
        media_type: str,
        content: bytes | ByteSource,
        details: dict[str, Any],
        conversation_id: int | None = None,
    ) -> StoredFile:
        """Store a file. With a ``conversation_id``, it is deleted together with that."""
        ...

    async def get(self, app_id: int, key: str) -> StoredFile | None: ...

    async def find_for_user(self, app_id: int, user_id: int, ref: str) -> StoredFile | None:
        """The end user's file with that key, uid or id."""
        ...

    async def content(self, file: StoredFile, *, start: int = 0, length: int | None = None) -> bytes: ...

    async def delete(self, app_id: int, user_id: int, key: str) -> bool:
        """Delete the end user's file with that key. Returns whether it existed."""
        ...

    async def get_unscoped(self, key: str) -> StoredFile | None:
        """The file with that key, regardless of its owner; for URLs that contain only the key."""
        ...


class TurnRepository(Protocol):
    async def open(self, turn: NewTurn) -> StoredTurn | ReplayedRun:
        """Store the message and its run. Raises ``NotFound``, ``Conflict`` or ``Busy``; then nothing is stored."""
        ...

    async def find_replayed(self, turn: NewTurn) -> ReplayedRun | None:
        """The run that an earlier call with this idempotency key started. Raises ``Conflict`` if its request
        differed."""
        ...


class RunRepository(Protocol):
    async def get_answer(self, app_id: int, run_uid: UUID) -> Message | None:
        """The assistant message that ``run`` writes, as last saved."""
        ...

    async def get_answer_with_conversation(
        self, app_id: int, user_id: int, run_uid: UUID
    ) -> tuple[Message, Conversation] | None:
        """The assistant message that ``run`` writes in a conversation of the end user, and that conversation."""
        ...

    async def get_question_and_answer(self, app_id: int, run_uid: UUID) -> tuple[Message, Message] | None:
        """The question and the answer of ``run``."""
        ...

    async def list_live(self, app_id: int, conversation_id: int) -> list[UUID]:
        """The running and queued runs of the conversation, newest first."""
        ...

    async def any_live(self, app_id: int, runs: Sequence[UUID]) -> bool:
        """Whether the end of any of these runs is not stored yet."""
        ...

    async def get_growth(self, app_id: int, run_uid: UUID, start: int) -> StoredGrowth:
        """The stored pieces of a live run's message from the cursor ``start`` on."""
        ...

    async def get_queue(self, app_id: int, user_id: int, conversation: Ref) -> tuple[int, ...]:
        """The ids of the running and queued runs of the user's conversation, in order; empty if it does not exist."""
        ...

    async def notify_stop(self, runs: Sequence[UUID]) -> None:
        """Notify every process to stop these runs."""
        ...

    async def notify_stop_abandoned(self, runs: Sequence[int]) -> None:
        """Notify every process to stop those of these runs that have no reader."""
        ...

    async def notify_has_reader(self, run_id: int) -> None:
        """Notify the process that executes the run that it has a reader in this one."""
        ...

    async def notify_growth(self, runs: Sequence[int]) -> None:
        """Notify every process that pieces of these runs are stored."""
        ...

    async def append(self, growths: Sequence[Growth]) -> None:
        """Store the pieces, all of them or none. Raises ``Unstorable`` if one of them cannot be stored."""
        ...

    async def fold(self) -> bool:
        """Fold the pieces of one ended message into its parts. Returns False if there is none."""
        ...

    async def finish(self, results: Sequence[RunResult], worker: int | None) -> set[int]:
        """Store all results or none; runs that have already ended, or belong to another process than ``worker``, are
        unchanged. Returns the ids of the runs that may start now, because they are first in their conversation. Raises
        ``Unstorable`` if one cannot be stored."""
        ...

    async def begin_step(
        self, app_id: int, conversation_id: int, run_id: int, *, worker: int, step: int, usage: Usage
    ) -> bool:
        """Record that the run's model call number ``step`` begins, and the usage so far. Returns False if the run is
        not ``worker``'s, or has ended."""
        ...

    async def pause(
        self, app_id: int, conversation_id: int, run_id: int, *, worker: int, pause: Pause, usage: Usage
    ) -> bool:
        """Pause the run; from then on, it belongs to no process. Returns False if it is not ``worker``'s."""
        ...

    async def provide(self, app_id: int, run_uid: UUID, result: ToolResult, *, worker: int) -> bool | None:
        """Append the result of a pending call to a paused run. With the last one, the run becomes ``worker``'s. Returns
        whether it did, or ``None`` if the run does not wait for the call."""
        ...

    async def take_over(self, workers: Sequence[int], *, worker: int, limit: int) -> list[tuple[int, UUID]]:
        """Assign up to ``limit`` live runs of ``workers``, which have died, to ``worker``. Returns (application id, run
        uid) of each, in the order of their conversations."""
        ...

    async def list_paused(self, app_id: int, runs: Sequence[UUID]) -> list[Message]:
        """Those of the runs that are paused."""
        ...

    async def get_run(self, app_id: int, run_uid: UUID) -> StoredRun | None:
        """The run, if it is live."""
        ...


class Store(Protocol):
    """The repositories that core uses."""

    @property
    def agents(self) -> AgentRepository: ...

    @property
    def users(self) -> UserRepository: ...

    @property
    def conversations(self) -> ConversationRepository: ...

    @property
    def turns(self) -> TurnRepository: ...

    @property
    def runs(self) -> RunRepository: ...

    @property
    def files(self) -> FileRepository: ...

    @property
    def tokens(self) -> TokenRepository: ...


class AdmittedCalls(Value, frozen=True, kw_only=True):
    """The number of calls that each limit admits; the smallest of the three was counted. ``wait_s`` and ``wait_day_s``
    are the seconds until the current minute and day end."""

    by_rate: int
    by_day: int
    by_total: int
    wait_s: float
    wait_day_s: float


class StoredResponse(Value, frozen=True, kw_only=True):
    """A complete HTTP response, stored for replay."""

    status: int
    media_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    conversation: int | None = None
    """The conversation (or file) it is about; the response is deleted together with it."""
    file: int | None = None


class ApiKeyRepository(Protocol):
    async def get_by_id(self, dialect: str, id: str) -> ApiKey | None: ...

    async def get_by_secret(self, dialect: str, secret: str) -> ApiKey | None: ...

    async def get_by_number(self, app_id: int, number: int) -> ApiKey | None: ...

    def record_use(self, key: ApiKey) -> None:
        """Count an admitted call."""
        ...

    async def list_with_setting(self, dialect: str, name: str) -> list[ApiKey]:
        """The enabled credentials for which that setting is true."""
        ...


class RateLimitRepository(Protocol):
    async def count(self, key: ApiKey, calls: int) -> AdmittedCalls: ...

    async def refund(self, key: ApiKey) -> None:
        """Give one call back to the ``total`` limit."""
        ...

    async def claim_nonce(self, key: ApiKey, request: str, ttl_s: float) -> bool:
        """Record a request id. Returns whether the credential has not used it within the last ``ttl_s`` seconds."""
        ...


class IdempotencyRepository(Protocol):
    async def begin(
        self, principal: Principal, user: User, key: IdempotencyKey, ttl_s: float, worker: int
    ) -> StoredResponse | bool:
        """The stored response of an identical call. ``True``: this call is the first and must ``complete`` or
        ``release`` it; ``False``: an identical call is in progress. Raises ``Conflict`` for a different request under
        the same key."""
        ...

    async def complete(
        self, principal: Principal, user: User, key: IdempotencyKey, response: StoredResponse
    ) -> None: ...

    async def release(self, principal: Principal, user: User, key: IdempotencyKey) -> None: ...


class TokenRepository(Protocol):
    """Lookups return a token only while its credential is enabled and has the token's generation."""

    async def issue(self, token: Token, secret: str, *, parent: str | None = None) -> bool:
        """Store a token under its secret text. Returns False without storing it if its parent token, whose text is
        ``parent``, has been revoked."""
        ...

    async def find(self, secret: str, kind: str) -> Token | None:
        """An unexpired token by its secret text."""
        ...

    async def redeem(self, secret: str, kind: str, *, remember_s: float) -> Token | None:
        """Like ``find``, for a single-use token. A second use within ``remember_s`` seconds returns ``None`` and
        revokes its family."""
        ...

    def sign(self, token: Token) -> str:
        """A signed text that contains the token; nothing is stored."""
        ...

    async def verify(self, text: str) -> Token | None:
        """The unexpired token in a text from ``sign``, or ``None``."""
        ...
