"""The use cases for agents and conversations, independent of the dialect.

Every lookup is by (application, end user, ref): another end user's resources look nonexistent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from palaver.core.context import HISTORY_BYTES
from palaver.core.feed import RunReader, read_to_end
from palaver.core.history import FullHistory, History, HistoryPage
from palaver.core.ports.store import (
    ConversationQuery,
    IdempotencyKey,
    NewTurn,
    ReplayedRun,
    RunInput,
    StoredTurn,
)
from palaver.core.ports.tools import ToolOutput, ToolSpec
from palaver.core.problems import Busy, Conflict, Internal, Invalid, NotFound, Problem
from palaver.core.recovery import take_up
from palaver.core.runs import ActiveRun, RunRegistry
from palaver.core.singleflight import SingleFlight
from palaver.core.suggestions import generate_suggestions
from palaver.core.titles import generate_title
from palaver.core.turn import TurnServices, turn_context
from palaver.core.types import (
    Agent,
    AnyPart,
    Conversation,
    Message,
    ModelSettings,
    Principal,
    Ref,
    Text,
    ToolResult,
    User,
    clean,
    clean_json,
    new_uid,
)

SUGGESTION_MESSAGES = 40
"""Number of messages read to suggest follow-up questions."""
STOP_TIMEOUT_S = 5.0
"""Seconds that a stop waits for the run's end to be stored before it fails."""
ACCEPT_TIMEOUT_S = 10.0
"""Seconds that a duplicate call waits for the first one's message to be stored."""
QUEUE_RETRY_DELAYS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between attempts to store a message while the turns that fill its conversation's queue are being stopped."""
MAX_OPENING = 255
"""Characters of the first message stored with a conversation, for lists that show it as a title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """Server settings that limit the use cases."""

    max_waiting_turns: int
    idempotency_ttl_s: float
    max_page_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A user message, as parsed by a dialect. ``disabled_tools`` lists the tools disabled for this message only, as
    (``mcp`` or ``skill``, id); ``idempotency_key`` is the call's ``Idempotency-Key``."""

    parts: tuple[AnyPart, ...]
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    conversation_variables: dict[str, Any] | None = None
    """Stored with the conversation if this message starts one."""
    variables_field: str | None = "variables"
    """The request field for variables, named in the error for a missing one; ``None``: the API makes all of them
    optional."""
    disabled_tools: frozenset[tuple[str, int]] = frozenset()
    caller_tools: tuple[ToolSpec, ...] = ()
    """Tools that the caller offers. A call of one pauses the run until ``Chat.provide`` has its result."""
    instructions: str = ""
    """The caller's instructions, which follow the agent's."""
    settings: ModelSettings = field(default_factory=ModelSettings)
    idempotency_key: IdempotencyKey | None = None
    trace: str = ""
    stop_abandoned: bool = False
    """Stop earlier turns that nobody reads instead of waiting for them: the dialect's default. The credential's
    setting ``abandoned`` overrides it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of the calling user. ``answer`` is the message it writes, in its state at the time of the call; its uid is
    the run's."""

    answer: Message
    conversation: Conversation
    agent: Agent

    @property
    def run_uid(self) -> UUID:
        return self.answer.uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn(Run):
    """An accepted message and the run that answers it, with a reader. ``replayed``: an earlier call with the same key
    began the run."""

    question: Message
    reader: RunReader
    replayed: bool = False


