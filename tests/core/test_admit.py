"""Limits, counted in PostgreSQL: exact, also across processes."""

from __future__ import annotations

import asyncio

import pytest
from support.kit import seed_app, store_on

from palaver.core.admit import Admission
from palaver.core.problems import Busy, Internal
from palaver.core.types import ApiKey
from palaver.store.postgres import PostgresStore


def desk(store: PostgresStore) -> Admission:
    return Admission(store.keys, store.rate_limits, store.tokens)


async def tried(admission: Admission, key: ApiKey, calls: int) -> list[str]:
    """What becomes of so many calls at once: ``admitted``, or the reason they are refused with."""

    async def one() -> str:
        try:
            await admission.charge(key)
        except Busy as problem:
            return problem.reason
        return "admitted"

    return sorted(await asyncio.gather(*(one() for _ in range(calls))))


async def test_a_minute_admits_as_many_calls_as_it_says_however_many_come_at_once(database_url: str) -> None:
    async with store_on(database_url) as here, store_on(database_url) as there:
        key = (await seed_app(here, rpm=7)).who.key
        first, second = await asyncio.gather(tried(desk(here), key, 20), tried(desk(there), key, 20))
        assert sorted(first + second) == ["admitted"] * 7 + ["rate"] * 33


async def test_a_refused_call_says_when_to_come_again_and_a_new_minute_begins(database_url: str) -> None:
    async with store_on(database_url) as store:
        key = (await seed_app(store, rpm=1)).who.key
        await desk(store).charge(key)
        with pytest.raises(Busy) as caught:
            await desk(store).charge(key)
        assert caught.value.retry_after is not None
        assert 55 < caught.value.retry_after <= 60
        await store.db.execute("UPDATE usage SET minute_start = minute_start - interval '60 seconds'")
        await desk(store).charge(key)


async def test_a_life_admits_so_many_calls_and_refused_ones_do_not_count(database_url: str) -> None:
    async with store_on(database_url) as store:
        key = (await seed_app(store, total=3, rpm=2)).who.key
        assert await tried(desk(store), key, 5) == ["admitted", "admitted", "rate", "rate", "rate"]
        await store.db.execute("UPDATE usage SET minute_start = minute_start - interval '60 seconds'")
        assert await tried(desk(store), key, 2) == ["admitted", "usage"]
        assert await store.db.fetchval("SELECT total FROM usage") == 3


async def test_calls_of_a_busy_key_are_counted_together(database_url: str) -> None:
    async with store_on(database_url) as store:
        key = (await seed_app(store, rpm=1000)).who.key
        admission = desk(store)
        before = store.db.statement_count
        assert await tried(admission, key, 500) == ["admitted"] * 500
        assert store.db.statement_count - before <= 4


async def test_a_key_without_limits_is_not_counted(database_url: str) -> None:
    async with store_on(database_url) as store:
        key = (await seed_app(store)).who.key
        before = store.db.statement_count
        await desk(store).charge(key)
        assert store.db.statement_count == before


async def test_a_caller_who_gives_up_takes_nobody_with_it(database_url: str) -> None:
    async with store_on(database_url) as store:
        key = (await seed_app(store, rpm=10)).who.key
        admission = desk(store)
        calls = [asyncio.create_task(admission.charge(key)) for _ in range(4)]
        await asyncio.sleep(0)
        calls[0].cancel()
        calls[2].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result) for result in results[1::2]] == [type(None), type(None)]
        await admission.charge(key)


async def test_while_the_database_is_away_nobody_is_admitted_on_trust(database_url: str) -> None:
    async with store_on(database_url) as store:
        key = (await seed_app(store, rpm=10)).who.key
        await store.db.close()
        with pytest.raises(Internal):
            await desk(store).charge(key)
