"""The use cases: what a caller may do with agents and conversations, whoever's API it speaks.

Every look-up is by (application, end user, ref): a thing of somebody else's answers like an absent one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from palaver.core.context import HISTORY_BYTES
from palaver.core.history import FullHistory, History, HistoryPage
from palaver.core.ports.store import ConversationQuery, IdempotencyKey, NewTurn, ReplayedRun, StoredTurn
from palaver.core.problems import Busy, Internal, Invalid, NotFound, Problem
from palaver.core.runs import ActiveRun, RunReader, RunRegistry, collect
from palaver.core.singleflight import SingleFlight
from palaver.core.suggestions import suggest
from palaver.core.titles import title as title_of
from palaver.core.turn import TurnContext, TurnServices
from palaver.core.types import (
    Agent,
    AnyPart,
    Conversation,
    Message,
    Principal,
    Ref,
    Text,
    User,
    clean,
    new_uid,
)

SUGGESTION_MESSAGES = 40
"""How many messages are read for what the user might say next."""
STOP_TIMEOUT_S = 5.0
"""Seconds within which the end of a run that is stopped is stored, or the stop says that it is not yet."""
ACCEPT_TIMEOUT_S = 10.0
"""Seconds that an equal call waits for another one's message to be stored."""
QUEUE_RETRY_DELAYS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the attempts to store a message whose conversation is full of turns that are being stopped."""
MAX_OPENING = 255
"""How much of a conversation's first message is kept with it, for lists that show it as a title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The server's settings that use cases obey."""

    max_waiting_turns: int
    idempotency_ttl_s: float
    max_page_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """What a user says, as a dialect read it. ``disabled_tools`` names what is switched off for this message alone, as
    (``mcp`` or ``skill``, id); ``idempotency_key`` is the call's ``Idempotency-Key``."""

    parts: tuple[AnyPart, ...]
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    conversation_variables: dict[str, Any] | None = None
    """Kept with the conversation, if this message opens one."""
    variables_field: str | None = "variables"
    """What the caller's API calls them, for whoever leaves out a required one; ``None``: its API has them all
    optional."""
    disabled_tools: frozenset[tuple[str, int]] = frozenset()
    idempotency_key: IdempotencyKey | None = None
    trace: str = ""
    stop_abandoned: bool = False
    """Stop the turns before this message that nobody reads, instead of waiting for them: the default of where the
    message comes from. The credential's setting ``abandoned`` overrules it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A message that was accepted, and a reader of its answer. ``replayed``: the same call had been made before."""

    conversation: Conversation
    agent: Agent
    question: Message
    answer: Message
    """As it was when the reader was made; its uid is the run's."""
    reader: RunReader
    replayed: bool = False

    @property
    def run(self) -> UUID:
        return self.answer.uid


