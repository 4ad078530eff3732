"""Credentials. What a call needs of them is cached; a change anywhere empties the cache of every process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from palaver.core.problems import Conflict, NotFound
from palaver.core.types import Application, Key
from palaver.store.database import Database, Row
from palaver.store.presence import Presence
from palaver.store.secrets import SecretBox

CACHED = 10_000
"""Keys remembered, unknown ones included; past that the cache begins anew."""

LONGEST = 255
"""Characters of an id. A longer one is nobody's, and not worth remembering."""

_CHANGED = "pg_notify('palaver', 'keys')"


class Keys:
    """Every change says so to all processes in the same statement, so it is in force everywhere at once."""

    def __init__(self, db: Database, box: SecretBox, presence: Presence) -> None:
        self._db = db
        self._box = box
        self._presence = presence
        self._cache: dict[tuple[str, str | bytes], Key | None] = {}
        presence.on("keys", lambda _: self._cache.clear())

    # For calls ------------------------------------------------------------------------------------------------------

    async def by_id(self, dialect: str, id: str) -> Key | None:
        return await self._cached(dialect, id, "SELECT * FROM credential WHERE dialect = $1 AND id = $2")

    async def by_secret(self, dialect: str, secret: str) -> Key | None:
        sql = "SELECT * FROM credential WHERE dialect = $1 AND fingerprint = $2"
        return await self._cached(dialect, self._box.fingerprint(secret), sql)

    async def by_number(self, app: int, number: int) -> Key | None:
        row = await self._db.fetchrow("SELECT * FROM credential WHERE app = $1 AND number = $2", app, number)
        return None if row is None else self._key(row)

    async def _cached(self, dialect: str, by: str | bytes, sql: str) -> Key | None:
        if (dialect, by) in self._cache and self._presence.listening:
            return self._cache[dialect, by]
        if isinstance(by, str) and ("\0" in by or len(by) > LONGEST):
            return None
        heard = self._presence.heard
        row = await self._db.fetchrow(sql, dialect, by)
        key = None if row is None else self._key(row)
        if heard == self._presence.heard:  # else it may have changed while it was read
            if len(self._cache) >= CACHED:
                self._cache.clear()
            self._cache[dialect, by] = key
        return key

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
    ) -> Key:
        """Raises ``Conflict(reason="name")`` when the dialect has a credential of that id or secret already."""
        row = await self._db.fetchrow(
            "INSERT INTO credential (app, dialect, id, secret, fingerprint, settings, enabled)"
            f" VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING *, {_CHANGED}",
            app.id,
            dialect,
            id,
            self._seal(dialect, id, secret),
            self._box.fingerprint(secret),
            msgspec.json.encode(settings).decode(),
            enabled,
        )
        if row is None:
            raise Conflict(
                reason="name", detail=f"{dialect} has a credential of the id {id!r}, or of that secret, already"
            )
        return self._key(row)

    async def all(self, app: Application | None = None) -> list[tuple[str, Key]]:
        """(application's name, key) of every credential."""
        rows = await self._db.fetch(
            "SELECT c.*, a.name AS app_name FROM credential c JOIN application a ON a.id = c.app"
            " WHERE $1::bigint IS NULL OR c.app = $1 ORDER BY a.name, c.dialect, c.number",
            None if app is None else app.id,
        )
        return [(row["app_name"], self._key(row)) for row in rows]

    async def enable(self, id: str, *, enabled: bool, dialect: str | None = None) -> list[Key]:
        """Enable or disable the credential(s) of that id; ids are unique within a dialect."""
        rows = await self._db.fetch(
            "UPDATE credential SET enabled = $2 WHERE id = $1 AND ($3::text IS NULL OR dialect = $3)"
            f" RETURNING *, {_CHANGED}",
            id,
            enabled,
            dialect,
        )
        return [self._key(row) for row in rows]

    async def rotate(self, key: Key, secret: str) -> Key:
        """Give the credential a new secret; the old one is worth nothing from now on."""
        row = await self._db.fetchrow(
            "UPDATE credential SET secret = $3, fingerprint = $4 WHERE app = $1 AND number = $2"
            f" RETURNING *, {_CHANGED}",
            key.app,
            key.number,
            self._seal(key.dialect, key.id, secret),
            self._box.fingerprint(secret),
        )
        if row is None:  # deleted in the meantime
            raise NotFound(noun="key", ref=key.id)
        return self._key(row)

    async def find(self, id: str) -> list[Key]:
        """The credentials of that id: one for each dialect at most."""
        rows = await self._db.fetch("SELECT * FROM credential WHERE id = $1 ORDER BY dialect", id)
        return [self._key(row) for row in rows]

    async def delete(self, key: Key) -> None:
        await self._db.execute(
            f"WITH gone AS (DELETE FROM credential WHERE app = $1 AND number = $2 RETURNING 1) SELECT {_CHANGED}"
            " FROM gone",
            key.app,
            key.number,
        )

    def _seal(self, dialect: str, id: str, secret: str) -> bytes:
        return self._box.seal(secret, bound_to=f"{dialect}/{id}")

    def _key(self, row: Row) -> Key:
        return Key(
            app=row["app"],
            number=row["number"],
            dialect=row["dialect"],
            id=row["id"],
            secret=self._box.open(row["secret"], bound_to=f"{row['dialect']}/{row['id']}"),
            enabled=row["enabled"],
            settings=msgspec.json.decode(row["settings"]),
        )
