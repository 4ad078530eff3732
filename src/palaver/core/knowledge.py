"""Knowledge base search outside of a turn."""

from __future__ import annotations

import time

from palaver.core.ports.documents import Knowledge
from palaver.core.ports.store import AgentRepository
from palaver.core.problems import NotFound
from palaver.core.types import Passage, Principal, Ref


class KnowledgeBases:
    """The knowledge bases that a caller may search: those of the enabled agents that it may use."""

    def __init__(self, agents: AgentRepository, knowledge: Knowledge) -> None:
        self._agents = agents
        self._knowledge = knowledge

    async def search(self, principal: Principal, ref: Ref, query: str, limit: int) -> tuple[list[Passage], int]:
        """The best passages of one knowledge base, and the search time in milliseconds. Raises ``NotFound``."""
        name = await self._knowledge.find_name(principal.app, ref)
        if name is None or name not in await self._permitted(principal):
            raise NotFound(noun="knowledge", ref=str(ref))
        started = time.perf_counter()
        passages = await self._knowledge.search(principal.app, [name], query, limit)
        return passages, round((time.perf_counter() - started) * 1000)

    async def _permitted(self, principal: Principal) -> set[str]:
        agents = await self._agents.list_for_application(principal.app)
        return {
            name for agent in agents if agent.spec.enabled and principal.may_use(agent) for name in agent.spec.knowledge
        }