class Chat:
    """The front desk of core. ``who.user`` must name the end user."""

    def __init__(self, ports: TurnServices, runs: RunRegistry, limits: Limits) -> None:
        self._store = ports.store
        self._models = ports.models
        self._runs = runs
        self._limits = limits
        self._history = History(ports.store.conversations, max_page_bytes=limits.max_page_bytes)
        self._flights = SingleFlight[Turn]()

    async def agent(self, who: Principal, ref: Ref) -> Agent:
        """The enabled agent that ``ref`` names, if the key may use it."""
        agent = await self.any_agent(who, ref)
        if not agent.spec.enabled:
            raise NotFound(noun="agent", ref=str(ref))
        return agent

    async def any_agent(self, who: Principal, ref: Ref) -> Agent:
        """The same, disabled or not."""
        agent = await self._store.agents.get(who.app, ref)
        if agent is None or not who.may_use(agent):
            raise NotFound(noun="agent", ref=str(ref))
        return agent

    async def agents(self, who: Principal) -> list[Agent]:
        """The enabled agents the key may use, by name, then id."""
        return [agent for agent in await self._store.agents.of(who.app) if agent.spec.enabled and who.may_use(agent)]

    # Messages -------------------------------------------------------------------------------------------------------

    async def send(
        self,
        who: Principal,
        agent: Agent,
        message: NewMessage,
        *,
        conversation: Ref | None = None,
        create_as: str | None = None,
    ) -> Turn:
        """Store what the user says and begin (or queue) the run that answers it.

        ``conversation`` ``None`` is a new one; an unknown one is *not found*, unless ``create_as`` gives the alias it
        is then made under. Raises ``NotFound``, ``Conflict``, ``Busy``, and ``Invalid(rule="required")`` for a
        variable that the agent requires; nothing is stored when it does.
        """
        if message.idempotency_key is None:
            return await self._send(who, agent, message, conversation, create_as)
        topic = message.idempotency_key.topic(who, await self._speaker(who, conversation, create_as))
        async with self._flights.turn((topic, message.idempotency_key.digest), ACCEPT_TIMEOUT_S) as flight:
            if flight.result is not None and (live := self._runs.active(flight.result.run)) is not None:
                return replace(flight.result, reader=RunReader(live), replayed=True)
            flight.result = await self._send(who, agent, message, conversation, create_as)
            return flight.result

    async def _send(
        self, who: Principal, agent: Agent, message: NewMessage, conversation: Ref | None, create_as: str | None
    ) -> Turn:
        taken = not self._runs.closing and self._runs.slots.acquire(
            who.app, who.key.number, who.key.setting("max_runs")
        )
        try:
            if not taken and message.idempotency_key is None:
                raise self._refusal()
            opening = await self._new_turn(who, agent, message, conversation, create_as)
            if not taken:  # what was answered before needs no room
                stored = await self._store.runs.find_replayed(opening)
                if stored is None:
                    raise self._refusal()
            else:
                stored = await self._open(opening, stop_abandoned=_stops_abandoned(who, message))
            if isinstance(stored, ReplayedRun):
                return await self._replay(who, stored.run)
            taken = False  # it is the run's from now on
            return await self._begin(opening, stored, message)
        finally:
            if taken:
                self._runs.slots.release(who.app, who.key.number)

    async def _new_turn(
        self, who: Principal, agent: Agent, message: NewMessage, conversation: Ref | None, create_as: str | None
    ) -> NewTurn:
        await self._require_variables(who, agent, message, conversation)
        user = await self._speaker(who, conversation, create_as)
        parts = tuple(_cleaned(part) for part in message.parts)
        return NewTurn(
            who=who,
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
            idempotency_key=message.idempotency_key,
            idempotency_ttl_s=self._limits.idempotency_ttl_s,
        )

    async def _begin(self, turn: NewTurn, stored: StoredTurn, message: NewMessage) -> Turn:
        """Begin the run of a turn that is stored."""
        who, agent = turn.who, turn.agent
        scene = TurnContext(
            agent=agent,
            user=turn.user.id,
            conversation=stored.conversation.id,
            question=stored.question,
            variables={**(stored.conversation.variables or {}), **message.variables},
            disabled_tools=message.disabled_tools,
            trace=message.trace,
        )
        live = ActiveRun(app=who.app, run=stored.answer.id, uid=turn.run, scene=scene, credential=who.key.number)
        self._runs.add(live, start=stored.first)
        reader = RunReader(live)
        if stored.ahead and _stops_abandoned(who, message):
            with suppress(Problem):  # the message is stored, and waits if need be
                await self._stop_abandoned(stored.ahead)
        return Turn(
            conversation=stored.conversation, agent=agent, question=stored.question, answer=stored.answer, reader=reader
        )

    async def _require_variables(
        self, who: Principal, agent: Agent, message: NewMessage, conversation: Ref | None
    ) -> None:
        given = {**(message.conversation_variables or {}), **message.variables}
        lacking = [one.name for one in agent.spec.variables if one.required and _is_nothing(given.get(one.name))]
        if not lacking or message.variables_field is None:
            return
        found = None if conversation is None else await self._find(who, conversation)
        kept = {} if found is None or found.variables is None else found.variables
        for name in lacking:
            if _is_nothing(kept.get(name)):
                detail = f"the agent {agent.name!r} requires the variable {name!r}"
                raise Invalid(field=f"{message.variables_field}.{name}", rule="required", detail=detail)

    async def _open(self, turn: NewTurn, *, stop_abandoned: bool) -> StoredTurn | ReplayedRun:
        """Store the turn; where abandoned ones leave it no room, once these have ended."""
        try:
            return await self._store.runs.open(turn)
        except Busy as busy:
            if busy.reason != "waiting" or not stop_abandoned or turn.conversation is None:
                raise
            queue = await self._store.runs.queue(turn.who.app, turn.user.id, turn.conversation)
            if not await self._stop_abandoned(queue):
                raise
        for pause in QUEUE_RETRY_DELAYS_S:
            await asyncio.sleep(pause)
            with suppress(Busy):
                return await self._store.runs.open(turn)
        return await self._store.runs.open(turn)

    async def _stop_abandoned(self, runs: Sequence[int]) -> bool:
        """Stop those of ``runs`` that nobody reads, in whichever process they are, the last one first; whether any
        may end by that."""
        stopped = [self._runs.stop_abandoned(run) for run in reversed(runs)]
        elsewhere = [run for run in reversed(runs) if not self._runs.knows(run)]
        if elsewhere:
            await self._store.runs.tell_to_stop_abandoned(elsewhere)
        return any(stopped) or bool(elsewhere)

    def _refusal(self) -> Busy:
        """Why no new run is taken."""
        return Busy(reason="closing" if self._runs.closing else "overload", retry_after=1)

    async def _replay(self, who: Principal, run: UUID) -> Turn:
        turn = await self._store.runs.turn(who.app, run)
        reader = await self._runs.follow(who.app, run)
        if turn is None or reader is None:
            raise NotFound(noun="run", ref=str(run))
        question, answer = turn
        conversation = await self.conversation(who, answer.conversation)
        agent = await self._store.agents.get(who.app, conversation.agent)
        if agent is None:
            raise NotFound(noun="agent", ref=str(conversation.agent))
        return Turn(
            conversation=conversation, agent=agent, question=question, answer=answer, reader=reader, replayed=True
        )

    async def resume(self, who: Principal, run: UUID, after: int = 0) -> RunReader:
        """A reader of the run from cursor ``after``: live, or days later."""
        message = await self._store.runs.get(who.app, run)
        if message is None or await self._find(who, message.conversation) is None:
            raise NotFound(noun="run", ref=str(run))
        reader = await self._runs.follow(who.app, run, after)
        if reader is None:
            raise NotFound(noun="run", ref=str(run))
        return reader

    async def stop(self, who: Principal, conversation: Ref) -> int:
        """Stop the running turn of a conversation and drop the waiting ones, in whichever process they are; how many
        there were."""
        found = await self.conversation(who, conversation)
        runs = await self._store.runs.live(who.app, found.id)
        await self._stop(runs)
        await self._stored(who.app, runs, STOP_TIMEOUT_S)
        return len(runs)

    async def stop_run(
        self, who: Principal, run: UUID, *, agent: Agent | None = None, within: float = STOP_TIMEOUT_S
    ) -> bool:
        """Stop one run, or drop it while it waits. False, without effect, for one that has ended, is somebody
        else's, or is not of ``agent``. Raises ``Internal`` when its end is not stored ``within`` so many seconds;
        with 0 that is not waited for."""
        message = await self._store.runs.get(who.app, run)
        if message is None or message.ended is not None:
            return False
        found = await self._find(who, message.conversation)
        if found is None or (agent is not None and found.agent != agent.id):
            return False
        await self._stop([run])
        await self._stored(who.app, [run], within)
        return True

    async def _stop(self, runs: Sequence[UUID]) -> None:
        elsewhere = [run for run in runs if not self._runs.stop(run)]
        if elsewhere:
            await self._store.runs.tell_to_stop(elsewhere)

    async def _stored(self, app: int, runs: Sequence[UUID], within: float) -> None:
        """Wait until the ends of ``runs`` are stored, in whichever process they are. Raises ``Internal``."""
        if not runs or not within:
            return
        here = [live for run in runs if (live := self._runs.active(run)) is not None]
        elsewhere = [run for run in runs if self._runs.active(run) is None]
        try:
            async with asyncio.timeout(within):
                for live in here:
                    await live.stored.wait()
                pause = 0.02
                while elsewhere and await self._store.runs.any_live(app, elsewhere):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.5)
        except TimeoutError as error:
            detail = "the run is being stopped; its end is not stored yet"
            raise Internal(reason="timeout", detail=detail) from error

    @asynccontextmanager
    async def page(
        self, who: Principal, conversation: Ref, *, before: int | None = None, after: int | None = None, limit: int = 20
    ) -> AsyncGenerator[HistoryPage]:
        """At most ``limit`` messages, oldest first: the newest (with an id below ``before``), or the first above
        ``after``. They are to be encoded in the block."""
        found = await self.conversation(who, conversation)
        async with self._history.page(who, found.id, before=before, after=after, limit=limit) as page:
            yield page

    async def history(
        self, who: Principal, conversation: Ref, *, before: int | None = None, after: int | None = None, limit: int = 20
    ) -> Sequence[Message]:
        """The messages of such a page."""
        async with self.page(who, conversation, before=before, after=after, limit=limit) as page:
            return page.messages

    async def told(
        self, who: Principal, conversation: Ref, *, before: int | None = None, newest: int | None = None
    ) -> FullHistory:
        """All that was said, or the ``newest`` messages (with an id below ``before``), to be read as it is taken."""
        found = await self.conversation(who, conversation)
        return await self._history.read_all(who, found.id, before=before, newest=newest)

    async def message(self, who: Principal, uid: UUID) -> Message:
        """An answer of the user's own, by its uid."""
        found = await self._store.runs.get(who.app, uid)
        if found is None or await self._find(who, found.conversation) is None:
            raise NotFound(noun="message", ref=str(uid))
        return found

    async def wait_for_end(self, who: Principal, run: UUID, within: float) -> Message:
        """The answer that ``run`` wrote, once that has ended; as it was saved last where ``within`` seconds go by
        before. Raises ``NotFound``."""
        reader = await self.resume(who, run, after=2**62)
        await collect(reader, within)
        return await self.message(who, run)

    async def suggestions(self, who: Principal, conversation: Conversation, agent: Agent) -> list[str]:
        """Up to three things the user might say next. Nothing is stored."""
        history = await self._store.conversations.history(
            who.app, conversation.id, limit=SUGGESTION_MESSAGES, size=HISTORY_BYTES
        )
        return await suggest(self._models, agent, history.messages)

    async def title(self, agent: Agent, first_message: str, summary: str | None = None) -> str:
        """A title for a conversation that begins so, by the agent's model; empty without one. Nothing is stored."""
        return await title_of(self._models, agent, first_message, summary)

    # Conversations --------------------------------------------------------------------------------------------------

    async def create(
        self,
        who: Principal,
        agent: Agent,
        *,
        title: str | None = None,
        variables: dict[str, Any] | None = None,
    ) -> Conversation:
        user = await self.user(who)
        title = None if title is None else clean(title)
        return await self._store.conversations.create(who, user, agent, title=title, variables=variables)

    async def conversation(self, who: Principal, ref: Ref) -> Conversation:
        found = await self._find(who, ref)
        if found is None:
            raise NotFound(noun="conversation", ref=str(ref))
        return found

    async def conversations(self, who: Principal, listing: ConversationQuery) -> Sequence[Conversation]:
        """A stretch of the user's conversations, the one changed last first."""
        user = await self.known_user(who)
        return [] if user is None else await self._store.conversations.page(who.app, user.id, listing)

    async def count(self, who: Principal, listing: ConversationQuery) -> int:
        """How many conversations all stretches have together."""
        user = await self.known_user(who)
        return 0 if user is None else await self._store.conversations.count(who.app, user.id, listing)

    async def rename(self, who: Principal, conversation: Ref, title: str, *, icon: str | None = None) -> Conversation:
        user = await self.known_user(who)
        renamed = user and await self._store.conversations.rename(
            who.app, user.id, conversation, title=clean(title), icon=None if icon is None else clean(icon)
        )
        if renamed is None:
            raise NotFound(noun="conversation", ref=str(conversation))
        return renamed

    async def delete(self, who: Principal, conversation: Ref) -> None:
        """Remove a conversation with its messages; its running turn ends as a stop would end it."""
        user = await self.known_user(who)
        live = None if user is None else await self._store.conversations.delete(who.app, user.id, conversation)
        if live is None:
            raise NotFound(noun="conversation", ref=str(conversation))
        await self._stop(live)

    async def clear(self, who: Principal, agent: Agent) -> None:
        """Remove every conversation of the user with the agent."""
        user = await self.known_user(who)
        if user is not None:
            await self._stop(await self._store.conversations.clear(who.app, user.id, agent.id))

    async def _find(self, who: Principal, ref: Ref) -> Conversation | None:
        user = await self.known_user(who)
        return None if user is None else await self._store.conversations.get(who.app, user.id, ref)

    async def user(self, who: Principal) -> User:
        """The end user the call is for, made when it is the first one: for what leaves something behind."""
        if who.user is None:
            raise NotFound(noun="user")
        return await self._store.users.named(who.app, who.user)

    async def _speaker(self, who: Principal, conversation: Ref | None, create_as: str | None) -> User:
        """The end user of a message, made where the message begins a conversation."""
        if conversation is None or create_as is not None:
            return await self.user(who)
        user = await self.known_user(who)
        if user is None:
            raise NotFound(noun="conversation", ref=str(conversation))
        return user

    async def known_user(self, who: Principal) -> User | None:
        """The end user the call is for, if there has been a call that made one: for what looks up."""
        if who.user is None:
            raise NotFound(noun="user")
        return await self._store.users.known(who.app, who.user)


def _stops_abandoned(who: Principal, said: NewMessage) -> bool:
    return who.key.setting("abandoned", "stop" if said.stop_abandoned else "wait") == "stop"


def _is_nothing(value: Any) -> bool:
    """Whether a variable of this value counts as not given."""
    return value is None or (isinstance(value, str) and not value.strip())


def _cleaned(part: AnyPart) -> AnyPart:
    return Text(text=clean(part.text), provider_data=part.provider_data) if isinstance(part, Text) else part