class Chat:
    """The use cases. ``who.user`` must name the end user; otherwise they raise ``NotFound(noun="user")``."""

    def __init__(self, ports: TurnServices, runs: RunRegistry, limits: ChatSettings) -> None:
        self._store = ports.store
        self._models = ports.models
        self._runs = runs
        self._limits = limits
        self._history = History(ports.store.conversations, max_page_bytes=limits.max_page_bytes)
        self._flights = SingleFlight[Turn]()

    async def agent(self, principal: Principal, ref: Ref) -> Agent:
        """The enabled agent with that ``ref``. Raises ``NotFound``, also if the key may not use it."""
        agent = await self.agent_including_disabled(principal, ref)
        require_enabled(agent, ref)
        return agent

    async def agent_including_disabled(self, principal: Principal, ref: Ref) -> Agent:
        """Like ``agent``, but includes disabled agents."""
        agent = await self._store.agents.get(principal.app, ref)
        if agent is None or not principal.may_use(agent):
            raise NotFound(noun="agent", ref=str(ref))
        return agent

    async def open_conversation(
        self, principal: Principal, ref: Ref, *, enabled: bool = False
    ) -> tuple[Conversation, Agent]:
        """The user's conversation with that ``ref``, and its agent. Raises ``NotFound(noun="conversation")``, also if
        the key may not use the agent or, with ``enabled``, if the agent is disabled."""
        conversation = await self._find(principal, ref)
        agent = None if conversation is None else await self._usable_agent(principal, conversation)
        if conversation is None or agent is None or (enabled and not agent.spec.enabled):
            raise NotFound(noun="conversation", ref=str(ref))
        return conversation, agent

    async def open_run(self, principal: Principal, uid: UUID) -> Run:
        """The user's run with that uid. Raises ``NotFound(noun="run")``, also if the key may not use its agent."""
        user = await self.find_user(principal)
        found = (
            None if user is None else await self._store.runs.get_answer_with_conversation(principal.app, user.id, uid)
        )
        if found is not None and (agent := await self._usable_agent(principal, found[1])) is not None:
            return Run(answer=found[0], conversation=found[1], agent=agent)
        raise NotFound(noun="run", ref=uid.hex)

    async def _usable_agent(self, principal: Principal, conversation: Conversation) -> Agent | None:
        """The conversation's agent, or ``None`` if the key may not use it."""
        agent = await self._store.agents.get(principal.app, conversation.agent)
        return agent if agent is not None and principal.may_use(agent) else None

    async def agents(self, principal: Principal) -> list[Agent]:
        """The enabled agents that the key may use, sorted by name, then id."""
        return [
            agent
            for agent in await self._store.agents.list_for_application(principal.app)
            if agent.spec.enabled and principal.may_use(agent)
        ]

    # Messages -------------------------------------------------------------------------------------------------------

    async def send(
        self,
        principal: Principal,
        agent: Agent,
        message: NewMessage,
        *,
        conversation: Ref | None = None,
        create_as: str | None = None,
    ) -> Turn:
        """Store the user's message and start (or queue) the run that answers it.

        ``conversation=None`` creates a new one. An unknown one raises ``NotFound``, unless ``create_as`` gives the
        alias to create it under. Raises ``NotFound``, ``Conflict``, ``Busy``, and ``Invalid(rule="required")`` for a
        missing required variable; nothing is stored in these cases.
        """
        if message.idempotency_key is None:
            return await self._send(principal, agent, message, conversation, create_as)
        topic = message.idempotency_key.topic(principal, await self._sender(principal, conversation, create_as))
        async with self._flights.acquire((topic, message.idempotency_key.digest), ACCEPT_TIMEOUT_S) as flight:
            if flight.result is not None and (live := self._runs.get(flight.result.run_uid)) is not None:
                return replace(flight.result, reader=RunReader(live), replayed=True)
            flight.result = await self._send(principal, agent, message, conversation, create_as)
            return flight.result

    async def _send(
        self, principal: Principal, agent: Agent, message: NewMessage, conversation: Ref | None, create_as: str | None
    ) -> Turn:
        has_slot = not self._runs.closing and self._runs.slots.acquire(
            principal.app, principal.key.number, principal.key.setting("max_runs")
        )
        try:
            if not has_slot and message.idempotency_key is None:
                raise self._refusal()
            turn = await self._new_turn(principal, agent, message, conversation, create_as)
            if not has_slot:  # a replay needs no slot
                stored = await self._store.turns.find_replayed(turn)
                if stored is None:
                    raise self._refusal()
            else:
                stored = await self._open(turn, stop_abandoned=_stops_abandoned(principal, message))
            if isinstance(stored, ReplayedRun):
                return await self._replay(principal, stored.run)
            has_slot = False  # the run owns the slot from here on
            return await self._begin(turn, stored, message)
        finally:
            if has_slot:
                self._runs.slots.release(principal.app, principal.key.number)

    async def _new_turn(
        self, principal: Principal, agent: Agent, message: NewMessage, conversation: Ref | None, create_as: str | None
    ) -> NewTurn:
        await self._require_variables(principal, agent, message, conversation)
        user = await self._sender(principal, conversation, create_as)
        parts = tuple(_cleaned(part) for part in message.parts)
        return NewTurn(
            principal=principal,
            user=user,
            agent=agent,
            run=new_uid(),
            question=new_uid(),
            parts=parts,
            conversation=conversation,
            variables=message.conversation_variables,
            create_as=create_as,
            max_waiting=self._limits.max_waiting_turns,
            worker=self._runs.worker(),
            input=RunInput(
                credential=principal.key.number,
                agent_revision=agent.revision,
                variables=dict(message.variables),
                disabled_tools=tuple(sorted(message.disabled_tools)),
                caller_tools=message.caller_tools,
                instructions=message.instructions,
                settings=message.settings,
                trace=message.trace,
            ),
            idempotency_key=message.idempotency_key,
            idempotency_ttl_s=self._limits.idempotency_ttl_s,
        )

    async def _begin(self, turn: NewTurn, stored: StoredTurn, message: NewMessage) -> Turn:
        """Start the run of a stored turn."""
        principal, agent = turn.principal, turn.agent
        live = ActiveRun(
            app_id=principal.app,
            run_id=stored.answer.id,
            uid=turn.run,
            context=turn_context(agent, stored.conversation, stored.question, turn.input),
            step=1 if stored.first else 0,
        )
        self._runs.add(live, start=stored.first)
        reader = RunReader(live)
        if stored.ahead and _stops_abandoned(principal, message):
            with suppress(Problem):  # the message is stored already, and can wait
                await self._stop_abandoned(stored.ahead)
        return Turn(
            conversation=stored.conversation, agent=agent, question=stored.question, answer=stored.answer, reader=reader
        )

    async def _require_variables(
        self, principal: Principal, agent: Agent, message: NewMessage, conversation: Ref | None
    ) -> None:
        values = {**(message.conversation_variables or {}), **message.variables}
        missing = [item.name for item in agent.spec.variables if item.required and _is_blank(values.get(item.name))]
        if not missing or message.variables_field is None:
            return
        stored = None if conversation is None else await self._find(principal, conversation)
        stored_values = {} if stored is None or stored.variables is None else stored.variables
        for name in missing:
            if _is_blank(stored_values.get(name)):
                detail = f"the agent {agent.name!r} requires the variable {name!r}"
                raise Invalid(field=f"{message.variables_field}.{name}", rule="required", detail=detail)

    async def _open(self, turn: NewTurn, *, stop_abandoned: bool) -> StoredTurn | ReplayedRun:
        """Store the turn. If abandoned turns fill the queue, stop them and retry. Raises ``Busy``."""
        try:
            return await self._store.turns.open(turn)
        except Busy as busy:
            if busy.reason != "waiting" or not stop_abandoned or turn.conversation is None:
                raise
            queue = await self._store.runs.get_queue(turn.principal.app, turn.user.id, turn.conversation)
            if not await self._stop_abandoned(queue):
                raise
        for pause in QUEUE_RETRY_DELAYS_S:
            await asyncio.sleep(pause)
            with suppress(Busy):
                return await self._store.turns.open(turn)
        return await self._store.turns.open(turn)

    async def _stop_abandoned(self, runs: Sequence[int]) -> bool:
        """Stop those of ``runs`` that nobody reads, in any process, newest first. Returns whether any may end."""
        stopped = [self._runs.stop_if_abandoned(run) for run in reversed(runs)]
        elsewhere = [run for run in reversed(runs) if not self._runs.contains(run)]
        if elsewhere:
            await self._store.runs.notify_stop_abandoned(elsewhere)
        return any(stopped) or bool(elsewhere)

    def _refusal(self) -> Busy:
        """The reason why no new run is accepted."""
        return Busy(reason="closing" if self._runs.closing else "overload", retry_after=1)

    async def _replay(self, principal: Principal, run_uid: UUID) -> Turn:
        turn = await self._store.runs.get_question_and_answer(principal.app, run_uid)
        if turn is None:
            raise NotFound(noun="run", ref=str(run_uid))
        question, answer = turn
        conversation = await self.conversation(principal, answer.conversation)
        agent = await self._store.agents.get(principal.app, conversation.agent)
        if agent is None:
            raise NotFound(noun="agent", ref=str(conversation.agent))
        reader = await self.resume(Run(answer=answer, conversation=conversation, agent=agent))
        return Turn(
            conversation=conversation, agent=agent, question=question, answer=answer, reader=reader, replayed=True
        )

    async def resume(self, run: Run, after: int = 0) -> RunReader:
        """A reader of the run from cursor ``after``: live, or days later. Raises ``NotFound`` if it has been deleted
        meanwhile."""
        reader = await self._runs.open_reader(run.answer, after)
        if reader is None:
            raise NotFound(noun="run", ref=run.run_uid.hex)
        return reader

    async def stop(self, conversation: Conversation, *, within: float = STOP_TIMEOUT_S) -> int:
        """Stop the running turn of a conversation and drop the queued ones, in any process. Returns their number.
        Raises ``Internal`` if their ends are not stored ``within`` that many seconds."""
        runs = await self._store.runs.list_live(conversation.app, conversation.id)
        await self._stop(conversation.app, runs)
        await self._wait_until_stored(conversation.app, runs, within)
        return len(runs)

    async def stop_run(self, run: Run, *, within: float = STOP_TIMEOUT_S) -> bool:
        """Stop one run, or drop it while it is queued. Returns False, without effect, if it has ended. Raises
        ``Internal`` if its end is not stored ``within`` that many seconds; 0 does not wait."""
        if run.answer.ended is not None:
            return False
        await self._stop(run.answer.app, [run.run_uid])
        await self._wait_until_stored(run.answer.app, [run.run_uid], within)
        return True

    async def provide(self, run: Run, call_id: str, output: ToolOutput) -> Message:
        """Give a paused run the result of a call it waits for; with the last one, it continues here. Returns the run's
        answer. Repeating the same result has no effect. Raises ``NotFound(noun="call")`` if the run never waited for
        the call, ``Conflict(reason="decided")`` if it has a different result, ``Busy`` if no run can start here."""
        answer = run.answer
        call = next((call for call in answer.waiting_for if call.call_id == call_id), None)
        if call is None:
            return _require_same(answer, call_id, output)
        result = ToolResult(
            call_id=call_id,
            name=call.tool,
            content=clean(output.content),
            data=clean_json(output.data),
            error=output.error,
            at=time.time_ns() // 1_000_000,
        )
        if not await take_up(self._runs, self._store, answer, result):
            return _require_same(await self._stored_answer(run), call_id, output)
        return await self._stored_answer(run)

    async def _stored_answer(self, run: Run) -> Message:
        answer = await self._store.runs.get_answer(run.answer.app, run.run_uid)
        if answer is None:
            raise NotFound(noun="run", ref=run.run_uid.hex)
        return answer

    async def _stop(self, app_id: int, runs: Sequence[UUID]) -> None:
        elsewhere = [run for run in runs if not self._runs.stop(run)]
        if not elsewhere:
            return
        await self._store.runs.notify_stop(elsewhere)
        await self._runs.stop_paused(app_id, elsewhere)

    async def _wait_until_stored(self, app_id: int, runs: Sequence[UUID], within: float) -> None:
        """Wait until the ends of ``runs`` are stored, in any process. Raises ``Internal`` after ``within`` seconds."""
        if not runs or not within:
            return
        here = [live for run in runs if (live := self._runs.get(run)) is not None]
        elsewhere = [run for run in runs if self._runs.get(run) is None]
        try:
            async with asyncio.timeout(within):
                for live in here:
                    await live.stored.wait()
                pause = 0.02
                while elsewhere and await self._store.runs.any_live(app_id, elsewhere):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.5)
        except TimeoutError as error:
            detail = "the run is being stopped; its end is not stored yet"
            raise Internal(reason="timeout", detail=detail) from error

    def history_page(
        self,
        principal: Principal,
        conversation: Conversation,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 20,
    ) -> AbstractAsyncContextManager[HistoryPage]:
        """At most ``limit`` messages, oldest first: the newest (with an id below ``before``), or the first above
        ``after``. Encode them inside the block."""
        return self._history.page(principal, conversation.id, before=before, after=after, limit=limit)

    async def list_messages(
        self,
        principal: Principal,
        conversation: Conversation,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 20,
    ) -> Sequence[Message]:
        """The messages of such a page."""
        async with self.history_page(principal, conversation, before=before, after=after, limit=limit) as page:
            return page.messages

    async def full_history(
        self, principal: Principal, conversation: Conversation, *, before: int | None = None, newest: int | None = None
    ) -> FullHistory:
        """All messages, or the ``newest`` ones (with an id below ``before``), loaded lazily."""
        return await self._history.full_history(principal, conversation.id, before=before, newest=newest)

    async def wait_for_end(self, run: Run, within: float) -> Message:
        """Wait up to ``within`` seconds for the run to end. Returns its answer, as last saved. Raises ``NotFound`` if
        it has been deleted meanwhile."""
        await read_to_end(await self.resume(run, after=2**62), within)
        return await self._stored_answer(run)

    async def generate_suggestions(self, principal: Principal, conversation: Conversation, agent: Agent) -> list[str]:
        """Up to three things the user might say next. Nothing is stored."""
        history = await self._store.conversations.get_messages(
            principal.app, conversation.id, limit=SUGGESTION_MESSAGES, max_bytes=HISTORY_BYTES
        )
        return await generate_suggestions(self._models, self._runs.observer, agent, history.messages)

    async def generate_title(self, agent: Agent, first_message: str, summary: str | None = None) -> str:
        """A title for a conversation that begins so, by the agent's model; empty without one. Nothing is stored."""
        return await generate_title(self._models, self._runs.observer, agent, first_message, summary)

    # Conversations --------------------------------------------------------------------------------------------------

    async def create_conversation(
        self,
        principal: Principal,
        agent: Agent,
        *,
        title: str | None = None,
        variables: dict[str, Any] | None = None,
    ) -> Conversation:
        user = await self.get_or_create_user(principal)
        title = None if title is None else clean(title)
        return await self._store.conversations.create(principal, user, agent, title=title, variables=variables)

    async def conversation(self, principal: Principal, ref: Ref) -> Conversation:
        """The user's conversation with that ``ref``, whichever its agent. Raises ``NotFound``."""
        conversation = await self._find(principal, ref)
        if conversation is None:
            raise NotFound(noun="conversation", ref=str(ref))
        return conversation

    async def conversations(self, principal: Principal, listing: ConversationQuery) -> Sequence[Conversation]:
        """One page of the user's conversations, most recently modified first."""
        user = await self.find_user(principal)
        return [] if user is None else await self._store.conversations.list_page(principal.app, user.id, listing)

    async def count_conversations(self, principal: Principal, listing: ConversationQuery) -> int:
        """The number of conversations on all pages."""
        user = await self.find_user(principal)
        return 0 if user is None else await self._store.conversations.count(principal.app, user.id, listing)

    async def rename_conversation(
        self, principal: Principal, conversation: Ref, title: str, *, icon: str | None = None
    ) -> Conversation:
        user = await self.find_user(principal)
        renamed = user and await self._store.conversations.rename(
            principal.app, user.id, conversation, title=clean(title), icon=None if icon is None else clean(icon)
        )
        if renamed is None:
            raise NotFound(noun="conversation", ref=str(conversation))
        return renamed

    async def delete_conversation(self, principal: Principal, conversation: Ref) -> None:
        """Delete a conversation and its messages, and stop its runs. Raises ``NotFound``."""
        user = await self.find_user(principal)
        live = None if user is None else await self._store.conversations.delete(principal.app, user.id, conversation)
        if live is None:
            raise NotFound(noun="conversation", ref=str(conversation))
        await self._stop(principal.app, live)

    async def delete_conversations(self, principal: Principal, agent: Agent) -> None:
        """Delete every conversation of the user with the agent, and stop their runs."""
        user = await self.find_user(principal)
        if user is not None:
            runs = await self._store.conversations.delete_all(principal.app, user.id, agent.id)
            await self._stop(principal.app, runs)

    async def _find(self, principal: Principal, ref: Ref) -> Conversation | None:
        user = await self.find_user(principal)
        return None if user is None else await self._store.conversations.get(principal.app, user.id, ref)

    async def get_or_create_user(self, principal: Principal) -> User:
        """The end user of the call, created if missing; for calls that store something."""
        if principal.user is None:
            raise NotFound(noun="user")
        return await self._store.users.get_or_create(principal.app, principal.user)

    async def _sender(self, principal: Principal, conversation: Ref | None, create_as: str | None) -> User:
        """The end user of a message, created if the message starts a conversation."""
        if conversation is None or create_as is not None:
            return await self.get_or_create_user(principal)
        user = await self.find_user(principal)
        if user is None:
            raise NotFound(noun="conversation", ref=str(conversation))
        return user

    async def find_user(self, principal: Principal) -> User | None:
        """The end user of the call, or ``None`` if it does not exist yet; for read-only calls."""
        if principal.user is None:
            raise NotFound(noun="user")
        return await self._store.users.get_by_name(principal.app, principal.user)


def require_enabled(agent: Agent, ref: Ref) -> None:
    """Raises ``NotFound(noun="agent")`` for a disabled agent, which the caller named ``ref``."""
    if not agent.spec.enabled:
        raise NotFound(noun="agent", ref=str(ref))


def _stops_abandoned(principal: Principal, message: NewMessage) -> bool:
    return principal.key.setting("abandoned", "stop" if message.stop_abandoned else "wait") == "stop"


def _require_same(answer: Message, call_id: str, output: ToolOutput) -> Message:
    """``answer``, if it has this result of the call. Raises ``NotFound`` or ``Conflict``."""
    for part in answer.parts:
        if isinstance(part, ToolResult) and part.call_id == call_id:
            if (part.content, part.error) == (clean(output.content), output.error):
                return answer
            raise Conflict(reason="decided")
    raise NotFound(noun="call", ref=call_id)


def _is_blank(value: Any) -> bool:
    """Whether a variable with this value counts as missing."""
    return value is None or (isinstance(value, str) and not value.strip())


def _cleaned(part: AnyPart) -> AnyPart:
    return Text(text=clean(part.text), provider_data=part.provider_data) if isinstance(part, Text) else part
