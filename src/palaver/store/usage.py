"""What credentials with limits have used, counted in one place for all processes."""

from __future__ import annotations

from palaver.core.ports.store import AdmittedCalls
from palaver.core.types import ApiKey, clean
from palaver.store.database import Database
from palaver.store.quotas import Quotas

# One row, locked while it is counted. A refused call counts for neither limit.
_COUNT = """
WITH now_ AS (SELECT clock_timestamp() AS t),
made AS (
    INSERT INTO usage (app, credential) VALUES ($1, $2) ON CONFLICT DO NOTHING
),
held AS (
    SELECT u.app, u.credential, u.total, t,
        CASE WHEN u.minute_start + interval '60 seconds' <= t THEN t ELSE u.minute_start END AS start,
        CASE WHEN u.minute_start + interval '60 seconds' <= t THEN 0 ELSE u.minute_count END AS used,
        CASE WHEN u.day_start + interval '24 hours' <= t THEN t ELSE u.day_start END AS day,
        CASE WHEN u.day_start + interval '24 hours' <= t THEN 0 ELSE u.day_count END AS used_today
    FROM usage u, now_ WHERE u.app = $1 AND u.credential = $2 FOR UPDATE OF u
),
may AS (
    SELECT *, greatest(0, least($3::bigint, $4::bigint - used)) AS by_rate,
        greatest(0, least($3::bigint, $5::bigint - used_today)) AS by_day,
        greatest(0, least($3::bigint, $6::bigint - total)) AS by_total
    FROM held
),
counted AS (
    UPDATE usage u SET minute_start = may.start, minute_count = may.used + least(by_rate, by_day, by_total),
        day_start = may.day, day_count = may.used_today + least(by_rate, by_day, by_total),
        total = u.total + least(by_rate, by_day, by_total)
    FROM may WHERE u.app = may.app AND u.credential = may.credential
)
SELECT by_rate, by_day, by_total, extract(epoch FROM start + interval '60 seconds' - t)::float8 AS wait,
    extract(epoch FROM day + interval '24 hours' - t)::float8 AS wait_day FROM may"""

_SEEN = """
INSERT INTO seen_request AS s (app, credential, request, expires)
VALUES ($1, $2, $3, now() + make_interval(secs => $4))
ON CONFLICT (app, credential, request) DO UPDATE SET expires = excluded.expires WHERE s.expires <= now()
RETURNING 1"""

_UNLIMITED = 2**62


class RateLimitTable:
    def __init__(self, db: Database, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas

    async def count(self, key: ApiKey, calls: int) -> AdmittedCalls:
        """Count ``calls`` calls against the key's ``rpm``, ``rpd`` and ``total``, as many as they admit."""
        limits = [key.setting(name) for name in ("rpm", "rpd", "total")]
        arguments = (key.app, key.number, calls, *(_UNLIMITED if limit is None else limit for limit in limits))
        row = await self._db.fetchrow(_COUNT, *arguments)
        if row is None:  # the first call of all: the row was not there when the statement began
            row = await self._db.fetchrow(_COUNT, *arguments)
        assert row is not None
        return AdmittedCalls(
            by_rate=row["by_rate"],
            by_day=row["by_day"],
            by_total=row["by_total"],
            wait=max(0.0, row["wait"]),
            wait_day=max(0.0, row["wait_day"]),
        )

    async def refund(self, key: ApiKey) -> None:
        await self._db.execute(
            "UPDATE usage SET total = total - 1 WHERE app = $1 AND credential = $2 AND total > 0", key.app, key.number
        )

    async def claim_nonce(self, key: ApiKey, request: str, ttl: float) -> bool:
        await self._quotas.want_room("request_ids", key.app, key.number)
        first = await self._db.fetchval(_SEEN, key.app, key.number, clean(request), ttl) is not None
        if first:
            self._quotas.note("request_ids", key.app, key.number)
        return first

    async def forget(self) -> None:
        """Remove request ids that may be used again."""
        await self._db.execute("DELETE FROM seen_request WHERE expires <= now()")
