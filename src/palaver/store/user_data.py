"""Everything that is kept of one end user: handed out, or removed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from palaver.core.types import Message, User
from palaver.store.conversations import ConversationTable
from palaver.store.database import Database
from palaver.store.quotas import Quotas

PAGE = 200
PAGE_BYTES = 1_048_576
"""Of messages, as they are stored, that are read at a time."""
CONVERSATIONS = 20
"""How many are read at a time: each may have variables of a mebibyte."""

# The user's row goes, and with it what refers to it; tokens only know the name. Live runs are told to stop.
_FORGET = """
WITH u AS (SELECT app, id, uid, name FROM end_user WHERE app = $1 AND id = $2 FOR UPDATE),
c AS (
    SELECT c.app, c.id FROM conversation c JOIN u ON c.app = u.app AND c.end_user = u.id
    ORDER BY c.app, c.id FOR UPDATE OF c
),
m AS (
    SELECT m.uid, m.role, m.status FROM message m JOIN c ON m.app = c.app AND m.conversation = c.id
),
t AS (
    DELETE FROM token t USING u
    WHERE t.app = u.app AND t.end_user IN (u.name, u.uid::text, replace(u.uid::text, '-', '')) RETURNING 1
),
gone AS (DELETE FROM end_user e USING u WHERE e.app = u.app AND e.id = u.id RETURNING e.id)
SELECT (SELECT count(*) FROM c) AS conversations,
    (SELECT count(*) FROM m) AS messages,
    (SELECT count(*) FROM m WHERE role = 'assistant') AS runs,
    (SELECT count(*) FROM file f JOIN u ON f.app = u.app AND f.end_user = u.id) AS files,
    (SELECT count(*) FROM subscription s JOIN u ON s.app = u.app AND s.end_user = u.id) AS subscriptions,
    (SELECT count(*) FROM claim k JOIN u ON k.app = u.app AND k.end_user = u.id) AS idempotency_keys,
    (SELECT count(*) FROM t) AS tokens,
    (SELECT count(*) FROM gone) AS users,
    (SELECT count(pg_notify('palaver', 'stop ' || replace(m.uid::text, '-', ''))) FROM m WHERE status = 'live') AS told,
    (SELECT count(pg_notify('palaver', 'users')) FROM gone) AS heard"""

COUNTED = ("users", "conversations", "messages", "runs", "files", "subscriptions", "tokens", "idempotency_keys")
"""What a receipt counts."""


class UserDataTable:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def forget(self, app: int, user: User | None) -> dict[str, int]:
        """Remove an end user with all that is theirs; how much of what there was. Their runs stop, everywhere."""
        row = None if user is None else await self._db.fetchrow(_FORGET, app, user.id)
        return {name: 0 if row is None else row[name] for name in COUNTED}

    async def export(self, app: int, user: User) -> AsyncGenerator[dict[str, Any]]:
        """Everything that is kept of an end user, an object at a time, each with its ``type``."""
        row = await self._db.fetchrow("SELECT * FROM end_user WHERE app = $1 AND id = $2", app, user.id)
        if row is None:
            return
        profile = {name: row[name] for name in ("id", "name", "nickname", "avatar", "created")}
        yield {"type": "user", "uid": row["uid"].hex, **profile}
        last = 0
        while rows := await self._db.fetch(
            "SELECT c.*, g.name AS agent_name FROM conversation c JOIN agent g ON g.app = c.app AND g.id = c.agent"
            " WHERE c.app = $1 AND c.end_user = $2 AND c.id > $3 ORDER BY c.id LIMIT $4",
            app, user.id, last, CONVERSATIONS,
        ):  # fmt: skip
            for row in rows:
                last = row["id"]
                yield {
                    "type": "conversation",
                    **{name: row[name] for name in ("id", "alias", "title", "summary", "created", "modified")},
                    "uid": row["uid"].hex,
                    "agent": row["agent_name"],
                    "variables": None if row["variables"] is None else msgspec.json.decode(row["variables"]),
                }
                async for one in self._messages(app, last, row["uid"].hex):
                    yield one
        async for one in self._files(app, user.id):
            yield one

    async def _messages(self, app: int, conversation: int, uid: str) -> AsyncGenerator[dict[str, Any]]:
        last = 0
        history = ConversationTable(self._db, Quotas(self._db)).history
        while said := (await history(app, conversation, after=last, limit=PAGE, size=PAGE_BYTES)).messages:
            for one in said:
                last = one.id
                yield {
                    "type": "message",
                    "id": one.id,
                    "uid": one.uid.hex,
                    "conversation": uid,
                    "role": one.role,
                    "created": one.created,
                    "status": _status(one),
                    "parts": one.parts,
                }

    async def _files(self, app: int, user: int) -> AsyncGenerator[dict[str, Any]]:
        last = 0
        while rows := await self._db.fetch(
            "SELECT * FROM file WHERE app = $1 AND end_user = $2 AND id > $3 ORDER BY id LIMIT $4",
            app, user, last, PAGE,
        ):  # fmt: skip
            for row in rows:
                last = row["id"]
                yield {
                    "type": "file",
                    **{name: row[name] for name in ("id", "key", "name", "media_type", "size", "created")},
                    "uid": row["uid"].hex,
                    "sha256": row["digest"].hex(),
                    "details": msgspec.json.decode(row["details"]),
                }


def _status(message: Message) -> str | None:
    if message.ended is not None:
        return message.ended.status.value
    return "live" if message.role == "assistant" else None
