"""What core needs from outside: small async Protocols.

``Model`` has several implementations (``palaver.models``), so have ``Tool`` and ``Knowledge``. ``Store`` has one,
PostgreSQL: it stands here because core may not know a driver, and so that every statement a use case costs is named
in one place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec

from palaver.core.problems import Problem
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


class ModelRequest(Value, frozen=True, kw_only=True):
    """Everything a model gets to see for one step."""

    model: str
    """The name the endpoint knows the model by: what follows the colon in ``openai:NAME``."""
    instructions: str
    history: tuple[ModelTurn, ...]
    tools: tuple[ToolSpec, ...] = ()
    passages: tuple[Passage, ...] = ()
    """What retrieval found for this question; ``instructions`` do not repeat them."""
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


class Finished(Value, frozen=True, kw_only=True):
    """The step is over, always last. ``reason``: ``stop``, ``length``, ``tool_calls``, ``content_filter``, …"""

    reason: str = "stop"
    usage: Usage = Usage()


Delta = Say | Think | Call | Finished


class Model(Protocol):
    """A chat model. ``stream`` yields deltas and one ``Finished``; it raises ``Upstream`` when the endpoint fails.

    Closing the generator (or cancelling its task) closes the connection to the endpoint at once.
    """

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]: ...


class Models(Protocol):
    def resolve(self, spec: str | None) -> tuple[Model, str]:
        """The model that ``spec`` (``openai:NAME``, ``extract``, …; ``None``: the server's default) names, and the
        NAME. Raises ``Upstream(reason="configuration")`` for a spec that cannot work here."""
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
    async def search(self, app: int, names: Sequence[str], query: str, limit: int) -> list[Passage]:
        """The best passages for ``query`` in the application's knowledge bases called ``names``, best first."""
        ...


# Store --------------------------------------------------------------------------------------------------------------


class Claim(Value, frozen=True, kw_only=True):
    """An ``Idempotency-Key`` as a run is to remember it. ``digest`` tells one request from another."""

    scope: str
    key: str
    digest: bytes


class Opening(Value, frozen=True, kw_only=True):
    """One user message and the run that answers it, as they are to be stored together."""

    who: Principal
    user: User
    agent: Agent
    run: UUID
    parts: tuple[AnyPart, ...]
    conversation: Ref | None
    """``None``: a new one."""
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
    question: int
    """Id of the user's message."""
    run: int
    """Id of the run and of the assistant's message."""
    first: bool


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


class Growth(Value, frozen=True, kw_only=True):
    """The state of a run that goes on, as it is to be stored."""

    app: int
    conversation: int
    run: int
    parts: tuple[AnyPart, ...]


class Agents(Protocol):
    async def get(self, app: int, ref: Ref) -> Agent | None: ...


class Users(Protocol):
    async def named(self, app: int, name: str) -> User:
        """The end user of that name (or issued uid), made when there is none."""
        ...


class Conversations(Protocol):
    async def create(
        self, who: Principal, user: User, agent: Agent, *, alias: str | None = None, title: str | None = None
    ) -> Conversation: ...

    async def get(self, app: int, user: int, ref: Ref) -> Conversation | None: ...

    async def page(
        self, app: int, user: int, *, agent: int | None, after: Conversation | None, limit: int
    ) -> list[Conversation]:
        """The user's conversations, the one changed last first, beginning behind ``after``."""
        ...

    async def rename(self, app: int, user: int, ref: Ref, title: str) -> Conversation | None: ...

    async def delete(self, app: int, user: int, ref: Ref) -> list[UUID] | None:
        """Remove it with its messages. The runs that were live in it; ``None`` when there is no such conversation."""
        ...

    async def history(self, app: int, conversation: int, *, before: int | None, limit: int) -> list[Message]:
        """The newest ``limit`` messages with an id below ``before``, oldest first."""
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

    async def save(self, growths: Sequence[Growth]) -> None: ...

    async def finish(self, outcomes: Sequence[Outcome]) -> set[int]:
        """Store the ends; runs that somebody else had ended already stay as they were. The ids of runs that may
        start now, because they are first in their conversation."""
        ...

    async def interrupt(self, dead: Sequence[int], problem: Problem) -> int:
        """End every live run of the workers ``dead`` as interrupted, with the text saved; how many there were."""
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


# Admission ----------------------------------------------------------------------------------------------------------


class Counted(Value, frozen=True, kw_only=True):
    """How many of the calls asked about the minute's limit and the lifetime's admit; ``wait`` is the time until the
    minute is over, in seconds. ``min(by_rate, by_total)`` of them were counted."""

    by_rate: int
    by_total: int
    wait: float


class Keys(Protocol):
    async def by_id(self, dialect: str, id: str) -> Key | None: ...

    async def by_secret(self, dialect: str, secret: str) -> Key | None: ...


class Usages(Protocol):
    async def count(self, key: Key, calls: int) -> Counted: ...
