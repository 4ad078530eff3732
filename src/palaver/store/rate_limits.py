"""Rate limits and quotas of credentials, counted in the database for all processes; and request ids used once."""

from __future__ import annotations

from palaver.core.ports.store import AdmittedCalls
from palaver.core.types import ApiKey, clean
from palaver.store.database import Database
from palaver.store.quotas import Quotas

# Locks the credential's row. A call that one limit rejects is not counted against any.
_COUNT_CALLS = """
WITH locked AS MATERIALIZED (
    SELECT total, minute_start, minute_count, day_start, day_count
    FROM usage WHERE app = $1 AND credential = $2 FOR UPDATE
),
current AS MATERIALIZED (
    SELECT total,
        CASE WHEN minute_start + interval '60 seconds' <= now() THEN now() ELSE minute_start END AS minute_start,
        CASE WHEN minute_start + interval '60 seconds' <= now() THEN 0 ELSE minute_count END AS minute_count,
        CASE WHEN day_start + interval '24 hours' <= now() THEN now() ELSE day_start END AS day_start,
        CASE WHEN day_start + interval '24 hours' <= now() THEN 0 ELSE day_count END AS day_count
    FROM locked
),
admitted AS MATERIALIZED (
    SELECT *, greatest(0, least($3::bigint, $4::bigint - minute_count)) AS by_rate,
        greatest(0, least($3::bigint, $5::bigint - day_count)) AS by_day,
        greatest(0, least($3::bigint, $6::bigint - total)) AS by_total
    FROM current
),
counted AS (
    UPDATE usage u SET minute_start = a.minute_start, minute_count = a.minute_count + least(by_rate, by_day, by_total),
        day_start = a.day_start, day_count = a.day_count + least(by_rate, by_day, by_total),
        total = a.total + least(by_rate, by_day, by_total)
    FROM admitted a WHERE u.app = $1 AND u.credential = $2
)
SELECT by_rate, by_day, by_total, extract(epoch FROM minute_start + interval '60 seconds' - now())::float8 AS wait_s,
    extract(epoch FROM day_start + interval '24 hours' - now())::float8 AS wait_day_s FROM admitted"""
_INSERT_COUNTER = "INSERT INTO usage (app, credential) VALUES ($1, $2) ON CONFLICT DO NOTHING"

_CLAIM_NONCE = """
INSERT INTO seen_request (app, credential, request, expires) VALUES ($1, $2, $3, now() + make_interval(secs => $4))
ON CONFLICT DO NOTHING RETURNING 1"""
_DELETE_EXPIRED_NONCE = """
DELETE FROM seen_request WHERE app = $1 AND credential = $2 AND request = $3 AND expires <= now()"""

_UNLIMITED = 2**62


class RateLimitTable:
    """Counters per credential, in fixed windows of a minute and of a day that start with their first call."""

    def __init__(self, db: Database, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas

    async def count(self, key: ApiKey, calls: int) -> AdmittedCalls:
        """Count up to ``calls`` calls, as many as the key's limits ``rpm``, ``rpd`` and ``total`` all admit."""
        limits = [key.setting(name) for name in ("rpm", "rpd", "total")]
        arguments = (key.app, key.number, calls, *(_UNLIMITED if limit is None else limit for limit in limits))
        row = await self._db.fetchrow(_COUNT_CALLS, *arguments)
        if row is None:
            await self._db.execute(_INSERT_COUNTER, key.app, key.number)
            row = await self._db.fetchrow(_COUNT_CALLS, *arguments)
        assert row is not None
        return AdmittedCalls(
            by_rate=row["by_rate"],
            by_day=row["by_day"],
            by_total=row["by_total"],
            wait_s=max(0.0, row["wait_s"]),
            wait_day_s=max(0.0, row["wait_day_s"]),
        )

    async def refund(self, key: ApiKey) -> None:
        await self._db.execute(
            "UPDATE usage SET total = total - 1 WHERE app = $1 AND credential = $2 AND total > 0", key.app, key.number
        )

    async def claim_nonce(self, key: ApiKey, request: str, ttl_s: float) -> bool:
        await self._quotas.require_room("request_ids", key.app, key.number)
        nonce = (key.app, key.number, clean(request))
        first = await self._db.fetchval(_CLAIM_NONCE, *nonce, ttl_s) is not None
        if not first and await self._db.execute(_DELETE_EXPIRED_NONCE, *nonce) != "DELETE 0":
            first = await self._db.fetchval(_CLAIM_NONCE, *nonce, ttl_s) is not None
        if first:
            self._quotas.record_rows("request_ids", key.app, key.number)
        return first

    async def delete_expired(self) -> None:
        """Delete expired request ids, which may be used again."""
        await self._db.execute("DELETE FROM seen_request WHERE expires <= now()")
