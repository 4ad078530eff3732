"""Credentials. What a call needs of them is cached; a change anywhere empties the cache of every process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from palaver.core.ports.admin import ApiKeyUse
from palaver.core.problems import Conflict, Internal, NotFound, Problem
from palaver.core.types import ApiKey, Application
from palaver.store.database import Database, Row
from palaver.store.presence import Presence
from palaver.store.secrets import CHANGED, SecretBox, bound_to

CACHED = 10_000
"""Keys remembered, unknown ones included; past that the cache begins anew."""

NOTICE_WITHIN = 2.0
"""Seconds in which a changed master key is heard of."""

LONGEST = 255
"""Characters of an id. A longer one is nobody's, and not worth remembering."""

_BY_FINGERPRINT = """
SELECT * FROM credential
WHERE dialect = $1 AND (fingerprint = $2 OR (previous_fingerprint = $2 AND previous_until > now()))
ORDER BY fingerprint = $2 DESC LIMIT 1"""

_USED = """
UPDATE credential c SET calls = c.calls + u.calls, last_used = greatest(c.last_used, u.last_used)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[]) AS u (app, number, calls, last_used)
WHERE c.app = u.app AND c.number = u.number"""

_GENERATION = """
generation = generation + 2 * (enabled AND NOT $2)::integer,
previous_generation = CASE WHEN enabled AND NOT $2 THEN generation + 1 ELSE previous_generation END"""
"""Whoever disables a credential ends its tokens, for good: both of its secrets begin a generation."""
_SAME_MASTER_KEY = "(SELECT value FROM meta WHERE name = 'master_key') = {}"
_CHANGED = "pg_notify('palaver', 'keys')"


