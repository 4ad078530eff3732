"""What core needs of a database: values to store and one repository per noun.

There is one implementation, ``palaver.store`` on PostgreSQL. The Protocols stand here because core may not know a
driver, and so that every statement a use case costs is named in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Protocol
from uuid import UUID

from palaver.core.byte_source import ByteSource
from palaver.core.problems import Problem
from palaver.core.types import (
    Agent,
    AnyPart,
    ApiKey,
    Conversation,
    Message,
    Principal,
    Ref,
    RunEnded,
    StoredFile,
    Token,
    User,
    Value,
)


class IdempotencyKey(Value, frozen=True, kw_only=True):
    """An ``Idempotency-Key`` as a run is to remember it. ``digest`` tells one request from another."""

    scope: str
    key: str
    digest: bytes

    def topic(self, who: Principal, user: User) -> str:
        """A short name of the claim, the same in every process."""
        name = repr((who.app, who.key.number, user.id, self.scope, self.key))
        return blake2b(name.encode(), digest_size=16).hexdigest()


class NewTurn(Value, frozen=True, kw_only=True):
    """One user message and the run that answers it, as they are to be stored together."""

    who: Principal
    user: User
    agent: Agent
    run: UUID
    question: UUID
    """Uid of the user's message."""
    parts: tuple[AnyPart, ...]
    conversation: Ref | None
    """``None``: a new one."""
    variables: dict[str, Any] | None = None
    """Of the conversation, if this opens one."""
    create_as: str | None = None
    """The alias under which an unknown ``conversation`` is made; ``None``: unknown is *not found*."""
    max_waiting: int = 4
    worker: int
    idempotency_key: IdempotencyKey | None = None
    idempotency_ttl_s: float = 86_400
    """Seconds for which the claim is remembered."""


class StoredTurn(Value, frozen=True, kw_only=True):
    """What ``RunRepository.open`` stored. ``first`` says whether the run may start, or waits for another one to end."""

    conversation: Conversation
    question: Message
    answer: Message
    """Empty yet; its id and uid are the run's."""
    first: bool
    ahead: tuple[int, ...] = ()
    """The runs it waits for, the working one first."""


class ReplayedRun(Value, frozen=True, kw_only=True):
    """The claim was made before, by an equal request: this is its run."""

    run: UUID


class RunResult(Value, frozen=True, kw_only=True):
    """The end of a run, as it is to be stored."""

    app: int
    run: int
    conversation: int
    parts: tuple[AnyPart, ...]
    ended: RunEnded
    size: int = 0
    """About how many bytes the parts have as JSON."""


class Checkpoint(Value, frozen=True, kw_only=True):
    """The state of a run that goes on, as it is to be stored."""

    app: int
    conversation: int
    run: int
    parts: tuple[AnyPart, ...]
    size: int = 0


class ConversationQuery(Value, frozen=True, kw_only=True):
    """Which of a user's conversations, in which stretch. Always the one changed last first."""

    agent: int | None = None
    titled: bool = False
    """Only those that somebody gave a title."""
    containing: str | None = None
    """Only those with this in their title."""
    after: tuple[datetime, int] | None = None
    """Begin behind this (modified, id)."""
    below: int | None = None
    """Begin below this id: where the conversation to begin behind is gone."""
    offset: int = 0
    limit: int = 20
    variables: int = 0
    """How many bytes of variables are read, as they are stored, and always one conversation's; 0: none's."""


class Stretch(Value, frozen=True, kw_only=True):
    """Neighbouring messages, oldest first, and how many bytes they have as they are stored. ``next`` is the uid of the
    one after them in the direction in which they were asked for; ``None``: there is none."""

    messages: tuple[Message, ...] = ()
    size: int = 0
    next: UUID | None = None


class AgentRepository(Protocol):
    async def get(self, app: int, ref: Ref) -> Agent | None: ...

    async def of(self, app: int) -> tuple[Agent, ...]:
        """Every agent of the application, by name, then id."""
        ...


