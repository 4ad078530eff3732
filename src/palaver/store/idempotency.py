"""Answers kept for Idempotency-Keys: the calls that begin no run."""

from __future__ import annotations

import msgspec

from palaver.core.ports.store import IdempotencyKey, StoredResponse
from palaver.core.problems import Busy, Conflict
from palaver.core.types import Principal, User
from palaver.store.conversations import json_text
from palaver.store.database import Database
from palaver.store.presence import LOCK_CLASS
from palaver.store.quotas import Quotas

_KEY = "app = $1 AND credential = $2 AND end_user = $3 AND scope = $4 AND key = $5"

# Free: none there, one that has run out, or one whose process died before it had an answer.
_BEGIN = """
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
    def __init__(self, db: Database, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas

    async def begin(
        self, who: Principal, user: User, claim: IdempotencyKey, ttl: float, worker: int
    ) -> StoredResponse | bool:
        full: Busy | None = None
        try:
            await self._quotas.want_room("idempotency_keys", who.app, who.key.number)
        except Busy as busy:
            full = busy
        else:
            mine = await self._db.fetchval(_BEGIN, *_key(who, user, claim), claim.digest, worker, ttl, LOCK_CLASS)
            if mine is not None:
                self._quotas.note("idempotency_keys", who.app, who.key.number)
                return True
        row = await self._db.fetchrow(
            f"SELECT digest, status, media_type, headers, body FROM claim WHERE {_KEY}", *_key(who, user, claim)
        )
        if row is None and full is not None:  # only what was answered before is answered
            raise full
        if row is None:
            return False
        if row["digest"] != claim.digest:
            raise Conflict(reason="idempotency")
        if row["status"] is None:
            return False
        headers = msgspec.json.decode(row["headers"], type=tuple[tuple[str, str], ...])
        return StoredResponse(status=row["status"], media_type=row["media_type"], headers=headers, body=row["body"])

    async def settle(self, who: Principal, user: User, claim: IdempotencyKey, answer: StoredResponse) -> None:
        await self._db.execute(
            "WITH done AS (UPDATE claim SET status = $6, media_type = $7, headers = $8, body = $9, worker = NULL,"
            f" conversation = $10, file = $11 WHERE {_KEY} RETURNING 1)"
            " SELECT pg_notify('palaver', 'claim ' || $12::text) FROM done",
            *_key(who, user, claim),
            answer.status,
            answer.media_type,
            json_text(answer.headers),
            answer.body,
            answer.conversation,
            answer.file,
            claim.topic(who, user),
        )

    async def abandon(self, who: Principal, user: User, claim: IdempotencyKey) -> None:
        await self._db.execute(
            f"WITH gone AS (DELETE FROM claim WHERE {_KEY} AND status IS NULL AND run IS NULL RETURNING 1)"
            " SELECT pg_notify('palaver', 'claim ' || $6::text) FROM gone",
            *_key(who, user, claim),
            claim.topic(who, user),
        )


def _key(who: Principal, user: User, claim: IdempotencyKey) -> tuple[int, int, int, str, str]:
    return who.app, who.key.number, user.id, claim.scope, claim.key
