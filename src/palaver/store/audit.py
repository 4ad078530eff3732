"""The audit log: who changed what by which command, when, and with which outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from palaver.core.ports.admin import AuditEntry
from palaver.core.types import clean
from palaver.store.database import Database


class AuditTable:
    """Audit entries; each is inserted before the change and updated with its outcome."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, *, actor: str, action: str, application: str | None, arguments: Mapping[str, Any]) -> int:
        """Insert an entry for a change that is about to start. Returns the entry's id."""
        entry_id: int = await self._db.fetchval(
            "INSERT INTO audit (actor, action, application, arguments) VALUES ($1, $2, $3, $4) RETURNING id",
            clean(actor),
            action,
            None if application is None else clean(application),
            clean(msgspec.json.encode(arguments).decode()),
        )
        return entry_id

    async def end(self, entry_id: int, outcome: str) -> None:
        """Set the entry's outcome."""
        await self._db.execute("UPDATE audit SET outcome = $2 WHERE id = $1", entry_id, clean(outcome)[:1000])

    async def list_newest(self, limit: int, *, application: str | None = None) -> list[AuditEntry]:
        """The last ``limit`` entries (with ``application``: of that application), oldest first."""
        rows = await self._db.fetch(
            "SELECT * FROM audit WHERE $2::text IS NULL OR application = $2 ORDER BY id DESC LIMIT $1",
            limit,
            application,
        )
        return [
            AuditEntry(
                id=row["id"],
                at=row["at"],
                actor=row["actor"],
                action=row["action"],
                application=row["application"],
                arguments=msgspec.json.decode(row["arguments"]),
                outcome=row["outcome"],
            )
            for row in reversed(rows)
        ]
