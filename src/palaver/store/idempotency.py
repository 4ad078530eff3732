"""The table of idempotency keys, for calls that start no run: their stored responses, or the process executing them."""

from __future__ import annotations

import msgspec

from palaver.core.ports.store import IdempotencyKey, StoredResponse
from palaver.core.problems import Busy, Conflict
from palaver.core.types import Principal, User
from palaver.store.conversations import json_text
from palaver.store.database import Database
from palaver.store.presence import LIVE_WORKERS, notification
from palaver.store.quotas import Quotas

_KEY_MATCHES = "app = $1 AND credential = $2 AND end_user = $3 AND scope = $4 AND key = $5"

# A key can claimed if it has no row, an expired one, or one of a process that died before it had a response.
_CLAIM = """
INSERT INTO claim (app, credential, end_user, scope, key, digest, worker, expires)
VALUES ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8))
ON CONFLICT DO NOTHING RETURNING 1"""
_FIND = f"""
SELECT digest, status, media_type, headers, body, expires <= now() AS expired,
    status IS NULL AND run IS NULL AND worker IS DISTINCT FROM $6::integer AS elsewhere
FROM claim WHERE {_KEY_MATCHES}"""
_TAKE_OVER = f"""
WITH alive AS MATERIALIZED ({LIVE_WORKERS})
UPDATE claim SET digest = $6, worker = $7, expires = now() + make_interval(secs => $8), run = NULL, status = NULL,
    media_type = NULL, headers = NULL, body = NULL, conversation = NULL, file = NULL
WHERE {_KEY_MATCHES} AND (expires <= now() OR (status IS NULL AND run IS NULL AND worker IS DISTINCT FROM $7
    AND coalesce(worker, 0) NOT IN (SELECT a.worker FROM alive a)))
RETURNING 1"""


class IdempotencyTable:
    """Idempotency keys and the stored responses. Keys of calls that start a run: see store/runs.py."""

    def __init__(self, db: Database, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas

    async def begin(
        self, principal: Principal, user: User, key: IdempotencyKey, ttl_s: float, worker: int
    ) -> StoredResponse | bool:
        quota_error: Busy | None = None
        names = _key_columns(principal, user, key)
        try:
            await self._quotas.require_room("idempotency_keys", principal.app, principal.key.number)
        except Busy as error:
            quota_error = error
        values = (*names, key.digest, worker, ttl_s)
        if quota_error is None and await self._db.fetchval(_CLAIM, *values) is not None:
            self._quotas.record_rows("idempotency_keys", principal.app, principal.key.number)
            return True
        row = await self._db.fetchrow(_FIND, *names, worker)
        if row is None and quota_error is not None:  # a replay needs no quota
            raise quota_error
        if row is None:
            return False
        if quota_error is None and (row["expired"] or row["elsewhere"]):
            if await self._db.fetchval(_TAKE_OVER, *values) is not None:
                self._quotas.record_rows("idempotency_keys", principal.app, principal.key.number)
                return True
            if row["expired"]:  # an identical call was faster
                return False
        if row["digest"] != key.digest:
            raise Conflict(reason="idempotency")
        if row["status"] is None:
            return False
        headers = msgspec.json.decode(row["headers"], type=tuple[tuple[str, str], ...])
        return StoredResponse(status=row["status"], media_type=row["media_type"], headers=headers, body=row["body"])

    async def complete(self, principal: Principal, user: User, key: IdempotencyKey, response: StoredResponse) -> None:
        update = (
            "UPDATE claim SET status = $6, media_type = $7, headers = $8, body = $9, worker = NULL,"
            f" conversation = $10, file = $11 WHERE {_KEY_MATCHES}",
            (
                *_key_columns(principal, user, key),
                response.status,
                response.media_type,
                json_text(response.headers),
                response.body,
                response.conversation,
                response.file,
            ),
        )
        await self._db.transaction([update, notification(f"claim {key.topic(principal, user)}")])

    async def release(self, principal: Principal, user: User, key: IdempotencyKey) -> None:
        sql = f"DELETE FROM claim WHERE {_KEY_MATCHES} AND status IS NULL AND run IS NULL"
        deletion = (sql, _key_columns(principal, user, key))
        await self._db.transaction([deletion, notification(f"claim {key.topic(principal, user)}")])


def _key_columns(principal: Principal, user: User, key: IdempotencyKey) -> tuple[int, int, int, str, str]:
    return principal.app, principal.key.number, user.id, key.scope, key.key