class UserRepository(Protocol):
    async def named(self, app: int, name: str) -> User:
        """The end user of that name (or issued uid), made when there is none."""
        ...

    async def known(self, app: int, name: str) -> User | None:
        """The same where there is one."""
        ...

    async def find(self, app: int, ref: Ref) -> User | None:
        """By number, issued uid or name."""
        ...

    async def register(self, app: int, name: str | None, nickname: str | None, avatar: str | None) -> tuple[User, bool]:
        """The end user of that name (a new one without), with the profile given; whether it was made just now."""
        ...

    async def subscribe(self, app: int, user: int, agent: int, *, on: bool) -> None: ...

    async def subscribed(self, app: int, user: int) -> set[int]:
        """Ids of the agents the user subscribed."""
        ...


class ConversationRepository(Protocol):
    async def create(
        self,
        who: Principal,
        user: User,
        agent: Agent,
        *,
        alias: str | None = None,
        title: str | None = None,
        variables: dict[str, Any] | None = None,
    ) -> Conversation: ...

    async def get(self, app: int, user: int, ref: Ref) -> Conversation | None: ...

    async def page(self, app: int, user: int, listing: ConversationQuery) -> list[Conversation]: ...

    async def count(self, app: int, user: int, listing: ConversationQuery) -> int:
        """How many there are in all pages."""
        ...

    async def rename(
        self, app: int, user: int, ref: Ref, *, title: str, icon: str | None = None
    ) -> Conversation | None: ...

    async def delete(self, app: int, user: int, ref: Ref) -> list[UUID] | None:
        """Remove it with its messages. The runs that were live in it; ``None`` when there is no such conversation."""
        ...

    async def clear(self, app: int, user: int, agent: int) -> list[UUID]:
        """Remove every conversation of the user with the agent; the runs that were live in them."""
        ...

    async def history(
        self,
        app: int,
        conversation: int,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int,
        size: int,
        always_one: bool = True,
    ) -> Stretch:
        """``limit`` messages, oldest first, that have ``size`` bytes together, as they are stored: the newest ones
        below id ``before``, or the first ones above ``after``. One of more bytes comes alone, if ``always_one``."""
        ...

    async def behind(self, app: int, conversation: int, *, before: int | None, limit: int) -> int:
        """The id behind which the newest ``limit`` messages below ``before`` come; less than the first of them."""
        ...


class FileRepository(Protocol):
    async def add(
        self,
        app: int,
        user: int,
        *,
        key: str,
        name: str,
        media_type: str,
        content: bytes | ByteSource,
        details: dict[str, Any],
        conversation: int | None = None,
    ) -> StoredFile:
        """With a ``conversation``, the file goes when that one goes."""
        ...

    async def get(self, app: int, key: str) -> StoredFile | None: ...

    async def find(self, app: int, user: int, ref: str) -> StoredFile | None:
        """The end user's file of that key, uid or number."""
        ...

    async def content(self, file: StoredFile, *, start: int = 0, length: int | None = None) -> bytes: ...

    async def delete(self, app: int, user: int, key: str) -> bool:
        """Remove the end user's file of that key. Whether there was one."""
        ...

    async def by_key(self, key: str) -> StoredFile | None:
        """Whoever's it is, for addresses that carry nothing but the key."""
        ...


