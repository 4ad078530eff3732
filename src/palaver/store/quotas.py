"""How many rows callers may have stored, of every kind that grows with their calls.

Nobody waits for a count on the way: a process knows what it found when it counted last, and what it has added since.
It counts again, beside the call, after each 64th of the quota. So several processes together may go beyond by a 64th
each; one that has counted just now says no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from palaver.core.problems import Busy, Problem
from palaver.store.database import Database

Kind = Literal[
    "users",
    "conversations",
    "user_conversations",
    "conversation_messages",
    "idempotency_keys",
    "codes",
    "tokens",
    "request_ids",
]

FIRST = 8
"""Rows that a process adds before it counts what was there when it began."""
STEPS = 64
"""How often it counts until a quota is used up."""
PAUSE_S = 1.0
COST = 100
"""A count is believed for so long before somebody is refused by a new one: a second, and 100 times what it took."""
REMEMBERED = 100_000
"""Tallies of a process; past that it begins anew."""

_ROWS: Mapping[Kind, str] = {
    "users": "end_user WHERE app = $1",
    "conversations": "conversation WHERE app = $1",
    "user_conversations": "conversation WHERE app = $1 AND end_user = $2",
    "conversation_messages": "conversation c JOIN message m ON m.app = c.app AND m.conversation = c.id"
    " WHERE c.app = $1 AND c.end_user = $2 AND (c.id = $3 OR c.uid = $4 OR c.alias = $5)",
    "idempotency_keys": "claim WHERE app = $1 AND credential = $2",
    "codes": "token WHERE app = $1 AND credential = $2 AND kind = 'code' AND NOT used AND expires > now()",
    "tokens": "token WHERE app = $1 AND credential = $2 AND (kind <> 'code' OR used)",
    "request_ids": "seen_request WHERE app = $1 AND credential = $2",
}
"""What a kind's rows are; the parameters say whose."""

log = structlog.get_logger("palaver.store")

Whose = tuple[Any, ...]


@dataclass(slots=True)
class _Tally:
    """``counted`` rows were there, ``added`` came since, as far as this process knows."""

    counted: int = 0
    added: int = 0
    due: int = FIRST
    """How many it may add before it counts again."""
    believed_until: float = 0.0
    task: asyncio.Task[None] | None = None

    @property
    def rows(self) -> int:
        return self.counted + self.added


class Quotas:
    """``limits`` has the most rows of each kind; a kind that is not there has no limit."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.limits: Mapping[Kind, int] = {}
        self._tallies: dict[tuple[Kind, Whose], _Tally] = {}
        self._turn = asyncio.Lock()
        """One count at a time: it may read millions of rows."""

    async def want_room(self, kind: Kind, *whose: Any, rows: int = 1) -> None:
        """Raises ``Busy(reason="full")`` where so many more are too many."""
        limit, tally = self.limits.get(kind), self._tallies.get((kind, whose))
        if limit is None or (tally is None and rows <= limit):
            return
        tally = tally or _Tally()
        if tally.rows + rows <= limit:
            return
        if asyncio.get_running_loop().time() >= tally.believed_until:
            await asyncio.shield(self._counting(kind, whose, tally))
            if tally.rows + rows <= limit:
                return
            log.warning("quota used up", quota=kind, app=whose[0], of=whose[1:2], limit=limit)
        raise Busy(reason="full")

    def note(self, kind: Kind, *whose: Any, rows: int = 1) -> None:
        """Rows that were added."""
        if kind not in self.limits:
            return
        tally = self._tallies.get((kind, whose))
        if tally is None:
            if len(self._tallies) >= REMEMBERED:
                self._forget()
            tally = self._tallies[kind, whose] = _Tally()
        tally.added += rows
        if tally.added >= tally.due:
            self._counting(kind, whose, tally)

    async def want_conversation(self, app: int, user: int) -> None:
        """The same for a conversation of an end user."""
        await self.want_room("conversations", app)
        await self.want_room("user_conversations", app, user)

    def note_conversation(self, app: int, user: int) -> None:
        self.note("conversations", app)
        self.note("user_conversations", app, user)

    async def close(self) -> None:
        await asyncio.gather(*self._forget(), return_exceptions=True)

    def _forget(self) -> list[asyncio.Task[None]]:
        """Begin anew; the counts that are given up."""
        tasks = [tally.task for tally in self._tallies.values() if tally.task is not None]
        for task in tasks:
            task.cancel()
        self._tallies.clear()
        return tasks

    def _counting(self, kind: Kind, whose: Whose, tally: _Tally) -> asyncio.Task[None]:
        if tally.task is None:
            tally.task = asyncio.create_task(self._count(kind, whose, tally))
        return tally.task

    async def _count(self, kind: Kind, whose: Whose, tally: _Tally) -> None:
        limit = self.limits[kind]
        try:
            async with self._turn:
                loop = asyncio.get_running_loop()
                began, before = loop.time(), tally.added
                sql = f"SELECT count(*) FROM (SELECT FROM {_ROWS[kind]} LIMIT {limit}) AS rows"
                with suppress(Problem):  # the store said so in the log
                    tally.counted = await self._db.fetchval(sql, *whose)
                    tally.added -= before
                now = loop.time()
                tally.believed_until = now + max(PAUSE_S, COST * (now - began))
                tally.due = tally.added + max(FIRST, limit // STEPS)
        finally:
            tally.task = None