class ApiKeyTable:
    """Every change says so to all processes in the same statement, so it is in force everywhere at once."""

    def __init__(self, db: Database, box: SecretBox, presence: Presence) -> None:
        self._db = db
        self._box = box
        self._presence = presence
        self._cache: dict[tuple[str, str | bytes], ApiKey | None] = {}
        self._used: dict[tuple[int, int], tuple[int, datetime]] = {}
        self._on_change: list[Callable[[], None]] = []
        presence.on("keys", lambda _: self._notice())

    def on_change(self, act: Callable[[], None]) -> None:
        """``act`` is called when any credential has changed, in whichever process."""
        self._on_change.append(act)

    def _notice(self) -> None:
        self._cache.clear()
        for act in self._on_change:
            act()

    # For calls ------------------------------------------------------------------------------------------------------

    async def by_id(self, dialect: str, id: str) -> ApiKey | None:
        return await self._cached(dialect, id, "SELECT * FROM credential WHERE dialect = $1 AND id = $2")

    async def by_secret(self, dialect: str, secret: str) -> ApiKey | None:
        return await self._cached(dialect, self._box.fingerprint(secret), _BY_FINGERPRINT)

    async def enabled(self, names: Sequence[tuple[int, int]]) -> dict[tuple[int, int], ApiKey]:
        """Those of ``names``, each an application and a number, that may still call."""
        keys = await self._read(
            "SELECT c.* FROM unnest($1::bigint[], $2::bigint[]) AS n (app, number)"
            " JOIN credential c ON c.app = n.app AND c.number = n.number WHERE c.enabled",
            [app for app, _ in names],
            [number for _, number in names],
        )
        return {(key.app, key.number): key for key in keys}

    async def by_number(self, app: int, number: int) -> ApiKey | None:
        keys = await self._read("SELECT * FROM credential WHERE app = $1 AND number = $2", app, number)
        return keys[0] if keys else None

    async def with_setting(self, dialect: str, name: str) -> list[ApiKey]:
        sql = "SELECT * FROM credential WHERE dialect = $1 AND enabled AND settings -> $2 = 'true' ORDER BY number"
        return await self._read(sql, dialect, name)

    async def _cached(self, dialect: str, by: str | bytes, sql: str) -> ApiKey | None:
        if (dialect, by) in self._cache and self._presence.listening:
            return self._cache[dialect, by]
        if isinstance(by, str) and ("\0" in by or len(by) > LONGEST):
            return None
        heard = self._presence.heard
        keys = await self._read(sql, dialect, by)
        key = keys[0] if keys else None
        if heard == self._presence.heard:  # else it may have changed while it was read
            if len(self._cache) >= CACHED:
                self._cache.clear()
            self._cache[dialect, by] = key
        return key

    async def _read(self, sql: str, *args: Any) -> list[ApiKey]:
        """The credentials of a query. Just as the master key is changed, what was read and what this process knows may
        not fit together; the notice is on its way."""
        loop = asyncio.get_running_loop()
        until = loop.time() + NOTICE_WITHIN
        while True:
            rows = await self._db.fetch(sql, *args)
            try:
                return [self._key(row) for row in rows]
            except Internal:
                if loop.time() > until:
                    raise
            await asyncio.sleep(0.05)

    def note_use(self, key: ApiKey) -> None:
        """Count an admitted call; ``save_use`` stores what was counted."""
        calls, _ = self._used.get((key.app, key.number), (0, None))
        self._used[key.app, key.number] = (calls + 1, datetime.now(UTC))

    async def save_use(self) -> None:
        """Store how often which credential was used since the last time. What cannot be stored is stored next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._db.execute(
                _USED,
                [app for app, _ in used],
                [number for _, number in used],
                [calls for calls, _ in used.values()],
                [last for _, last in used.values()],
            )
        except Problem:
            for name, (calls, last) in used.items():
                more, latest = self._used.get(name, (0, last))
                self._used[name] = (calls + more, latest)
            raise

    # For operators --------------------------------------------------------------------------------------------------

    async def create(
        self,
        app: Application,
        dialect: str,
        id: str,
        secret: str,
        settings: Mapping[str, Any],
        *,
        enabled: bool = True,
        label: str = "",
    ) -> ApiKey:
        """Raises ``Conflict(reason="name")`` when the dialect has a credential of that id or secret already."""
        row = await self._db.fetchrow(
            "INSERT INTO credential (app, dialect, id, secret, fingerprint, settings, enabled, label)"
            f" SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE {_SAME_MASTER_KEY.format('$9')}"
            f" ON CONFLICT DO NOTHING RETURNING *, {_CHANGED}",
            app.id,
            dialect,
            id,
            self._seal(dialect, id, secret),
            self._box.fingerprint(secret),
            msgspec.json.encode(settings).decode(),
            enabled,
            label,
            self._box.identity,
        )
        if row is None:
            await self._want_same_master_key()
            raise Conflict(
                reason="name", detail=f"{dialect} has a credential of the id {id!r}, or of that secret, already"
            )
        return self._key(row)

    async def all(self, app: Application | None = None) -> list[tuple[str, ApiKey]]:
        """(application's name, key) of every credential."""
        rows = await self._db.fetch(
            "SELECT c.*, a.name AS app_name FROM credential c JOIN application a ON a.id = c.app"
            " WHERE $1::bigint IS NULL OR c.app = $1 ORDER BY a.name, c.dialect, c.number",
            None if app is None else app.id,
        )
        return [(row["app_name"], self._key(row)) for row in rows]

    async def uses(self) -> dict[tuple[int, int], ApiKeyUse]:
        """What became of every credential, by its application's and its own number."""
        rows = await self._db.fetch("SELECT app, number, created, calls, last_used FROM credential")
        return {
            (row["app"], row["number"]): ApiKeyUse(
                created=row["created"], calls=row["calls"], last_used=row["last_used"]
            )
            for row in rows
        }

    async def enable(self, id: str, *, enabled: bool, dialect: str | None = None) -> list[ApiKey]:
        """Enable or disable the credential(s) of that id; ids are unique within a dialect."""
        rows = await self._db.fetch(
            f"UPDATE credential SET enabled = $2, {_GENERATION} WHERE id = $1 AND ($3::text IS NULL OR dialect = $3)"
            f" RETURNING *, {_CHANGED}",
            id,
            enabled,
            dialect,
        )
        return [self._key(row) for row in rows]

    async def configure(self, key: ApiKey, settings: Mapping[str, Any], *, enabled: bool, label: str) -> ApiKey:
        """Give the credential these settings in place of those it had."""
        row = await self._db.fetchrow(
            f"UPDATE credential SET settings = $4, label = $5, enabled = $2, {_GENERATION}"
            f" WHERE app = $1 AND number = $3 RETURNING *, {_CHANGED}",
            key.app,
            enabled,
            key.number,
            msgspec.json.encode(settings).decode(),
            label,
        )
        return self._changed(row, key)

    async def rotate(self, key: ApiKey, secret: str, *, overlap_s: float = 0) -> ApiKey:
        """Give the credential a new secret; the old one is worth nothing after ``overlap_s`` seconds."""
        row = await self._db.fetchrow(
            "UPDATE credential SET secret = $3, fingerprint = $4, generation = generation + 1,"
            " previous_generation = CASE WHEN $5::float8 > 0 THEN generation END,"
            " previous_secret = CASE WHEN $5 > 0 THEN secret END,"
            " previous_fingerprint = CASE WHEN $5 > 0 THEN fingerprint END,"
            " previous_until = CASE WHEN $5 > 0 THEN now() + make_interval(secs => $5) END"
            f" WHERE app = $1 AND number = $2 AND {_SAME_MASTER_KEY.format('$6')} RETURNING *, {_CHANGED}",
            key.app,
            key.number,
            self._seal(key.dialect, key.id, secret),
            self._box.fingerprint(secret),
            overlap_s,
            self._box.identity,
        )
        if row is None:
            await self._want_same_master_key()
        return self._changed(row, key)

    async def _want_same_master_key(self) -> None:
        """Raises ``Conflict`` when the master key was changed while a secret sealed with the old one was on its way."""
        if not await self._db.fetchval(f"SELECT {_SAME_MASTER_KEY.format('$1')}", self._box.identity):
            raise Conflict(reason="name", detail=CHANGED)

    def _changed(self, row: Row | None, key: ApiKey) -> ApiKey:
        if row is None:  # deleted in the meantime
            raise NotFound(noun="key", ref=key.id)
        return self._key(row)

    async def find(self, id: str) -> list[ApiKey]:
        """The credentials of that id: one for each dialect at most."""
        return await self._read("SELECT * FROM credential WHERE id = $1 ORDER BY dialect", id)

    async def delete(self, key: ApiKey) -> None:
        await self._db.execute(
            f"WITH gone AS (DELETE FROM credential WHERE app = $1 AND number = $2 RETURNING 1) SELECT {_CHANGED}"
            " FROM gone",
            key.app,
            key.number,
        )

    def _seal(self, dialect: str, id: str, secret: str) -> bytes:
        return self._box.seal(secret, bound_to=bound_to(dialect, id))

    def _open(self, row: Row, sealed: bytes) -> str:
        return self._box.open(sealed, bound_to=bound_to(row["dialect"], row["id"]))

    def _key(self, row: Row) -> ApiKey:
        previous: bytes | None = row["previous_secret"]
        return ApiKey(
            app=row["app"],
            number=row["number"],
            dialect=row["dialect"],
            id=row["id"],
            secret=self._open(row, row["secret"]),
            enabled=row["enabled"],
            settings=msgspec.json.decode(row["settings"]),
            label=row["label"],
            previous_secret=None if previous is None else self._open(row, previous),
            previous_until=0 if previous is None else row["previous_until"].timestamp(),
            generation=row["generation"],
            previous_generation=row["previous_generation"] or 0,
        )
