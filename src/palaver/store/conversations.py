"""Conversations and what was said in them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from palaver.core.problems import Problem
from palaver.core.types import (
    MAX_ID,
    Agent,
    AnyPart,
    Conversation,
    Ended,
    Message,
    Principal,
    Ref,
    Status,
    Usage,
    User,
    as_uid,
    clean,
    new_uid,
)
from palaver.store.database import Database, Row

_COLUMNS = "app, id, uid, end_user, agent, alias, title, opening, created, modified"
_parts = msgspec.json.Decoder(tuple[AnyPart, ...]).decode
_usage = msgspec.json.Decoder(Usage).decode


class Conversations:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self, who: Principal, user: User, agent: Agent, *, alias: str | None = None, title: str | None = None
    ) -> Conversation:
        row = await self._db.fetchrow(
            "INSERT INTO conversation (app, uid, end_user, agent, alias, title) VALUES ($1, $2, $3, $4, $5, $6)"
            f" RETURNING {_COLUMNS}",
            who.app,
            new_uid(),
            user.id,
            agent.id,
            alias,
            title,
        )
        assert row is not None
        return conversation(row)

    async def get(self, app: int, user: int, ref: Ref) -> Conversation | None:
        row = await self._db.fetchrow(f"SELECT {_COLUMNS} FROM conversation c WHERE {NAMED}", *named(app, user, ref))
        return None if row is None else conversation(row)

    async def page(
        self, app: int, user: int, *, agent: int | None, after: Conversation | None, limit: int
    ) -> list[Conversation]:
        rows = await self._db.fetch(
            f"SELECT {_COLUMNS} FROM conversation WHERE app = $1 AND end_user = $2"
            " AND ($3::bigint IS NULL OR agent = $3)"
            " AND ($4::timestamptz IS NULL OR (modified, id) < ($4, $5::bigint))"
            " ORDER BY modified DESC, id DESC LIMIT $6",
            app,
            user,
            agent,
            None if after is None else after.modified,
            None if after is None else after.id,
            limit,
        )
        return [conversation(row) for row in rows]

    async def rename(self, app: int, user: int, ref: Ref, title: str) -> Conversation | None:
        row = await self._db.fetchrow(
            f"UPDATE conversation c SET title = $6, modified = now() WHERE {NAMED} RETURNING {_COLUMNS}",
            *named(app, user, ref),
            title,
        )
        return None if row is None else conversation(row)

    async def delete(self, app: int, user: int, ref: Ref) -> list[UUID] | None:
        rows = await self._db.fetch(
            f"WITH gone AS (DELETE FROM conversation c WHERE {NAMED} RETURNING app, id)"
            " SELECT m.uid FROM gone LEFT JOIN message m"
            " ON m.app = gone.app AND m.conversation = gone.id AND m.status = 'live' ORDER BY m.id DESC",
            *named(app, user, ref),
        )
        return [row["uid"] for row in rows if row["uid"] is not None] if rows else None

    async def history(self, app: int, conversation: int, *, before: int | None, limit: int) -> list[Message]:
        rows = await self._db.fetch(
            "SELECT * FROM message WHERE app = $1 AND conversation = $2 AND id < $3 ORDER BY id DESC LIMIT $4",
            app,
            conversation,
            MAX_ID if before is None else before,
            limit,
        )
        return [message(row) for row in reversed(rows)]


NAMED = "c.app = $1 AND c.end_user = $2 AND (c.id = $3 OR c.uid = $4 OR c.alias = $5)"
"""A WHERE that finds one conversation by any of its names; ``named`` gives its five parameters."""


def named(app: int, user: int, ref: Ref) -> tuple[int, int, int | None, UUID | None, str | None]:
    if isinstance(ref, int):
        return app, user, ref if 0 < ref <= MAX_ID else None, None, None
    if isinstance(ref, UUID):
        return app, user, None, ref, None
    return app, user, None, as_uid(ref), clean(ref)


def conversation(row: Row) -> Conversation:
    return Conversation(
        app=row["app"],
        id=row["id"],
        uid=row["uid"],
        user=row["end_user"],
        agent=row["agent"],
        alias=row["alias"],
        title=row["title"],
        opening=row["opening"],
        created=row["created"],
        modified=row["modified"],
    )


def message(row: Row) -> Message:
    status: str | None = row["status"]
    return Message(
        app=row["app"],
        id=row["id"],
        uid=row["uid"],
        conversation=row["conversation"],
        role=row["role"],
        parts=_parts(row["parts"]),
        created=row["created"],
        ended=None if status is None or status == "live" else _ended(row, Status(status)),
    )


def _ended(row: Row, status: Status) -> Ended:
    problem: Any = None if row["problem"] is None else msgspec.json.decode(row["problem"])
    return Ended(
        status=status,
        reason=row["reason"] or "stop",
        usage=Usage() if row["usage"] is None else _usage(row["usage"]),
        problem=None if problem is None else Problem.recall(problem),
    )
