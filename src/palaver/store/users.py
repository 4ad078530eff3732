"""The table of end users. Names and ids never change, so lookups are cached until an end user is deleted."""

from __future__ import annotations

from uuid import UUID

from palaver.core.problems import Busy
from palaver.core.types import MAX_ID, Ref, User, clean, new_uid, parse_uid
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

    async def get_or_create(self, app_id: int, name: str) -> User:
        name = clean(name)
        return await self.get_by_name(app_id, name) or self._cache_user(app_id, name, await self._insert(app_id, name))

    async def get_by_name(self, app_id: int, name: str) -> User | None:
        name = clean(name)
        user = self._cache.get((app_id, name))
        if user is None and (row := await self._find(app_id, name)) is not None:
            user = self._cache_user(app_id, name, row)
        return user

    def _cache_user(self, app_id: int, name: str, row: Row) -> User:
        user = _user(row)
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[app_id, name] = user
        return user

    async def find(self, app_id: int, ref: Ref) -> User | None:
        if isinstance(ref, str):
            row = await self._find(app_id, clean(ref))
        elif isinstance(ref, UUID):
            row = await self._db.fetchrow("SELECT * FROM end_user WHERE app = $1 AND uid = $2", app_id, ref)
        elif 0 < ref <= MAX_ID:
            row = await self._db.fetchrow("SELECT * FROM end_user WHERE app = $1 AND id = $2", app_id, ref)
        else:
            row = None
        return None if row is None else _user(row)

    async def register(
        self, app_id: int, name: str | None, nickname: str | None, avatar: str | None
    ) -> tuple[User, bool]:
        uid = new_uid()
        try:
            await self._quotas.require_room("users", app_id)
        except Busy:
            if name is None or await self.get_by_name(app_id, name) is None:
                raise
        row = await self._db.fetchrow(
            "INSERT INTO end_user AS u (app, uid, name, nickname, avatar) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (app, name) DO UPDATE SET nickname = coalesce(excluded.nickname, u.nickname),"
            " avatar = coalesce(excluded.avatar, u.avatar) RETURNING *",
            app_id,
            uid,
            uid.hex if name is None else name,
            nickname,
            avatar,
        )
        assert row is not None
        if row["uid"] == uid:
            self._quotas.record_rows("users", app_id)
        return _user(row), row["uid"] == uid

    async def set_subscribed(self, app_id: int, user_id: int, agent_id: int, *, subscribed: bool) -> None:
        if subscribed:
            sql = "INSERT INTO subscription (app, end_user, agent) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
        else:
            sql = "DELETE FROM subscription WHERE app = $1 AND end_user = $2 AND agent = $3"
        await self._db.execute(sql, app_id, user_id, agent_id)

    async def list_subscriptions(self, app_id: int, user_id: int) -> set[int]:
        rows = await self._db.fetch("SELECT agent FROM subscription WHERE app = $1 AND end_user = $2", app_id, user_id)
        return {row["agent"] for row in rows}

    async def _find(self, app_id: int, name: str) -> Row | None:
        return await self._db.fetchrow(
            "SELECT * FROM end_user WHERE app = $1 AND (name = $2 OR uid = $3) ORDER BY name <> $2 LIMIT 1",
            app_id,
            name,
            parse_uid(name),
        )

    async def _insert(self, app_id: int, name: str) -> Row:
        await self._quotas.require_room("users", app_id)
        row = await self._db.fetchrow(
            "INSERT INTO end_user (app, uid, name) VALUES ($1, $2, $3)"
            " ON CONFLICT (app, name) DO UPDATE SET name = excluded.name RETURNING *",
            app_id,
            new_uid(),
            name,
        )
        assert row is not None
        self._quotas.record_rows("users", app_id)
        return row


def _user(row: Row) -> User:
    return User(id=row["id"], uid=row["uid"], name=row["name"], nickname=row["nickname"], avatar=row["avatar"])
