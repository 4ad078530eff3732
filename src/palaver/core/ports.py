"""What core needs from outside: small async Protocols.

``Model`` has several implementations (``palaver.models``), so have ``Tool`` and ``Knowledge``. ``Store`` has one,
PostgreSQL: it stands here because core may not know a driver, and so that every statement a use case costs is named
in one place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec

from palaver.core.content import Content
from palaver.core.problems import Problem
from palaver.core.tokens import Tokens
from palaver.core.types import (
    Agent,
    AnyPart,
    Conversation,
    Ended,
    Key,
    Message,
    Passage,
    Principal,
    Ref,
    StoredFile,
    ToolCall,
    Usage,
    User,
    Value,
)

# Models -------------------------------------------------------------------------------------------------------------


class ToolSpec(Value, frozen=True, kw_only=True):
    """A tool as a model sees it. ``parameters`` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ModelTurn(Value, frozen=True, kw_only=True):
    """One entry of what a model reads: a user's or an assistant's parts (an assistant's tool results among them)."""

    role: Literal["user", "assistant"]
    parts: tuple[AnyPart, ...]


class Attachment(Value, frozen=True, kw_only=True):
    """A file beside a message as a model may see it: its text, a picture's bytes, or why there is neither."""

    name: str
    media_type: str = ""
    text: str | None = None
    image: bytes | None = None
    missing: str = ""


class ModelRequest(Value, frozen=True, kw_only=True):
    """Everything a model gets to see for one step."""

    model: str
    """The name the endpoint knows the model by: what follows the colon in ``openai:NAME``."""
    instructions: str
    history: tuple[ModelTurn, ...]
    tools: tuple[ToolSpec, ...] = ()
    passages: tuple[Passage, ...] = ()
    """What retrieval found for this question; ``instructions`` do not repeat them."""
    attachments: dict[str, Attachment] = msgspec.field(default_factory=dict[str, Attachment])
    """What stands in the history's files, by their ``ref``. One that is not here is only named."""
    variables: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    trace: str = ""
    """The request's trace id, for logs and for the endpoint's ``X-Request-ID``."""


class Say(Value, frozen=True, kw_only=True):
    """A piece of the answer (never empty)."""

    text: str


class Think(Value, frozen=True, kw_only=True):
    """A piece of reasoning (never empty)."""

    text: str
    provider_data: dict[str, Any] | None = None


class Call(Value, frozen=True, kw_only=True):
    """The model wants a tool called; sent once its arguments are complete."""

    call: ToolCall


class UsageDelta(Value, frozen=True, kw_only=True):
    """The tokens of this step so far, not since the last one: an endpoint that reports them with every piece may be
    cut off before ``Finished``."""

    usage: Usage


class Finished(Value, frozen=True, kw_only=True):
    """The step is over, always last. ``reason``: ``stop``, ``length``, ``tool_calls``, ``content_filter``, …
    ``usage`` is unknown where a ``UsageDelta`` has said all there was."""

    reason: str = "stop"
    usage: Usage = Usage()


Delta = Say | Think | Call | UsageDelta | Finished


class Model(Protocol):
    """A chat model. ``stream`` yields deltas and one ``Finished``; it raises ``Upstream`` when the endpoint fails.

    Closing the generator (or cancelling its task) closes the connection to the endpoint at once.
    """

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]: ...


class Picture(Value, frozen=True, kw_only=True):
    """An image and its media type."""

    content: bytes
    media_type: str


class Painter(Protocol):
    async def paint(self, model: str, text: str) -> Picture:
        """Raises ``Upstream``."""
        ...


class Speaker(Protocol):
    async def speak(self, model: str, text: str, voice: str) -> bytes:
        """An MP3 file. Raises ``Upstream``."""
        ...


class Models(Protocol):
    def painter(self, spec: str | None) -> tuple[Painter, str] | None:
        """Who paints by ``spec`` (``None``: by the server's default), and the model's name; ``None``: nobody does."""
        ...

    def speaker(self, spec: str | None) -> tuple[Speaker, str] | None: ...

    def resolve(self, spec: str | None, fallback: str | None = None) -> tuple[Model, str]:
        """The model that ``spec`` (``openai:NAME``, ``extract``, …; ``None``: the server's default) names, and the
        NAME. Where it fails before its first word, the one that ``fallback`` (``None``: the server's, if any) names
        answers. Raises ``Upstream(reason="configuration")`` for a spec that cannot work here."""
        ...


# Tools and knowledge ------------------------------------------------------------------------------------------------


class ToolOutput(Value, frozen=True, kw_only=True):
    """``content`` is what the model reads; ``data`` the same for programs."""

    content: str
    data: Any = None
    error: bool = False


class Tool(Protocol):
    """What an agent can do. ``call`` answers a failure of the tool's own as ``ToolOutput(error=True)``."""

    @property
    def spec(self) -> ToolSpec: ...

    async def call(self, arguments: dict[str, Any]) -> ToolOutput: ...


class Knowledge(Protocol):
    """Documents that can be searched. Whether somebody may is decided before: by the agent whose turn it is, or in
    ``core.knowledge``."""

    async def search(self, app: int, names: Sequence[str], query: str, limit: int) -> list[Passage]:
        """The best passages for ``query`` in the application's knowledge bases called ``names``, best first."""
        ...

    async def find(self, app: int, ref: Ref) -> str | None:
        """The name of the application's knowledge base with that number, uid or name; ``None``: there is none."""
        ...


class DocumentText(Value, frozen=True, kw_only=True):
    """What a file says, as far as it was wanted; ``more`` counts the characters beyond that."""

    text: str
    more: int = 0


