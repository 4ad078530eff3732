"""Export and deletion of everything stored for one end user."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from palaver.core.types import Message, User
from palaver.store.conversations import ConversationTable
from palaver.store.database import Database
from palaver.store.quotas import Quotas

BATCH_ROWS = 200
"""Maximum number of messages, or of files, per query."""
BATCH_BYTES = 1_048_576
"""Maximum stored bytes of messages per query."""
BATCH_CONVERSATIONS = 20
"""Maximum number of conversations per query: each may have variables of 1 MiB."""

# Most rows are deleted with the end user's by foreign keys; tokens refer to its name. Live runs are notified to stop.
_DELETE = """
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
deleted_user AS (DELETE FROM end_user e USING u WHERE e.app = u.app AND e.id = u.id RETURNING e.id)
SELECT (SELECT count(*) FROM c) AS conversations,
    (SELECT count(*) FROM m) AS messages,
    (SELECT count(*) FROM m WHERE role = 'assistant') AS runs,
    (SELECT count(*) FROM file f JOIN u ON f.app = u.app AND f.end_user = u.id) AS files,
    (SELECT count(*) FROM subscription s JOIN u ON s.app = u.app AND s.end_user = u.id) AS subscriptions,
    (SELECT count(*) FROM claim k JOIN u ON k.app = u.app AND k.end_user = u.id) AS idempotency_keys,
    (SELECT count(*) FROM t) AS tokens,
    (SELECT count(*) FROM deleted_user) AS users,
    (SELECT count(pg_notify('palaver', 'stop ' || replace(m.uid::text, '-', ''))) FROM m WHERE status = 'live')
        AS stop_notifications,
    (SELECT count(pg_notify('palaver', 'users')) FROM deleted_user) AS user_notifications"""

COUNTED = ("users", "conversations", "messages", "runs", "files", "subscriptions", "tokens", "idempotency_keys")
"""The kinds of rows that ``UserDataTable.delete`` counts."""


class UserDataTable:
    """The data of an end user, across all tables."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def delete(self, app_id: int, user: User | None) -> dict[str, int]:
        """Delete an end user and all of its data, and stop its runs in every process. Returns the number of deleted
        rows by name, for the names in ``COUNTED``."""
        row = None if user is None else await self._db.fetchrow(_DELETE, app_id, user.id)
        return {name: 0 if row is None else row[name] for name in COUNTED}

    async def export(self, app_id: int, user: User) -> AsyncGenerator[dict[str, Any]]:
        """Everything stored for an end user, as JSON-compatible objects with a ``type``: user, conversation, message,
        file."""
        row = await self._db.fetchrow("SELECT * FROM end_user WHERE app = $1 AND id = $2", app_id, user.id)
        if row is None:
            return
        profile = {name: row[name] for name in ("id", "name", "nickname", "avatar", "created")}
        yield {"type": "user", "uid": row["uid"].hex, **profile}
        last = 0
        while rows := await self._db.fetch(
            "SELECT c.*, g.name AS agent_name FROM conversation c JOIN agent g ON g.app = c.app AND g.id = c.agent"
            " WHERE c.app = $1 AND c.end_user = $2 AND c.id > $3 ORDER BY c.id LIMIT $4",
            app_id, user.id, last, BATCH_CONVERSATIONS,
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
                async for message in self._messages(app_id, last, row["uid"].hex):
                    yield message
        async for file in self._files(app_id, user.id):
            yield file

    async def _messages(self, app_id: int, conversation_id: int, uid: str) -> AsyncGenerator[dict[str, Any]]:
        last = 0
        get_messages = ConversationTable(self._db, Quotas(self._db)).get_messages
        while messages := (
            await get_messages(app_id, conversation_id, after=last, limit=BATCH_ROWS, max_bytes=BATCH_BYTES)
        ).messages:
            for message in messages:
                last = message.id
                yield {
                    "type": "message",
                    "id": message.id,
                    "uid": message.uid.hex,
                    "conversation": uid,
                    "role": message.role,
                    "created": message.created,
                    "status": _status(message),
                    "parts": message.parts,
                }

    async def _files(self, app_id: int, user_id: int) -> AsyncGenerator[dict[str, Any]]:
        last = 0
        while rows := await self._db.fetch(
            "SELECT * FROM file WHERE app = $1 AND end_user = $2 AND id > $3 ORDER BY id LIMIT $4",
            app_id, user_id, last, BATCH_ROWS,
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
