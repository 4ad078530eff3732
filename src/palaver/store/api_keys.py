"""The table of credentials (API keys). Lookups are cached; any change empties the cache of every process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from palaver.core.ports.admin import ApiKeyUsage
from palaver.core.problems import Conflict, Internal, NotFound, Problem
from palaver.core.types import ApiKey, Application
from palaver.store.database import Database, Row
from palaver.store.presence import Presence, notification
from palaver.store.secrets import MASTER_KEY_CHANGED, SecretBox, credential_context

MAX_CACHED = 10_000
"""Maximum entries of the cache, including unknown keys; a full cache is emptied."""

MASTER_KEY_NOTICE_TIMEOUT_S = 2.0
"""Seconds to wait for the notification of a new master key if a secret cannot be unsealed."""

MAX_ID_CHARACTERS = 255
"""Maximum length of an id; a longer one is unknown without a lookup."""

_BY_FINGERPRINT = """
SELECT * FROM credential
WHERE dialect = $1 AND (fingerprint = $2 OR (previous_fingerprint = $2 AND previous_until > now()))
ORDER BY fingerprint = $2 DESC LIMIT 1"""

_ADD_USES = """
UPDATE credential c SET calls = c.calls + u.calls, last_used = greatest(c.last_used, u.last_used)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[]) AS u (app, number, calls, last_used)
WHERE c.app = u.app AND c.number = u.number"""

_SET_GENERATION = """
generation = generation + 2 * (enabled AND NOT $2)::integer,
previous_generation = CASE WHEN enabled AND NOT $2 THEN generation + 1 ELSE previous_generation END"""
"""Assignments for an UPDATE with the new ``enabled`` as $2. Disabling a credential permanently invalidates its tokens:
both of its secrets start a new generation."""
_MASTER_KEY_IS_CURRENT = "(SELECT value FROM meta WHERE name = 'master_key') = {}"


class ApiKeyTable:
    """Every transaction that changes a credential notifies all processes, so it takes effect everywhere at once."""

    def __init__(self, db: Database, box: SecretBox, presence: Presence) -> None:
        self._db = db
        self._box = box
        self._presence = presence
        self._cache: dict[tuple[str, str | bytes], ApiKey | None] = {}
        self._uses: dict[tuple[int, int], tuple[int, datetime]] = {}
        self._change_callbacks: list[Callable[[], None]] = []
        presence.subscribe("keys", lambda _: self._invalidate())

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever any process has changed a credential."""
        self._change_callbacks.append(callback)

    def _invalidate(self) -> None:
        self._cache.clear()
        for callback in self._change_callbacks:
            callback()

    # For requests ----------------------------------------------------------------------------------------------------

    async def get_by_id(self, dialect: str, id: str) -> ApiKey | None:
        return await self._get_cached(dialect, id, "SELECT * FROM credential WHERE dialect = $1 AND id = $2")

    async def get_by_secret(self, dialect: str, secret: str) -> ApiKey | None:
        return await self._get_cached(dialect, self._box.fingerprint(secret), _BY_FINGERPRINT)

    async def get_enabled(self, numbers: Sequence[tuple[int, int]]) -> dict[tuple[int, int], ApiKey]:
        """Those of the given keys that are enabled, by (application id, number)."""
        keys = await self._read(
            "SELECT c.* FROM unnest($1::bigint[], $2::bigint[]) AS n (app, number)"
            " JOIN credential c ON c.app = n.app AND c.number = n.number WHERE c.enabled",
            [app for app, _ in numbers],
            [number for _, number in numbers],
        )
        return {(key.app, key.number): key for key in keys}

    async def get_by_number(self, app_id: int, number: int) -> ApiKey | None:
        keys = await self._read("SELECT * FROM credential WHERE app = $1 AND number = $2", app_id, number)
        return keys[0] if keys else None

    async def list_with_setting(self, dialect: str, name: str) -> list[ApiKey]:
        sql = "SELECT * FROM credential WHERE dialect = $1 AND enabled AND settings -> $2 = 'true' ORDER BY number"
        return await self._read(sql, dialect, name)

    async def _get_cached(self, dialect: str, id_or_fingerprint: str | bytes, sql: str) -> ApiKey | None:
        name = (dialect, id_or_fingerprint)
        if name in self._cache and self._presence.listening:
            return self._cache[name]
        if isinstance(id_or_fingerprint, str) and (
            "\0" in id_or_fingerprint or len(id_or_fingerprint) > MAX_ID_CHARACTERS
        ):
            return None
        count = self._presence.notification_count
        keys = await self._read(sql, dialect, id_or_fingerprint)
        key = keys[0] if keys else None
        if count == self._presence.notification_count:  # otherwise it may have changed meanwhile
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[name] = key
        return key

    async def _read(self, sql: str, *args: Any) -> list[ApiKey]:
        """The credentials that a query returns. Right after a change of the master key, rows may be sealed with a key
        that this process has not received yet: retries until it has."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MASTER_KEY_NOTICE_TIMEOUT_S
        while True:
            rows = await self._db.fetch(sql, *args)
            try:
                return [self._api_key(row) for row in rows]
            except Internal:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(0.05)

    def record_use(self, key: ApiKey) -> None:
        """Count an admitted call in memory; ``save_uses`` stores the counts."""
        calls, _ = self._uses.get((key.app, key.number), (0, None))
        self._uses[key.app, key.number] = (calls + 1, datetime.now(UTC))

    async def save_uses(self) -> None:
        """Add the calls counted since the last save to the stored ones. If that fails, they are kept for the next
        save."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self._db.execute(
                _ADD_USES,
                [app for app, _ in uses],
                [number for _, number in uses],
                [calls for calls, _ in uses.values()],
                [last_used for _, last_used in uses.values()],
            )
        except Problem:
            for number, (calls, last_used) in uses.items():
                more_calls, latest = self._uses.get(number, (0, last_used))
                self._uses[number] = (calls + more_calls, latest)
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
        """Raises ``Conflict(reason="name")`` if the dialect already has a credential with that id or secret."""
        row = await self._change(
            "INSERT INTO credential (app, dialect, id, secret, fingerprint, settings, enabled, label)"
            f" SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE {_MASTER_KEY_IS_CURRENT.format('$9')}"
            f" ON CONFLICT DO NOTHING",
            app.id,
            dialect,
            id,
            self._seal(dialect, id, secret),
            self._box.fingerprint(secret),
            msgspec.json.encode(settings).decode(),
            enabled,
            label,
            self._box.key_id,
        )
        if row is None:
            await self._require_current_master_key()
            raise Conflict(
                reason="name", detail=f"{dialect} has a credential of the id {id!r}, or of that secret, already"
            )
        return self._api_key(row)

    async def list_all(self, app: Application | None = None) -> list[tuple[str, ApiKey]]:
        """(application name, key) for every credential of the application, or of all applications."""
        rows = await self._db.fetch(
            "SELECT c.*, a.name AS app_name FROM credential c JOIN application a ON a.id = c.app"
            " WHERE $1::bigint IS NULL OR c.app = $1 ORDER BY a.name, c.dialect, c.number",
            None if app is None else app.id,
        )
        return [(row["app_name"], self._api_key(row)) for row in rows]

    async def list_uses(self) -> dict[tuple[int, int], ApiKeyUsage]:
        """The usage of every credential, by (application id, number)."""
        rows = await self._db.fetch("SELECT app, number, created, calls, last_used FROM credential")
        return {
            (row["app"], row["number"]): ApiKeyUsage(
                created=row["created"], calls=row["calls"], last_used=row["last_used"]
            )
            for row in rows
        }

    async def set_enabled(self, id: str, *, enabled: bool, dialect: str | None = None) -> list[ApiKey]:
        """Enable or disable the credentials with that id, at most one per dialect. Returns them."""
        rows = await self._change_all(
            f"UPDATE credential SET enabled = $2, {_SET_GENERATION}"
            f" WHERE id = $1 AND ($3::text IS NULL OR dialect = $3)",
            id,
            enabled,
            dialect,
        )
        return [self._api_key(row) for row in rows]

    async def update(self, key: ApiKey, settings: Mapping[str, Any], *, enabled: bool, label: str) -> ApiKey:
        """Replace the credential's settings. Raises ``NotFound`` if it has been deleted."""
        row = await self._change(
            f"UPDATE credential SET settings = $4, label = $5, enabled = $2, {_SET_GENERATION}"
            " WHERE app = $1 AND number = $3",
            key.app,
            enabled,
            key.number,
            msgspec.json.encode(settings).decode(),
            label,
        )
        return self._updated(row, key)

    async def rotate(self, key: ApiKey, secret: str, *, overlap_s: float = 0) -> ApiKey:
        """Replace the credential's secret; the old one stays valid for ``overlap_s`` seconds. Raises ``NotFound`` if
        the credential has been deleted."""
        row = await self._change(
            "UPDATE credential SET secret = $3, fingerprint = $4, generation = generation + 1,"
            " previous_generation = CASE WHEN $5::float8 > 0 THEN generation END,"
            " previous_secret = CASE WHEN $5 > 0 THEN secret END,"
            " previous_fingerprint = CASE WHEN $5 > 0 THEN fingerprint END,"
            " previous_until = CASE WHEN $5 > 0 THEN now() + make_interval(secs => $5) END"
            f" WHERE app = $1 AND number = $2 AND {_MASTER_KEY_IS_CURRENT.format('$6')}",
            key.app,
            key.number,
            self._seal(key.dialect, key.id, secret),
            self._box.fingerprint(secret),
            overlap_s,
            self._box.key_id,
        )
        if row is None:
            await self._require_current_master_key()
        return self._updated(row, key)

    async def _require_current_master_key(self) -> None:
        """Raises ``Conflict`` if the master key has changed since this process sealed the secret."""
        if not await self._db.fetchval(f"SELECT {_MASTER_KEY_IS_CURRENT.format('$1')}", self._box.key_id):
            raise Conflict(reason="name", detail=MASTER_KEY_CHANGED)

    def _updated(self, row: Row | None, key: ApiKey) -> ApiKey:
        if row is None:  # deleted meanwhile
            raise NotFound(noun="key", ref=key.id)
        return self._api_key(row)

    async def list_by_id(self, id: str) -> list[ApiKey]:
        """The credentials with that id, at most one per dialect."""
        return await self._read("SELECT * FROM credential WHERE id = $1 ORDER BY dialect", id)

    async def delete(self, key: ApiKey) -> None:
        await self._change("DELETE FROM credential WHERE app = $1 AND number = $2", key.app, key.number)

    async def _change(self, sql: str, *args: Any) -> Row | None:
        """The row changed by a statement for one credential."""
        rows = await self._change_all(sql, *args)
        return rows[0] if rows else None

    async def _change_all(self, sql: str, *args: Any) -> list[Row]:
        """Change credentials and notify every process, in one transaction. Returns the changed rows."""
        return await self._db.transaction([notification("keys"), (f"{sql} RETURNING *", args)])

    def _seal(self, dialect: str, id: str, secret: str) -> bytes:
        return self._box.seal(secret, context=credential_context(dialect, id))

    def _unseal(self, row: Row, sealed: bytes) -> str:
        return self._box.open(sealed, context=credential_context(row["dialect"], row["id"]))

    def _api_key(self, row: Row) -> ApiKey:
        previous: bytes | None = row["previous_secret"]
        return ApiKey(
            app=row["app"],
            number=row["number"],
            dialect=row["dialect"],
            id=row["id"],
            secret=self._unseal(row, row["secret"]),
            enabled=row["enabled"],
            settings=msgspec.json.decode(row["settings"]),
            label=row["label"],
            previous_secret=None if previous is None else self._unseal(row, previous),
            previous_until=0 if previous is None else row["previous_until"].timestamp(),
            generation=row["generation"],
            previous_generation=row["previous_generation"] or 0,
        )
