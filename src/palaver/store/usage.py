"""What credentials with limits have used, counted in one place for all processes."""

from __future__ import annotations

from palaver.core.ports import Counted
from palaver.core.types import Key
from palaver.store.database import Database

# One row, locked while it is counted. A refused call counts for neither limit.
_COUNT = """
WITH now_ AS (SELECT clock_timestamp() AS t),
made AS (
    INSERT INTO usage (app, credential) VALUES ($1, $2) ON CONFLICT DO NOTHING
),
held AS (
    SELECT u.app, u.credential, u.total,
        CASE WHEN u.minute_start + interval '60 seconds' <= t THEN t ELSE u.minute_start END AS start,
        CASE WHEN u.minute_start + interval '60 seconds' <= t THEN 0 ELSE u.minute_count END AS used, t
    FROM usage u, now_ WHERE u.app = $1 AND u.credential = $2 FOR UPDATE OF u
),
may AS (
    SELECT *, greatest(0, least($3::bigint, $4::bigint - used)) AS by_rate,
        greatest(0, least($3::bigint, $5::bigint - total)) AS by_total
    FROM held
),
counted AS (
    UPDATE usage u SET minute_start = may.start, minute_count = may.used + least(by_rate, by_total),
        total = u.total + least(by_rate, by_total)
    FROM may WHERE u.app = may.app AND u.credential = may.credential
)
SELECT by_rate, by_total, extract(epoch FROM start + interval '60 seconds' - t)::float8 AS wait FROM may"""

_UNLIMITED = 2**62


class Usage:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def count(self, key: Key, calls: int) -> Counted:
        """Count ``calls`` calls against the key's ``rpm`` and ``total``, as many as they admit."""
        rpm, total = key.setting("rpm"), key.setting("total")
        arguments = (
            key.app, key.number, calls, _UNLIMITED if rpm is None else rpm, _UNLIMITED if total is None else total
        )  # fmt: skip
        row = await self._db.fetchrow(_COUNT, *arguments)
        if row is None:  # the first call of all: the row was not there when the statement began
            row = await self._db.fetchrow(_COUNT, *arguments)
        assert row is not None
        return Counted(by_rate=row["by_rate"], by_total=row["by_total"], wait=max(0.0, row["wait"]))
