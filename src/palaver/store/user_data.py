"""Export and deletion of everything stored for one end user."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from palaver.core.types import Message, User
from palaver.store.conversations import ConversationTable
from palaver.store.database import Database
from palaver.store.presence import notification, try_notify
from palaver.store.quotas import Quotas

BATCH_ROWS = 200
"""Maximum number of messages, or of files, per query."""
BATCH_BYTES = 1_048_576
"""Maximum stored bytes of messages per query."""
BATCH_CONVERSATIONS = 20
"""Maximum number of conversations per query: each may have variables of 1 MiB."""

# Most rows are deleted with the end user's by foreign keys; tokens refer to its name. Conversations are locked in the
# same order as elsewhere.
_LOCK_USER = "SELECT 1 FROM end_user WHERE app = $1 AND id = $2 FOR UPDATE"
_LOCK_CONVERSATIONS = "SELECT 1 FROM conversation WHERE app = $1 AND end_user = $2 ORDER BY id FOR UPDATE"
_DELETE = """
WITH messages AS MATERIALIZED (
    SELECT uid, role, status FROM message
    WHERE app = $1 AND conversation IN (SELECT c.id FROM conversation c WHERE c.app = $1 AND c.end_user = $2)
),
names AS MATERIALIZED (
    SELECT unnest(ARRAY[name, uid::text, replace(uid::text, '-', '')]) AS name FROM end_user WHERE app = $1 AND id = $2
),
counts AS MATERIALIZED (
    SELECT (SELECT count(*) FROM conversation WHERE app = $1 AND end_user = $2) AS conversations,
        (SELECT count(*) FROM messages) AS messages,
        (SELECT count(*) FROM messages WHERE role = 'assistant') AS runs,
        (SELECT array_agg(uid) FROM messages WHERE status = 'live') AS live_runs,
        (SELECT count(*) FROM file WHERE app = $1 AND end_user = $2) AS files,
        (SELECT count(*) FROM subscription WHERE app = $1 AND end_user = $2) AS subscriptions,
        (SELECT count(*) FROM claim WHERE app = $1 AND end_user = $2) AS idempotency_keys
),
deleted_tokens AS (DELETE FROM token WHERE app = $1 AND end_user IN (SELECT name FROM names) RETURNING 1),
deleted_user AS (DELETE FROM end_user WHERE app = $1 AND id = $2 RETURNING 1)
SELECT *, (SELECT count(*) FROM deleted_tokens) AS tokens, (SELECT count(*) FROM deleted_user) AS users FROM counts"""

COUNTED = ("users", "conversations", "messages", "runs", "files", "subscriptions", "tokens", "idempotency_keys")
"""The kinds of rows that ``UserDataTable.delete`` counts."""


class UserDataTable:
    """The data of an end user, across all tables."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def delete(self, app_id: int, user: User | None) -> dict[str, int]:
        """Delete an end user and all of its data, and stop its runs in every process. Returns the number of deleted
        rows by name, for the names in ``COUNTED``."""
        if user is None:
            return dict.fromkeys(COUNTED, 0)
        deletions = [(sql, (app_id, user.id)) for sql in (_LOCK_USER, _LOCK_CONVERSATIONS, _DELETE)]
        (row,) = await self._db.transaction([notification("users"), *deletions])
        await try_notify(self._db, [f"stop {run.hex}" for run in row["live_runs"] or ()])
        return {name: row[name] for name in COUNTED}

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
            "SELECT c.*, g.name AS agent_name FROM conversation c JOIN agent g ON g.app = $1 AND g.id = c.agent"
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