class Unreadable(Exception):  # noqa: N818  said of a document, not an error of ours
    """Why a document was not read, for a person who can change it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Documents(Protocol):
    async def text(
        self, app: int, user: int, name: str, media_type: str, content: Callable[[], Awaitable[bytes]], limit: int
    ) -> DocumentText:
        """``limit`` characters of what a file says, whose ``content`` is asked for when there is a reader free: end
        users wait for their turn, so that nobody's files hold up somebody else's. Raises ``Unreadable``."""
        ...


# Store --------------------------------------------------------------------------------------------------------------


class Claim(Value, frozen=True, kw_only=True):
    """An ``Idempotency-Key`` as a run is to remember it. ``digest`` tells one request from another."""

    scope: str
    key: str
    digest: bytes

    def topic(self, who: Principal, user: User) -> str:
        """A short name of the claim, the same in every process."""
        name = repr((who.app, who.key.number, user.id, self.scope, self.key))
        return blake2b(name.encode(), digest_size=16).hexdigest()


class Opening(Value, frozen=True, kw_only=True):
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
    claim: Claim | None = None
    claim_ttl: float = 86_400
    """Seconds for which the claim is remembered."""


class Accepted(Value, frozen=True, kw_only=True):
    """What ``Runs.open`` stored. ``first`` says whether the run may start, or waits for another one to end."""

    conversation: Conversation
    question: Message
    answer: Message
    """Empty yet; its id and uid are the run's."""
    first: bool
    ahead: tuple[int, ...] = ()
    """The runs it waits for, the working one first."""


class Replay(Value, frozen=True, kw_only=True):
    """The claim was made before, by an equal request: this is its run."""

    run: UUID


class Outcome(Value, frozen=True, kw_only=True):
    """The end of a run, as it is to be stored."""

    app: int
    run: int
    conversation: int
    parts: tuple[AnyPart, ...]
    ended: Ended
    size: int = 0
    """About how many bytes the parts have as JSON."""


class Growth(Value, frozen=True, kw_only=True):
    """The state of a run that goes on, as it is to be stored."""

    app: int
    conversation: int
    run: int
    parts: tuple[AnyPart, ...]
    size: int = 0


class Listing(Value, frozen=True, kw_only=True):
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


class Agents(Protocol):
    async def get(self, app: int, ref: Ref) -> Agent | None: ...

    async def of(self, app: int) -> tuple[Agent, ...]:
        """Every agent of the application, by name, then id."""
        ...


class Users(Protocol):
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


class Conversations(Protocol):
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

    async def page(self, app: int, user: int, listing: Listing) -> list[Conversation]: ...

    async def count(self, app: int, user: int, listing: Listing) -> int:
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


class Files(Protocol):
    async def add(
        self,
        app: int,
        user: int,
        *,
        key: str,
        name: str,
        media_type: str,
        content: bytes | Content,
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


class Runs(Protocol):
    async def open(self, opening: Opening) -> Accepted | Replay:
        """Store message and run. Raises ``NotFound``, ``Conflict``, ``Busy``; leaves nothing behind when it does."""
        ...

    async def earlier(self, opening: Opening) -> Replay | None:
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

    async def save(self, growths: Sequence[Growth]) -> None:
        """Raises ``Unstorable`` when one of them cannot be stored; then none is."""
        ...

    async def finish(self, outcomes: Sequence[Outcome]) -> set[int]:
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
    def agents(self) -> Agents: ...

    @property
    def users(self) -> Users: ...

    @property
    def conversations(self) -> Conversations: ...

    @property
    def runs(self) -> Runs: ...

    @property
    def files(self) -> Files: ...

    @property
    def tokens(self) -> Tokens: ...


# Admission ----------------------------------------------------------------------------------------------------------


class Counted(Value, frozen=True, kw_only=True):
    """How many of the calls asked about each limit admits; the smallest of the three were counted. ``wait`` is the
    time until the exhausted window is over, in seconds."""

    by_rate: int
    by_day: int
    by_total: int
    wait: float
    wait_day: float


class Answer(Value, frozen=True, kw_only=True):
    """A whole answer as it was given, to be given again."""

    status: int
    media_type: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    conversation: int | None = None
    """What it is about: with that, it goes."""
    file: int | None = None


class Keys(Protocol):
    async def by_id(self, dialect: str, id: str) -> Key | None: ...

    async def by_secret(self, dialect: str, secret: str) -> Key | None: ...

    async def by_number(self, app: int, number: int) -> Key | None: ...

    def note_use(self, key: Key) -> None:
        """Count an admitted call."""
        ...

    async def with_setting(self, dialect: str, name: str) -> list[Key]:
        """Those enabled for which that setting is true."""
        ...


class Usages(Protocol):
    async def count(self, key: Key, calls: int) -> Counted: ...

    async def give_back(self, key: Key) -> None:
        """One call less towards the lifetime's limit."""
        ...

    async def first_time(self, key: Key, request: str, ttl: float) -> bool:
        """Whether the key did not use this request id within ``ttl`` seconds; it has now."""
        ...


class Claims(Protocol):
    async def begin(self, who: Principal, user: User, claim: Claim, ttl: float, worker: int) -> Answer | bool:
        """The answer that an equal call got; ``True``: this call is the first and must ``settle`` or ``give_up``;
        ``False``: another one works on it. Raises ``Conflict`` for another request under the same key."""
        ...

    async def settle(self, who: Principal, user: User, claim: Claim, answer: Answer) -> None: ...

    async def give_up(self, who: Principal, user: User, claim: Claim) -> None: ...
