"""The table of applications, the tenants that own everything else."""

from __future__ import annotations

from palaver.core.types import Application
from palaver.store.database import Database, Row
from palaver.store.presence import notification


class ApplicationTable:
    """Applications, identified by name."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get_or_create(self, name: str) -> Application:
        """The application with that name, created if missing."""
        row = await self._db.fetchrow("SELECT * FROM application WHERE name = $1", name)
        if row is None:
            row = await self._db.fetchrow(
                "INSERT INTO application (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET name = excluded.name"
                " RETURNING *",
                name,
            )
        assert row is not None
        return _application(row)

    async def get(self, name: str) -> Application | None:
        row = await self._db.fetchrow("SELECT * FROM application WHERE name = $1", name)
        return None if row is None else _application(row)

    async def list_all(self) -> list[Application]:
        """Every application, sorted by name."""
        return [_application(row) for row in await self._db.fetch("SELECT * FROM application ORDER BY name")]

    async def delete(self, name: str) -> bool:
        """Delete the application with everything it owns, and its cached credentials and agents in every process.
        Returns whether it existed."""
        deletion = "DELETE FROM application WHERE name = $1 RETURNING id"
        return bool(await self._db.transaction([notification("keys", "agents"), (deletion, (name,))]))


def _application(row: Row) -> Application:
    return Application(id=row["id"], name=row["name"], created=row["created"])
