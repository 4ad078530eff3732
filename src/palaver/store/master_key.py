"""The master key of a database: checked at start, and rotated while servers run.

Running processes receive a new key in a notification, encrypted with the old one, and save it where they had loaded the
old one. Secrets and tokens are looked up by hashes keyed with the fingerprint key, which is derived from the first
master key. A rotation stores that key, encrypted, so that every token stays valid.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import structlog

from palaver.core.problems import Conflict, Internal
from palaver.store.database import Database
from palaver.store.driver import Row, connection_to
from palaver.store.presence import Presence, notification
from palaver.store.secrets import MASTER_KEY_CHANGED, SecretBox, credential_context

_NOTIFICATION_CONTEXT = "master key"
_FINGERPRINT_KEY_CONTEXT = "fingerprint key"

log = structlog.get_logger("palaver.store")

_RESEAL = """
UPDATE credential c SET secret = s.secret, previous_secret = s.previous
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[]) AS s (app, number, secret, previous)
WHERE c.app = s.app AND c.number = s.number
"""


class MasterKey:
    """``save`` stores a new key where this process had loaded the old one, and returns whether it could."""

    def __init__(self, db: Database, box: SecretBox, presence: Presence, save: Callable[[bytes], bool]) -> None:
        self._db = db
        self._box = box
        self._save = save
        presence.subscribe("master", self._on_notification)
        presence.on_reconnect(self._check)

    @property
    def key_id(self) -> str:
        """The id of the key that this process has."""
        return self._box.key_id

    async def verify_or_register(self) -> None:
        """Store the key's id in a new database. Raises ``Internal`` if the database has that of another key."""
        stored = await self._db.fetchval(
            "INSERT INTO meta (name, value) VALUES ('master_key', $1)"
            " ON CONFLICT (name) DO UPDATE SET value = meta.value RETURNING value",
            self._box.key_id,
        )
        if stored != self._box.key_id:
            detail = "this database was used with another master key; set PALAVER_MASTER_KEY to that one"
            raise Internal(reason="database", detail=detail)
        sealed: str | None = await self._db.fetchval("SELECT value FROM meta WHERE name = 'fingerprint_key'")
        if sealed is not None:
            self._box.set_fingerprint_key(
                bytes.fromhex(self._box.open(base64.b64decode(sealed), context=_FINGERPRINT_KEY_CONTEXT))
            )

    async def rotate(self, url: str, master: bytes) -> int:
        """Re-encrypt every secret with ``master``, in one transaction. Returns the number of credentials. ``url`` must
        not be that of a transaction pooler. Raises ``Conflict`` if the key has been rotated meanwhile."""
        new = SecretBox(master)
        async with connection_to(url, timeout=10) as connection, connection.transaction():
            await connection.execute("LOCK TABLE credential IN EXCLUSIVE MODE")
            stored = await connection.fetchval("SELECT value FROM meta WHERE name = 'master_key' FOR UPDATE")
            if stored != self._box.key_id:
                raise Conflict(reason="name", detail=MASTER_KEY_CHANGED)
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
                new.key_id,
                base64.b64encode(new.seal(self._box.fingerprint_key.hex(), context=_FINGERPRINT_KEY_CONTEXT)).decode(),
            )
            sealed_key = base64.b64encode(self._box.seal(master.hex(), context=_NOTIFICATION_CONTEXT)).decode()
            sql, parameters = notification(f"master {sealed_key}")
            await connection.execute(sql, *parameters)
        self._box.set_master_key(master)
        return len(rows)

    def _resealed(self, new: SecretBox, row: Row, sealed: bytes | None) -> bytes | None:
        if sealed is None:
            return None
        context = credential_context(row["dialect"], row["id"])
        return new.seal(self._box.open(sealed, context=context), context=context)

    def _on_notification(self, sealed_key: str) -> None:
        """Switch to the key in a notification, if it is encrypted with this process's key."""
        try:
            master = bytes.fromhex(
                self._box.open(base64.b64decode(sealed_key, validate=True), context=_NOTIFICATION_CONTEXT)
            )
        except (Internal, ValueError):  # this process sent it, or it is invalid
            return
        self._box.set_master_key(master)
        saved = self._save(master)
        log.warning("the master key was changed", kept=saved)

    async def _check(self) -> None:
        """After a reconnection: log an error if a notification has been missed."""
        if await self._db.fetchval("SELECT value FROM meta WHERE name = 'master_key'") != self._box.key_id:
            log.critical("the master key was changed unheard, restart this process with the new one")
