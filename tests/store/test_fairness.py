"""What one caller keeps in the database for long, others do not wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.kit import seed_app, store_on, until

from palaver.core.fair_semaphore import Owner, set_owner
from palaver.core.problems import Internal, Invalid
from palaver.store import database as module
from palaver.store.database import Database
from palaver.store.driver import connection_to
from palaver.store.files import PIECE_BYTES, FileQuota

SLOW = "SELECT pg_advisory_xact_lock(7)::text"
"""For as long as somebody else has that lock."""


@asynccontextmanager
async def held(url: str, what: str) -> AsyncGenerator[None]:
    """While somebody else has what the statement locks."""
    async with connection_to(url, timeout=10) as connection, connection.transaction():
        await connection.execute(what)
        yield


async def ask(db: Database, owner: Owner | None, sql: str) -> Any:
    set_owner(owner)
    return await db.fetchval(sql)


async def test_slow_statements_of_one_caller_leave_connections_to_everybody_else(database_url: str) -> None:
    db = Database(database_url, connections=4)
    await db.open()
    async with held(database_url, "SELECT pg_advisory_xact_lock(7)"):
        slow = [asyncio.create_task(ask(db, (1, "greedy"), SLOW)) for _ in range(20)]
        slow += [asyncio.create_task(ask(db, (1, f"also {number}"), SLOW)) for number in range(20)]

        async def used() -> tuple[int, int]:
            return db.usage.used, db.usage.waiting

        await until(used, (3, 37))
        async with asyncio.timeout(2):
            assert await ask(db, (2, "ann"), "SELECT 1") == 1
            assert await ask(db, None, "SELECT 2") == 2
    assert len(await asyncio.gather(*slow)) == 40
    assert await used() == (0, 0)
    await db.close()


async def test_an_end_users_slow_statements_leave_connections_to_others_of_its_application(database_url: str) -> None:
    db = Database(database_url, connections=4)
    await db.open()
    async with held(database_url, "SELECT pg_advisory_xact_lock(7)"):
        slow = [asyncio.create_task(ask(db, (1, "greedy"), SLOW)) for _ in range(20)]
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            assert await ask(db, (1, "ann"), "SELECT 1") == 1
    await asyncio.gather(*slow)
    await db.close()


async def test_who_waits_too_long_for_his_own_statements_hears_of_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = Database(database_url, connections=1)
    await db.open()
    async with held(database_url, "SELECT pg_advisory_xact_lock(7)"):
        slow = asyncio.create_task(ask(db, (1, "ann"), SLOW))
        await asyncio.sleep(0)
        monkeypatch.setattr(module, "STATEMENT_TIMEOUT_S", 0.05)
        with pytest.raises(Internal) as raised:
            await ask(db, (1, "ann"), "SELECT 1")
        assert raised.value.detail == "its caller's other statements took too long"
    await slow
    await db.close()


async def test_long_files_that_are_stored_leave_connections_to_everybody_else(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        users = [await store.users.get_or_create(c.app.id, f"user {number}") for number in range(6)]
        content = bytes(PIECE_BYTES + 1)
        async with held(database_url, "LOCK TABLE file_piece"):
            adding = [
                asyncio.create_task(
                    store.files.add(
                        c.app.id, user.id, key=user.name, name="f", media_type="t", content=content, details={}
                    )
                )
                for user in users
            ]

            async def waiting() -> int:
                sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'file_piece'::regclass"
                return await store.db.fetchval(sql)

            await until(waiting, 1)
            async with asyncio.timeout(2):
                await asyncio.gather(*(store.users.get_or_create(c.app.id, f"other {number}") for number in range(20)))
            assert await waiting() == 1
        assert {(await one).size for one in adding} == {PIECE_BYTES + 1}


async def test_files_that_come_at_once_find_each_other_in_the_quota(database_url: str) -> None:
    async with store_on(database_url) as store:
        c = await seed_app(store)
        store.files.quota = FileQuota(user=3000, application=10_000)
        adding = (
            store.files.add(
                c.app.id, c.user.id, key=f"{number}", name="f", media_type="t", content=bytes(1000), details={}
            )
            for number in range(12)
        )
        ends = await asyncio.gather(*adding, return_exceptions=True)
        assert sum(isinstance(one, Invalid) for one in ends) == 9
        kept = await store.db.fetchval("SELECT sum(size)::bigint FROM file WHERE app = $1", c.app.id)
        assert kept == 3000
