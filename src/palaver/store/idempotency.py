"""The table of idempotency keys, for calls that start no run: their stored responses, or the process executing them."""

from __future__ import annotations

import msgspec

from palaver.core.ports.store import IdempotencyKey, StoredResponse
from palaver.core.problems import Busy, Conflict
from palaver.core.types import Principal, User
from palaver.store.conversations import json_text
from palaver.store.database import Database
from palaver.store.presence import WORKER_LOCK_CLASS
from palaver.store.quotas import Quotas

_KEY_MATCHES = "app = $1 AND credential = $2 AND end_user = $3 AND scope = $4 AND key = $5"

# A key can be claimed if it has no row, an expired one, or one of a process that died before it had a response.
_CLAIM = """
INSERT INTO claim AS k (app, credential, end_user, scope, key, digest, worker, expires)
VALUES ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8))
ON CONFLICT (app, credential, end_user, scope, key) DO UPDATE
    SET digest = excluded.digest, worker = excluded.worker, expires = excluded.expires,
        run = NULL, status = NULL, media_type = NULL, headers = NULL, body = NULL,
        conversation = NULL, file = NULL
    WHERE k.expires <= now() OR (k.status IS NULL AND k.run IS NULL AND k.worker IS DISTINCT FROM $7 AND NOT EXISTS (
        SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid::bigint = $9 AND l.objid::bigint = k.worker))
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
        try:
            await self._quotas.require_room("idempotency_keys", principal.app, principal.key.number)
        except Busy as error:
            quota_error = error
        else:
            claimed = await self._db.fetchval(
                _CLAIM, *_key_columns(principal, user, key), key.digest, worker, ttl_s, WORKER_LOCK_CLASS
            )
            if claimed is not None:
                self._quotas.record_rows("idempotency_keys", principal.app, principal.key.number)
                return True
        row = await self._db.fetchrow(
            f"SELECT digest, status, media_type, headers, body FROM claim WHERE {_KEY_MATCHES}",
            *_key_columns(principal, user, key),
        )
        if row is None and quota_error is not None:  # a replay needs no quota
            raise quota_error
        if row is None:
            return False
        if row["digest"] != key.digest:
            raise Conflict(reason="idempotency")
        if row["status"] is None:
            return False
        headers = msgspec.json.decode(row["headers"], type=tuple[tuple[str, str], ...])
        return StoredResponse(status=row["status"], media_type=row["media_type"], headers=headers, body=row["body"])

    async def complete(self, principal: Principal, user: User, key: IdempotencyKey, response: StoredResponse) -> None:
        await self._db.execute(
            "WITH updated AS (UPDATE claim SET status = $6, media_type = $7, headers = $8, body = $9, worker = NULL,"
            f" conversation = $10, file = $11 WHERE {_KEY_MATCHES} RETURNING 1)"
            " SELECT pg_notify('palaver', 'claim ' || $12::text) FROM updated",
            *_key_columns(principal, user, key),
            response.status,
            response.media_type,
            json_text(response.headers),
            response.body,
            response.conversation,
            response.file,
            key.topic(principal, user),
        )

    async def release(self, principal: Principal, user: User, key: IdempotencyKey) -> None:
        await self._db.execute(
            f"WITH deleted AS (DELETE FROM claim WHERE {_KEY_MATCHES} AND status IS NULL AND run IS NULL RETURNING 1)"
            " SELECT pg_notify('palaver', 'claim ' || $6::text) FROM deleted",
            *_key_columns(principal, user, key),
            key.topic(principal, user),
        )


def _key_columns(principal: Principal, user: User, key: IdempotencyKey) -> tuple[int, int, int, str, str]:
    return principal.app, principal.key.number, user.id, key.scope, key.key
