"""Quotas: limits on the number of rows that callers may have stored, for every kind of row that calls create.

Calls do not wait for a count: each process knows its last count and the rows that it has added since, and counts again
in the background after each 64th of the quota. So each process may exceed a quota by up to a 64th. Before a call is
rejected, the rows are counted again, unless that has just been done.
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

QuotaKind = Literal[
    "users",
    "conversations",
    "user_conversations",
    "conversation_messages",
    "idempotency_keys",
    "codes",
    "tokens",
    "request_ids",
]

FIRST_RECOUNT_ROWS = 8
"""Rows that a process adds before its first count."""
RECOUNTS_PER_QUOTA = 64
"""Number of counts until a quota is used up."""
MIN_COUNT_TTL_S = 1.0
COUNT_TTL_FACTOR = 100
"""Calls are rejected without a new count for at least ``MIN_COUNT_TTL_S`` and for this many times the duration of a
count."""
MAX_COUNTERS = 100_000
"""Maximum number of counters of a process; when it is reached, all are dropped."""

_FROM_WHERE: Mapping[QuotaKind, str] = {
    "users": "end_user WHERE app = $1",
    "conversations": "conversation WHERE app = $1",
    "user_conversations": "conversation WHERE app = $1 AND end_user = $2",
    "conversation_messages": "conversation c JOIN message m ON m.app = $1 AND m.conversation = c.id"
    " WHERE c.app = $1 AND c.end_user = $2 AND (c.id = $3 OR c.uid = $4 OR c.alias = $5)",
    "idempotency_keys": "claim WHERE app = $1 AND credential = $2",
    "codes": "token WHERE app = $1 AND credential = $2 AND kind = 'code' AND NOT used AND expires > now()",
    "tokens": "token WHERE app = $1 AND credential = $2 AND (kind <> 'code' OR used)",
    "request_ids": "seen_request WHERE app = $1 AND credential = $2",
}
"""FROM and WHERE clause for the rows of each kind; the parameters are those of a ``QuotaScope``."""

log = structlog.get_logger("palaver.store")

QuotaScope = tuple[Any, ...]
"""The owner of the rows: the parameters of the kind's query, starting with the application's id."""


@dataclass(slots=True)
class _Counter:
    """Rows at the last count, and rows that this process has added since."""

    counted: int = 0
    added: int = 0
    recount_at: int = FIRST_RECOUNT_ROWS
    """The number of added rows that starts the next count."""
    valid_until: float = 0.0
    task: asyncio.Task[None] | None = None

    @property
    def rows(self) -> int:
        return self.counted + self.added


class Quotas:
    """Checks and counts rows. ``limits`` has the maximum rows per kind and scope; other kinds are unlimited."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.limits: Mapping[QuotaKind, int] = {}
        self._counters: dict[tuple[QuotaKind, QuotaScope], _Counter] = {}
        self._count_lock = asyncio.Lock()
        """Only one count runs at a time, because it may read millions of rows."""

    async def require_room(self, kind: QuotaKind, *scope: Any, rows: int = 1) -> None:
        """Raises ``Busy(reason="full")`` if ``rows`` more rows exceed the limit."""
        limit, counter = self.limits.get(kind), self._counters.get((kind, scope))
        if limit is None or (counter is None and rows <= limit):
            return
        counter = counter or _Counter()
        if counter.rows + rows <= limit:
            return
        if asyncio.get_running_loop().time() >= counter.valid_until:
            await asyncio.shield(self._start_count(kind, scope, counter))
            if counter.rows + rows <= limit:
                return
            log.warning("quota used up", quota=kind, app=scope[0], of=scope[1:2], limit=limit)
        raise Busy(reason="full")

    def record_rows(self, kind: QuotaKind, *scope: Any, rows: int = 1) -> None:
        """Record that rows have been added."""
        if kind not in self.limits:
            return
        counter = self._counters.get((kind, scope))
        if counter is None:
            if len(self._counters) >= MAX_COUNTERS:
                self._clear()
            counter = self._counters[kind, scope] = _Counter()
        counter.added += rows
        if counter.added >= counter.recount_at:
            self._start_count(kind, scope, counter)

    async def require_room_for_conversation(self, app_id: int, user_id: int) -> None:
        """Raises ``Busy(reason="full")`` if the end user, or all of the application together, may not create another
        one."""
        await self.require_room("conversations", app_id)
        await self.require_room("user_conversations", app_id, user_id)

    def record_conversation(self, app_id: int, user_id: int) -> None:
        self.record_rows("conversations", app_id)
        self.record_rows("user_conversations", app_id, user_id)

    async def close(self) -> None:
        await asyncio.gather(*self._clear(), return_exceptions=True)

    def _clear(self) -> list[asyncio.Task[None]]:
        """Drop all counters. Returns the running counts, which are cancelled."""
        tasks = [counter.task for counter in self._counters.values() if counter.task is not None]
        for task in tasks:
            task.cancel()
        self._counters.clear()
        return tasks

    def _start_count(self, kind: QuotaKind, scope: QuotaScope, counter: _Counter) -> asyncio.Task[None]:
        if counter.task is None:
            counter.task = asyncio.create_task(self._count(kind, scope, counter))
        return counter.task

    async def _count(self, kind: QuotaKind, scope: QuotaScope, counter: _Counter) -> None:
        limit = self.limits[kind]
        try:
            async with self._count_lock:
                loop = asyncio.get_running_loop()
                started, added = loop.time(), counter.added
                sql = f"SELECT count(*) FROM (SELECT FROM {_FROM_WHERE[kind]} LIMIT {limit}) AS rows"
                with suppress(Problem):  # already logged by the database
                    counter.counted = await self._db.fetchval(sql, *scope)
                    counter.added -= added
                now = loop.time()
                counter.valid_until = now + max(MIN_COUNT_TTL_S, COUNT_TTL_FACTOR * (now - started))
                counter.recount_at = counter.added + max(FIRST_RECOUNT_ROWS, limit // RECOUNTS_PER_QUOTA)
        finally:
            counter.task = None
