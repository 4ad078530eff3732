"""Agents, as an operator configures them."""

from __future__ import annotations

from collections.abc import Sequence

from palaver.core.admin.applications import (
    checked_name,
    get_application,
    get_optional_application,
    get_or_create_application,
)
from palaver.core.admin.audit import AuditLog
from palaver.core.ports.admin import AdminStore
from palaver.core.ports.models import Models
from palaver.core.problems import NotFound, Upstream
from palaver.core.types import Agent, AgentSpec, Application, Value


class AgentCheck(Value, frozen=True, kw_only=True):
    """What keeps an agent from answering: knowledge bases that do not exist, and the problem of its model, if any."""

    name: str
    missing_knowledge: tuple[str, ...] = ()
    model_problem: str = ""


class StoredAgents(Value, frozen=True, kw_only=True):
    """The stored agents of one application, with a check for each."""

    application: Application
    agents: tuple[Agent, ...]
    checks: tuple[AgentCheck, ...]


class AgentAdmin:
    def __init__(self, store: AdminStore, models: Models, audit: AuditLog) -> None:
        self._store = store
        self._models = models
        self._audit = audit

    async def list_all(self, application: str | None = None) -> list[tuple[str, Agent]]:
        """Every agent, of one application or of all, each with its application's name. Raises ``NotFound``."""
        return await self._store.agents.list_all(await get_optional_application(self._store.applications, application))

    async def get(self, application: str, ref: str) -> Agent:
        """An agent by name, alias, id or uid. Raises ``NotFound``."""
        owner = await get_application(self._store.applications, application)
        agent = await self._store.agents.find(owner, ref)
        if agent is None:
            raise NotFound(noun="agent", ref=ref)
        return agent

    async def upsert_all(self, application: str, specs: Sequence[AgentSpec]) -> StoredAgents:
        """Create or replace agents, all or none, in an application that is created if missing. Raises ``Invalid``, and
        ``Conflict(reason="name")`` if another agent has one of the aliases."""
        names = [spec.name for spec in specs]
        async with self._audit.record("agent apply", application=application, agents=names):
            owner = await get_or_create_application(self._store.applications, application)
            agents = await self._store.agents.upsert_all(owner, specs)
            checks = [await self._check(owner, agent.spec) for agent in agents]
            return StoredAgents(application=owner, agents=tuple(agents), checks=tuple(checks))

    async def check(self, application: str, specs: Sequence[AgentSpec]) -> list[AgentCheck]:
        """Check agents without storing them; the application need not exist. Raises ``Invalid`` for its name."""
        owner = await self._store.applications.get(checked_name(application))
        return [await self._check(owner, spec) for spec in specs]

    async def delete(self, application: str, ref: str) -> Agent:
        """Delete an agent and its conversations. Raises ``NotFound``."""
        async with self._audit.record("agent delete", application=application, agent=ref):
            agent = await self.get(application, ref)
            await self._store.agents.delete(agent)
            return agent

    async def _check(self, owner: Application | None, spec: AgentSpec) -> AgentCheck:
        missing = [
            name for name in spec.knowledge if owner is None or await self._store.knowledge.get(owner.id, name) is None
        ]
        problem = ""
        try:
            self._models.chat_model(spec.model, spec.fallback_model)
        except Upstream as error:
            problem = error.detail
        return AgentCheck(name=spec.name, missing_knowledge=tuple(missing), model_problem=problem)
