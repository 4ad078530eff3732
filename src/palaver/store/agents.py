"""The table of agents. There are few and every message reads one, so they are cached until one changes."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from palaver.core.problems import Conflict
from palaver.core.types import MAX_ID, Agent, AgentSpec, Application, Ref, clean, new_uid, parse_id, parse_uid
from palaver.store.conversations import deletion_statements
from palaver.store.database import Database, Row
from palaver.store.presence import Presence, notification, try_notify

MAX_CACHED = 10_000
"""Maximum entries of the cache, including refs without an agent; a full cache is emptied."""

_KEEP_REVISION = """
INSERT INTO agent_revision (app, agent, revision, spec)
SELECT app, id, revision, spec FROM agent WHERE app = $1 AND name = $2 AND spec <> $3::jsonb FOR UPDATE"""
_UPSERT = """
INSERT INTO agent (app, uid, name, spec, modified) VALUES ($1, $2, $3, $4, now())
ON CONFLICT (app, name) DO UPDATE SET spec = excluded.spec, modified = excluded.modified,
    revision = agent.revision + (agent.spec <> excluded.spec)::integer"""
_DELETE_ALIASES = """
DELETE FROM agent_alias
WHERE app = $1 AND alias <> ALL ($3) AND agent = (SELECT id FROM agent WHERE app = $1 AND name = $2)"""
_INSERT_ALIASES = """
INSERT INTO agent_alias (app, alias, agent)
SELECT app, unnest($3::text[]), id FROM agent WHERE app = $1 AND name = $2 ON CONFLICT DO NOTHING"""


class AgentTable:
    """Agents and their aliases."""

    def __init__(self, db: Database, presence: Presence) -> None:
        self._db = db
        self._presence = presence
        self._cache: dict[tuple[int, Ref], Agent | None] = {}
        presence.subscribe("agents", lambda _: self._cache.clear())

    async def get(self, app_id: int, ref: Ref) -> Agent | None:
        """The agent with that id, uid, alias or name, tried in this order, or ``None``."""
        if (app_id, ref) in self._cache and self._presence.listening:
            return self._cache[app_id, ref]
        count = self._presence.notification_count
        agent = await self._read(app_id, ref)
        if count == self._presence.notification_count:  # otherwise it may have changed meanwhile
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[app_id, ref] = agent
        return agent

    async def list_for_application(self, app_id: int) -> tuple[Agent, ...]:
        """Every agent of the application, sorted by name, then id."""
        rows = await self._db.fetch("SELECT * FROM agent WHERE app = $1 ORDER BY name, id", app_id)
        return tuple(_agent(row) for row in rows)

    async def _read(self, app_id: int, ref: Ref) -> Agent | None:
        if isinstance(ref, int):
            if not 0 < ref <= MAX_ID:
                return None
            row = await self._db.fetchrow("SELECT * FROM agent WHERE app = $1 AND id = $2", app_id, ref)
        else:
            alias = None if isinstance(ref, UUID) else clean(ref)
            row = await self._db.fetchrow(
                "SELECT g.* FROM agent g WHERE g.app = $1 AND (g.uid = $2 OR g.id ="
                " (SELECT a.agent FROM agent_alias a WHERE a.app = $1 AND a.alias = $3) OR g.name = $3)"
                " ORDER BY g.uid IS NOT DISTINCT FROM $2 DESC, g.name = $3 LIMIT 1",
                app_id,
                ref if isinstance(ref, UUID) else parse_uid(ref),
                alias,
            )
        return None if row is None else _agent(row)

    async def find(self, app: Application, ref: str) -> Agent | None:
        """The agent with that name or else that id, uid or alias, or ``None``; for operators. Not cached."""
        row = await self._db.fetchrow("SELECT * FROM agent WHERE app = $1 AND name = $2", app.id, ref)
        if row is not None:
            return _agent(row)
        return await self._read(app.id, parse_id(ref) or ref)

    async def upsert(self, app: Application, spec: AgentSpec) -> Agent:
        """Create the agent with that name, or replace its spec and aliases. Raises ``Conflict(reason="name")`` if
        another agent has one of the aliases."""
        return (await self.upsert_all(app, [spec]))[0]

    async def upsert_all(self, app: Application, specs: Sequence[AgentSpec]) -> list[Agent]:
        """The same for several agents with different names: all of them or, if one raises, none. An alias may move from
        one of them to another."""
        names = [spec.name for spec in specs]
        await self._require_free_aliases(app, specs, names)
        texts = [msgspec.json.encode(spec).decode() for spec in specs]
        kept = [(_KEEP_REVISION, (app.id, one.name, text)) for one, text in zip(specs, texts, strict=True)]
        upserts = [(_UPSERT, (app.id, new_uid(), one.name, text)) for one, text in zip(specs, texts, strict=True)]
        deletions = [(_DELETE_ALIASES, (app.id, one.name, list(one.alias))) for one in specs]
        insertions = [(_INSERT_ALIASES, (app.id, one.name, list(one.alias))) for one in specs]
        await self._db.transaction([*kept, *upserts, *deletions, *insertions, notification("agents")])
        rows = await self._db.fetch("SELECT * FROM agent WHERE app = $1 AND name = ANY($2)", app.id, names)
        stored = {agent.name: agent for agent in map(_agent, rows)}
        return [stored[name] for name in names]

    async def _require_free_aliases(self, app: Application, specs: Sequence[AgentSpec], names: Sequence[str]) -> None:
        """Raises ``Conflict(reason="name")`` if an alias belongs to an agent other than ``names``, or to two of
        ``specs``."""
        owners: dict[str, str] = {}
        for spec in specs:
            for alias in spec.alias:
                if owners.setdefault(alias, spec.name) != spec.name:
                    raise _alias_taken(alias, owners[alias])
        taken = await self._db.fetchrow(
            "SELECT l.alias, g.name FROM agent_alias l JOIN agent g ON g.app = $1 AND g.id = l.agent"
            " WHERE l.app = $1 AND l.alias = ANY($2) AND g.name <> ALL($3) ORDER BY l.alias LIMIT 1",
            app.id,
            list(owners),
            names,
        )
        if taken is not None:
            raise _alias_taken(taken["alias"], taken["name"])

    async def list_all(self, app: Application | None = None) -> list[tuple[str, Agent]]:
        """(application name, agent) for every agent of the application, or of all applications."""
        rows = await self._db.fetch(
            "SELECT g.*, a.name AS app_name FROM agent g JOIN application a ON a.id = g.app"
            " WHERE $1::bigint IS NULL OR g.app = $1 ORDER BY a.name, g.name, g.id",
            None if app is None else app.id,
        )
        return [(row["app_name"], _agent(row)) for row in rows]

    async def delete_old_revisions(self) -> None:
        """Delete revisions that were replaced over 30 days ago: runs that were accepted with them have ended."""
        await self._db.execute("DELETE FROM agent_revision WHERE replaced < now() - interval '30 days'")

    async def delete(self, agent: Agent) -> None:
        """Delete the agent and its conversations, and notify every process to stop their live runs."""
        deletions = deletion_statements(
            "c.app = $1 AND c.agent = $2",
            " deleted AS (DELETE FROM agent WHERE app = $1 AND id = $2) SELECT uid FROM answers WHERE status = 'live'",
            agent.app,
            agent.id,
        )
        rows = await self._db.transaction([notification("agents"), *deletions])
        await try_notify(self._db, [f"stop {row['uid'].hex}" for row in rows])


def _alias_taken(alias: str, owner: str) -> Conflict:
    return Conflict(reason="name", detail=f"the alias {alias!r} belongs to agent {owner!r}")


def _agent(row: Row) -> Agent:
    return Agent(
        app=row["app"],
        id=row["id"],
        uid=row["uid"],
        spec=msgspec.json.decode(row["spec"], type=AgentSpec),
        created=row["created"],
        modified=row["modified"],
        revision=row["revision"],
    )