class RunRepository(Protocol):
    async def open(self, turn: NewTurn) -> StoredTurn | ReplayedRun:
        """Store message and run. Raises ``NotFound``, ``Conflict``, ``Busy``; leaves nothing behind when it does."""
        ...

    async def find_replayed(self, turn: NewTurn) -> ReplayedRun | None:
        """The run that an equal call with this claim began before. Raises ``Conflict`` when it was another call."""
        ...

    async def get(self, app: int, run: UUID) -> Message | None:
        """The assistant's message that ``run`` writes, as it was last saved."""
        ...

    async def turn(self, app: int, run: UUID) -> tuple[Message, Message] | None:
        """Question and answer of ``run``."""
        ...

    async def live(self, app: int, conversation: int) -> list[UUID]:
        """The runs that work or wait in the conversation, the last one first."""
        ...

    async def any_live(self, app: int, runs: Sequence[UUID]) -> bool:
        """Whether one of these runs has not ended, by what is stored."""
        ...

    async def row_version(self, app: int, run: UUID) -> str | None:
        """Something that changes whenever the run's message is saved; ``None``: there is no such message."""
        ...

    async def queue(self, app: int, user: int, conversation: Ref) -> tuple[int, ...]:
        """Ids of the runs that work or wait in the user's conversation, in order; none where there is no such."""
        ...

    async def tell_to_stop(self, runs: Sequence[UUID]) -> None:
        """Tell every process to stop these runs."""
        ...

    async def tell_to_stop_abandoned(self, runs: Sequence[int]) -> None:
        """Tell every process to stop those of these runs that nobody reads."""
        ...

    async def tell_of_reader(self, run: int) -> None:
        """Tell the process that works on the run that somebody reads it in this one."""
        ...

    async def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Raises ``Unstorable`` when one of them cannot be stored; then none is."""
        ...

    async def finish(self, results: Sequence[RunResult]) -> set[int]:
        """Store the ends; runs that somebody else had ended already stay as they were. The ids of runs that may
        start now, because they are first in their conversation. Raises ``Unstorable`` when one of them cannot be
        stored; then none is."""
        ...

    async def interrupt(self, dead: Sequence[int], problem: Problem, *, only: Sequence[int] | None = None) -> int:
        """End every live run of the workers ``dead`` (or of them those in ``only``) as interrupted, with the text
        saved; how many there were."""
        ...


class Store(Protocol):
    """Everything core asks of the database."""

    @property
    def agents(self) -> AgentRepository: ...

    @property
    def users(self) -> UserRepository: ...

    @property
    def conversations(self) -> ConversationRepository: ...

    @property
    def runs(self) -> RunRepository: ...

    @property
    def files(self) -> FileRepository: ...

    @property
    def tokens(self) -> TokenRepository: ...


class AdmittedCalls(Value, frozen=True, kw_only=True):
    """How many of the calls asked about each limit admits; the smallest of the three were counted. ``wait`` is the
    time until the exhausted window is over, in seconds."""

    by_rate: int
    by_day: int
    by_total: int
    wait: float
    wait_day: float


class StoredResponse(Value, frozen=True, kw_only=True):
    """A whole answer as it was given, to be given again."""

    status: int
    media_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    conversation: int | None = None
    """What it is about: with that, it goes."""
    file: int | None = None


class ApiKeyRepository(Protocol):
    async def by_id(self, dialect: str, id: str) -> ApiKey | None: ...

    async def by_secret(self, dialect: str, secret: str) -> ApiKey | None: ...

    async def by_number(self, app: int, number: int) -> ApiKey | None: ...

    def note_use(self, key: ApiKey) -> None:
        """Count an admitted call."""
        ...

    async def with_setting(self, dialect: str, name: str) -> list[ApiKey]:
        """Those enabled for which that setting is true."""
        ...


class UsageRepository(Protocol):
    async def count(self, key: ApiKey, calls: int) -> AdmittedCalls: ...

    async def refund(self, key: ApiKey) -> None:
        """One call less towards the lifetime's limit."""
        ...

    async def first_time(self, key: ApiKey, request: str, ttl: float) -> bool:
        """Whether the key did not use this request id within ``ttl`` seconds; it has now."""
        ...


class IdempotencyRepository(Protocol):
    async def begin(
        self, who: Principal, user: User, claim: IdempotencyKey, ttl: float, worker: int
    ) -> StoredResponse | bool:
        """The answer that an equal call got; ``True``: this call is the first and must ``settle`` or ``abandon``;
        ``False``: another one works on it. Raises ``Conflict`` for another request under the same key."""
        ...

    async def settle(self, who: Principal, user: User, claim: IdempotencyKey, answer: StoredResponse) -> None: ...

    async def abandon(self, who: Principal, user: User, claim: IdempotencyKey) -> None: ...


class TokenRepository(Protocol):
    """Every look-up gives a token only while its credential is enabled, and of the token's generation."""

    async def issue(self, token: Token, secret: str, *, under: str | None = None) -> bool:
        """Keep a token under its secret text. False, and nothing is kept, where ``under``, the text of the one that it
        comes from, has been revoked."""
        ...

    async def find(self, secret: str, kind: str) -> Token | None:
        """An unexpired token by its secret text."""
        ...

    async def use(self, secret: str, kind: str, *, remember_s: float) -> Token | None:
        """The same for what is good once. Using it again within ``remember_s`` seconds gives nothing, and revokes its
        family."""
        ...

    def sign(self, token: Token) -> str:
        """A text that is the token itself; nothing is stored."""
        ...

    async def signed(self, text: str) -> Token | None:
        """The unexpired token that ``sign`` gave the text of."""
        ...
