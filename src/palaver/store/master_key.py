"""The master key of a database: known again by its fingerprint, and changed while servers run.

Processes that run get the new key as a notice, sealed with the old one; it is kept where the old one was, nowhere else.
Secrets and tokens are found by a key that the first master key gave, the fingerprint key. Once the master key is
another one, that key is stored, sealed, so that every token stays good.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import structlog

from palaver.core.problems import Conflict, Internal
from palaver.store.database import Database
from palaver.store.driver import Row, connected
from palaver.store.presence import Presence
from palaver.store.secrets import CHANGED, SecretBox, bound_to

_NOTICE = "master key"
_FINGERPRINT = "fingerprint key"

log = structlog.get_logger("palaver.store")

_RESEAL = """
UPDATE credential c SET secret = s.secret, previous_secret = s.previous
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[]) AS s (app, number, secret, previous)
WHERE c.app = s.app AND c.number = s.number
"""


class MasterKey:
    """``keep`` puts a new key where this process had the old one from, and tells whether it could."""

    def __init__(self, db: Database, box: SecretBox, presence: Presence, keep: Callable[[bytes], bool]) -> None:
        self._db = db
        self._box = box
        self._keep = keep
        presence.on("master", self._hear)
        presence.on_return(self._look)

    @property
    def identity(self) -> str:
        """Of the key that this process has now."""
        return self._box.identity

    async def open(self) -> None:
        """Whoever comes first leaves the key's fingerprint. Raises ``Internal`` where another key left one."""
        theirs = await self._db.fetchval(
            "INSERT INTO meta (name, value) VALUES ('master_key', $1)"
            " ON CONFLICT (name) DO UPDATE SET value = meta.value RETURNING value",
            self._box.identity,
        )
        if theirs != self._box.identity:
            detail = "this database was used with another master key; set PALAVER_MASTER_KEY to that one"
            raise Internal(reason="database", detail=detail)
        sealed: str | None = await self._db.fetchval("SELECT value FROM meta WHERE name = 'fingerprint_key'")
        if sealed is not None:
            self._box.find_by(bytes.fromhex(self._box.open(base64.b64decode(sealed), bound_to=_FINGERPRINT)))

    async def rotate(self, url: str, master: bytes) -> int:
        """Seal every secret with ``master`` from now on, all or none; how many. ``url`` is an address at which a
        session is one's own. Raises ``Conflict`` when the key is not the database's any more."""
        new = SecretBox(master)
        async with connected(url, timeout=10) as connection, connection.transaction():
            await connection.execute("LOCK TABLE credential IN EXCLUSIVE MODE")
            theirs = await connection.fetchval("SELECT value FROM meta WHERE name = 'master_key' FOR UPDATE")
            if theirs != self._box.identity:
                raise Conflict(reason="name", detail=CHANGED)
            rows = await connection.fetch("SELECT app, number, dialect, id, secret, previous_secret FROM credential")
            await connection.execute(
                _RESEAL,
                [row["app"] for row in rows],
                [row["number"] for row in rows],
                [self._resealed(new, row, row["secret"]) for row in rows],
                [self._resealed(new, row, row["previous_secret"]) for row in rows],
            )
            await connection.execute(
                "INSERT INTO meta (name, value) VALUES ('master_key', $1), ('fingerprint_key', $2)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                new.identity,
                base64.b64encode(new.seal(self._box.fingerprint_key.hex(), bound_to=_FINGERPRINT)).decode(),
            )
            notice = base64.b64encode(self._box.seal(master.hex(), bound_to=_NOTICE)).decode()
            await connection.execute("SELECT pg_notify('palaver', $1)", f"master {notice}")
        self._box.change(master)
        return len(rows)

    def _resealed(self, new: SecretBox, row: Row, sealed: bytes | None) -> bytes | None:
        if sealed is None:
            return None
        place = bound_to(row["dialect"], row["id"])
        return new.seal(self._box.open(sealed, bound_to=place), bound_to=place)

    def _hear(self, notice: str) -> None:
        """The new key, if it is new here and comes from somebody who had the old one."""
        try:
            master = bytes.fromhex(self._box.open(base64.b64decode(notice, validate=True), bound_to=_NOTICE))
        except (Internal, ValueError):  # its own, or nobody's
            return
        self._box.change(master)
        kept = self._keep(master)
        log.warning("the master key was changed", kept=kept)

    async def _look(self) -> None:
        """After notices may have been missed."""
        if await self._db.fetchval("SELECT value FROM meta WHERE name = 'master_key'") != self._box.identity:
            log.critical("the master key was changed unheard, restart this process with the new one")
