"""The table of end users. Names and ids never change, so lookups are cached until an end user is deleted."""

from __future__ import annotations

from uuid import UUID

from palaver.core.problems import Busy
from palaver.core.types import MAX_ID, Ref, User, as_uid, clean, new_uid
from palaver.store.database import Database, Row
from palaver.store.presence import Presence
from palaver.store.quotas import Quotas

MAX_CACHED = 100_000
"""Maximum entries of the cache; a full cache is emptied."""


class UserTable:
    """End users, their profiles and their subscriptions to agents."""

    def __init__(self, db: Database, presence: Presence, quotas: Quotas) -> None:
        self._db = db
        self._quotas = quotas
        self._cache: dict[tuple[int, str], User] = {}
        presence.subscribe("users", lambda _: self._cache.clear())

    async def get_or_create(self, app: int, name: str) -> User:
        name = clean(name)
        return await self.get_by_name(app, name) or self._cache_user(app, name, await self._insert(app, name))

    async def get_by_name(self, app: int, name: str) -> User | None:
        name = clean(name)
        user = self._cache.get((app, name))
        if user is None and (row := await self._find(app, name)) is not None:
            user = self._cache_user(app, name, row)
        return user

    def _cache_user(self, app: int, name: str, row: Row) -> User:
        user = _user(row)
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[app, name] = user
        return user

    async def find(self, app: int, ref: Ref) -> User | None:
        if isinstance(ref, str):
            row = await self._find(app, clean(ref))
        elif isinstance(ref, UUID):
            row = await self._db.fetchrow("SELECT * FROM end_user WHERE app = $1 AND uid = $2", app, ref)
        elif 0 < ref <= MAX_ID:
            row = await self._db.fetchrow("SELECT * FROM end_user WHERE app = $1 AND id = $2", app, ref)
        else:
            row = None
        return None if row is None else _user(row)

    async def register(self, app: int, name: str | None, nickname: str | None, avatar: str | None) -> tuple[User, bool]:
        uid = new_uid()
        try:
            await self._quotas.require_room("users", app)
        except Busy:
            if name is None or await self.get_by_name(app, name) is None:
                raise
        row = await self._db.fetchrow(
            "INSERT INTO end_user AS u (app, uid, name, nickname, avatar) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (app, name) DO UPDATE SET nickname = coalesce(excluded.nickname, u.nickname),"
            " avatar = coalesce(excluded.avatar, u.avatar) RETURNING *",
            app,
            uid,
            uid.hex if name is None else name,
            nickname,
            avatar,
        )
        assert row is not None
        if row["uid"] == uid:
            self._quotas.record_rows("users", app)
        return _user(row), row["uid"] == uid

    async def set_subscribed(self, app: int, user: int, agent: int, *, subscribed: bool) -> None:
        if subscribed:
            sql = "INSERT INTO subscription (app, end_user, agent) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
        else:
            sql = "DELETE FROM subscription WHERE app = $1 AND end_user = $2 AND agent = $3"
        await self._db.execute(sql, app, user, agent)

    async def list_subscriptions(self, app: int, user: int) -> set[int]:
        rows = await self._db.fetch("SELECT agent FROM subscription WHERE app = $1 AND end_user = $2", app, user)
        return {row["agent"] for row in rows}

    async def _find(self, app: int, name: str) -> Row | None:
        return await self._db.fetchrow(
            "SELECT * FROM end_user WHERE app = $1 AND (name = $2 OR uid = $3) ORDER BY name <> $2 LIMIT 1",
            app,
            name,
            as_uid(name),
        )

    async def _insert(self, app: int, name: str) -> Row:
        await self._quotas.require_room("users", app)
        row = await self._db.fetchrow(
            "INSERT INTO end_user (app, uid, name) VALUES ($1, $2, $3)"
            " ON CONFLICT (app, name) DO UPDATE SET name = excluded.name RETURNING *",
            app,
            new_uid(),
            name,
        )
        assert row is not None
        self._quotas.record_rows("users", app)
        return row


def _user(row: Row) -> User:
    return User(id=row["id"], uid=row["uid"], name=row["name"], nickname=row["nickname"], avatar=row["avatar"])
