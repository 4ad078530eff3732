"""End users. Their numbers never change, so whom a process has seen it does not ask for again."""

from __future__ import annotations

from palaver.core.types import User, as_uid, clean, new_uid
from palaver.store.database import Database, Row

CACHED = 100_000


class Users:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._seen: dict[tuple[int, str], User] = {}

    async def named(self, app: int, name: str) -> User:
        """The end user of that name, or the one to whom it was issued as uid; made when there is none."""
        name = clean(name)
        user = self._seen.get((app, name))
        if user is None:
            user = _user(await self._find(app, name) or await self._add(app, name))
            if len(self._seen) >= CACHED:
                self._seen.clear()
            self._seen[app, name] = user
        return user

    async def _find(self, app: int, name: str) -> Row | None:
        return await self._db.fetchrow(
            "SELECT id, uid, name FROM end_user WHERE app = $1 AND (name = $2 OR uid = $3) ORDER BY name <> $2 LIMIT 1",
            app,
            name,
            as_uid(name),
        )

    async def _add(self, app: int, name: str) -> Row:
        row = await self._db.fetchrow(
            "INSERT INTO end_user (app, uid, name) VALUES ($1, $2, $3)"
            " ON CONFLICT (app, name) DO UPDATE SET name = excluded.name RETURNING id, uid, name",
            app,
            new_uid(),
            name,
        )
        assert row is not None
        return row


def _user(row: Row) -> User:
    return User(id=row["id"], uid=row["uid"], name=row["name"])
