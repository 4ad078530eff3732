"""The use cases: what a caller may do with agents and conversations, whoever's API it speaks.

Every look-up is by (application, end user, ref): a thing of somebody else's answers like an absent one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from palaver.core.ports import Claim, Opening, Replay
from palaver.core.problems import Busy, NotFound
from palaver.core.runs import Live, Reader, Runs
from palaver.core.turn import Ports, Scene
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

MAX_OPENING = 255
"""How much of a conversation's first message is kept with it, for lists that show it as a title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The server's settings that use cases obey."""

    max_waiting_turns: int
    max_live_runs: int
    idempotency_ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a user says, as a dialect read it. ``off`` names what is switched off for this message alone, as
    (``mcp`` or ``skill``, id); ``claim`` is the call's ``Idempotency-Key``."""

    parts: tuple[AnyPart, ...]
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    off: frozenset[tuple[str, int]] = frozenset()
    claim: Claim | None = None
    trace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that was accepted, and a reader of its answer. ``replayed``: the same call had been made before."""

    conversation: Conversation
    agent: Agent
    run: UUID
    reader: Reader
    replayed: bool = False


class Chat:
    """The front desk of core. ``who.user`` must name the end user."""

    def __init__(self, ports: Ports, runs: Runs, limits: Limits) -> None:
        self._store = ports.store
        self._runs = runs
        self._limits = limits

    async def agent(self, who: Principal, ref: Ref) -> Agent:
        """The enabled agent that ``ref`` names, if the key may use it."""
        agent = await self._store.agents.get(who.app, ref)
        if agent is None or not agent.spec.enabled or not who.may_use(agent):
            raise NotFound(noun="agent", ref=str(ref))
        return agent

    # Messages -------------------------------------------------------------------------------------------------------

    async def send(
        self, who: Principal, agent: Agent, said: Said, *, conversation: Ref | None = None, create_as: str | None = None
    ) -> Sent:
        """Store what the user says and begin (or queue) the run that answers it.

        ``conversation`` ``None`` is a new one; an unknown one is *not found*, unless ``create_as`` gives the alias it
        is then made under. Raises ``NotFound``, ``Conflict``, ``Busy``; nothing is stored when it does.
        """
        refusal = self._refusal()
        if refusal is not None and said.claim is None:
            raise refusal
        user = await self._user(who)
        parts = tuple(_cleaned(part) for part in said.parts)
        opening = Opening(
            who=who,
            user=user,
            agent=agent,
            run=new_uid(),
            parts=parts,
            conversation=conversation,
            create_as=create_as,
            max_waiting=self._limits.max_waiting_turns,
            worker=self._runs.worker(),
            claim=said.claim,
            claim_ttl=self._limits.idempotency_ttl_s,
        )
        if refusal is None:
            stored = await self._store.runs.open(opening)
        elif (stored := await self._store.runs.earlier(opening)) is None:  # what was answered before needs no room
            raise refusal
        if isinstance(stored, Replay):
            return await self._replay(who, stored.run)
        scene = Scene(
            agent=agent,
            conversation=stored.conversation.id,
            question=stored.question,
            parts=parts,
            variables=said.variables,
            off=said.off,
            trace=said.trace,
        )
        live = Live(app=who.app, run=stored.run, uid=opening.run, scene=scene)
        self._runs.add(live, start=stored.first)
        return Sent(conversation=stored.conversation, agent=agent, run=opening.run, reader=Reader(live))

    def _refusal(self) -> Busy | None:
        """Why no new run can be taken."""
        if self._runs.closing:
            return Busy(reason="closing", retry_after=1)
        if len(self._runs) >= self._limits.max_live_runs:
            return Busy(reason="overload", retry_after=1)
        return None

    async def _replay(self, who: Principal, run: UUID) -> Sent:
        message = await self._store.runs.get(who.app, run)
        reader = await self._runs.follow(who.app, run)
        if message is None or reader is None:
            raise NotFound(noun="run", ref=str(run))
        conversation = await self.conversation(who, message.conversation)
        agent = await self._store.agents.get(who.app, conversation.agent)
        if agent is None:
            raise NotFound(noun="agent", ref=str(conversation.agent))
        return Sent(conversation=conversation, agent=agent, run=run, reader=reader, replayed=True)

    async def resume(self, who: Principal, run: UUID, after: int = 0) -> Reader:
        """A reader of the run from cursor ``after``: live, or days later."""
        message = await self._store.runs.get(who.app, run)
        if message is None or await self._find(who, message.conversation) is None:
            raise NotFound(noun="run", ref=str(run))
        reader = await self._runs.follow(who.app, run, after)
        if reader is None:
            raise NotFound(noun="run", ref=str(run))
        return reader

    async def stop(self, who: Principal, conversation: Ref) -> int:
        """Stop the running turn of a conversation and drop the waiting ones; how many there were."""
        found = await self.conversation(who, conversation)
        return self._runs.stop_conversation(who.app, found.id)

    async def history(
        self, who: Principal, conversation: Ref, *, before: int | None = None, limit: int = 20
    ) -> list[Message]:
        """The newest ``limit`` messages (with an id below ``before``), oldest first."""
        found = await self.conversation(who, conversation)
        return await self._store.conversations.history(who.app, found.id, before=before, limit=limit)

    # Conversations --------------------------------------------------------------------------------------------------

    async def create(self, who: Principal, agent: Agent, *, title: str | None = None) -> Conversation:
        user = await self._user(who)
        return await self._store.conversations.create(who, user, agent, title=None if title is None else clean(title))

    async def conversation(self, who: Principal, ref: Ref) -> Conversation:
        found = await self._find(who, ref)
        if found is None:
            raise NotFound(noun="conversation", ref=str(ref))
        return found

    async def conversations(
        self, who: Principal, *, agent: Agent | None = None, after: Ref | None = None, limit: int = 20
    ) -> Sequence[Conversation]:
        """The user's conversations, the one changed last first; ``after`` is the last one of the page before."""
        user = await self._user(who)
        behind = None if after is None else await self.conversation(who, after)
        return await self._store.conversations.page(
            who.app, user.id, agent=None if agent is None else agent.id, after=behind, limit=limit
        )

    async def rename(self, who: Principal, conversation: Ref, title: str) -> Conversation:
        user = await self._user(who)
        renamed = await self._store.conversations.rename(who.app, user.id, conversation, clean(title))
        if renamed is None:
            raise NotFound(noun="conversation", ref=str(conversation))
        return renamed

    async def delete(self, who: Principal, conversation: Ref) -> None:
        """Remove a conversation with its messages; its running turn ends as a stop would end it."""
        user = await self._user(who)
        live = await self._store.conversations.delete(who.app, user.id, conversation)
        if live is None:
            raise NotFound(noun="conversation", ref=str(conversation))
        for run in live:
            self._runs.stop(run)

    async def _find(self, who: Principal, ref: Ref) -> Conversation | None:
        user = await self._user(who)
        return await self._store.conversations.get(who.app, user.id, ref)

    async def _user(self, who: Principal) -> User:
        if who.user is None:
            raise NotFound(noun="user")
        return await self._store.users.named(who.app, who.user)


def _cleaned(part: AnyPart) -> AnyPart:
    return Text(text=clean(part.text), provider_data=part.provider_data) if isinstance(part, Text) else part
