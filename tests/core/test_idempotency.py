"""Answers that are given once for one key."""

from __future__ import annotations

import asyncio

import pytest
from support.kit import SeededApp, seed_app, store_on

from palaver.core.disconnect import CallerDisconnected, disconnect_scope
from palaver.core.idempotency import Idempotency
from palaver.core.ports.store import IdempotencyKey, StoredResponse
from palaver.core.problems import Busy, Conflict, NotFound
from palaver.core.singleflight import MAX_CALLS
from palaver.store.postgres import PostgresStore


def claim(key: str = "k", digest: bytes = b"1") -> IdempotencyKey:
    return IdempotencyKey(scope="POST /conversation", key=key, digest=digest)


def desk(store: PostgresStore, ttl: float = 60) -> Idempotency:
    return Idempotency(store, store.idempotency, worker=lambda: store.presence.worker, ttl_s=ttl)


class Work:
    """Work that counts how often it is done, and waits until it may end."""

    def __init__(self, *, held: bool = False) -> None:
        self.done = 0
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        if not held:
            self.may_end.set()

    async def __call__(self) -> StoredResponse:
        self.begun.set()
        await self.may_end.wait()
        self.done += 1
        return StoredResponse(
            status=200, media_type="application/json", headers=(("X", "1"),), body=b'{"n":%d}' % self.done
        )


async def refused() -> StoredResponse:
    raise NotFound(noun="agent")


async def test_an_equal_call_gets_the_same_answer_and_nothing_is_done_again(database_url: str) -> None:
    async with store_on(database_url) as store:
        c, work = await seed_app(store), Work()
        first = await desk(store).run_once(c.who, claim(), work)
        again = await desk(store).run_once(c.who, claim(), work)
        assert first == (
            StoredResponse(status=200, media_type="application/json", headers=(("X", "1"),), body=b'{"n":1}'),
            False,
        )
        assert again == (first[0], True)
        with pytest.raises(Conflict):
            await desk(store).run_once(c.who, claim(digest=b"2"), work)
        assert work.done == 1


async def test_calls_that_come_while_the_first_one_works_wait_for_it_in_every_process(database_url: str) -> None:
    async with store_on(database_url) as here, store_on(database_url) as there:
        c, work = await seed_app(here), Work(held=True)
        calls = [asyncio.create_task(desk(here).run_once(c.who, claim(), work))]
        await work.begun.wait()
        calls += [asyncio.create_task(desk(store).run_once(c.who, claim(), work)) for store in (here, there) * 10]
        await asyncio.sleep(0)
        work.may_end.set()
        answers = await asyncio.gather(*calls)
        assert work.done == 1
        assert [replayed for _, replayed in answers] == [False] + [True] * 20
        assert len({answer.body for answer, _ in answers}) == 1


async def test_an_error_leaves_the_key_free(database_url: str) -> None:
    async with store_on(database_url) as store:
        c, work = await seed_app(store), Work()
        with pytest.raises(NotFound):
            await desk(store).run_once(c.who, claim(), refused)
        assert (await desk(store).run_once(c.who, claim(digest=b"2"), work))[1] is False


async def test_a_caller_who_is_cut_off_leaves_the_key_free(database_url: str) -> None:
    async with store_on(database_url) as store:
        c, work = await seed_app(store), Work(held=True)
        call = asyncio.create_task(desk(store).run_once(c.who, claim(), work))
        await work.begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert (await desk(store).run_once(c.who, claim(), Work()))[1] is False


async def test_the_key_of_a_process_that_died_at_work_is_free(database_url: str) -> None:
    async with store_on(database_url) as alive:
        c = await seed_app(alive)
        async with store_on(database_url) as doomed:
            assert await begun(doomed, c)
            assert not await begun(alive, c)
        assert (await desk(alive).run_once(c.who, claim(), Work()))[1] is False


async def begun(store: PostgresStore, c: SeededApp) -> bool:
    return await store.idempotency.begin(c.who, c.user, claim(), 60, store.presence.worker) is True


async def test_an_answer_is_forgotten_after_its_time_and_keys_are_each_users_own(database_url: str) -> None:
    async with store_on(database_url) as store:
        c, work = await seed_app(store), Work()
        await desk(store, ttl=-1).run_once(c.who, claim(), work)
        assert (await desk(store).run_once(c.who, claim(), work))[1] is False
        assert (await desk(store).run_once(c.who.acting_for("bob"), claim(), work))[1] is False
        assert (await desk(store).run_once(c.who, claim("other"), work))[1] is False
        assert work.done == 4


@pytest.mark.parametrize("leave", [0, 400], ids=["that stay", "that are abandoned"])
async def test_equal_calls_that_wait_cost_no_statements(database_url: str, leave: int) -> None:
    async with store_on(database_url) as here, store_on(database_url) as there:
        c, work = await seed_app(here), Work(held=True)
        working, waiting = desk(there), desk(here)
        here.presence.subscribe("claim", waiting.wake)
        first = asyncio.create_task(working.run_once(c.who, claim(), work))
        await work.begun.wait()
        calls = [asyncio.create_task(waiting.run_once(c.who, claim(), work)) for _ in range(500)]
        await asyncio.sleep(0.5)
        for call in calls[:leave]:
            call.cancel()
        before = here.db.statement_count
        await asyncio.sleep(2)
        assert here.db.statement_count - before <= 6
        begun = asyncio.get_running_loop().time()
        work.may_end.set()
        answers = await asyncio.gather(*calls[leave:])
        assert asyncio.get_running_loop().time() - begun < 1
        assert {replayed for _, replayed in answers} == {True}
        assert {answer for answer, _ in answers} == {(await first)[0]}
        assert here.db.statement_count - before <= 12


async def test_no_more_equal_calls_wait_than_may(database_url: str) -> None:
    async with store_on(database_url) as store:
        c, work, answers = await seed_app(store), Work(held=True), desk(store)
        calls = [asyncio.create_task(answers.run_once(c.who, claim(), work)) for _ in range(MAX_CALLS + 50)]
        await work.begun.wait()
        done, _ = await asyncio.wait(calls, timeout=5, return_when=asyncio.FIRST_EXCEPTION)
        work.may_end.set()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert done
        assert sum(isinstance(end, Busy) for end in ends) == 50
        assert work.done == 1


async def test_the_work_of_a_caller_who_leaves_is_taken_up_by_one_who_waits(database_url: str) -> None:
    async with store_on(database_url) as store:
        c, held, work, answers = await seed_app(store), Work(held=True), Work(), desk(store)
        first = asyncio.create_task(answers.run_once(c.who, claim(), held))
        await held.begun.wait()
        others = [asyncio.create_task(answers.run_once(c.who, claim(), work)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        replayed = [replayed for _, replayed in await asyncio.gather(*others)]
        assert sorted(replayed) == [False, True, True, True, True]
        assert work.done == 1


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in this process", "in another one"])
async def test_a_caller_who_leaves_waits_no_longer_for_an_equal_call_and_the_call_goes_on(
    database_url: str, elsewhere: bool
) -> None:
    async with store_on(database_url) as here, store_on(database_url) as there:
        c, work, waiting = await seed_app(here), Work(held=True), desk(here)
        working = desk(there) if elsewhere else waiting
        left = [asyncio.get_running_loop().create_future() for _ in range(2)]

        async def called(by: Idempotency, caller: asyncio.Future[None]) -> tuple[StoredResponse, bool]:
            with disconnect_scope(caller):
                return await by.run_once(c.who, claim(), work)

        first = asyncio.create_task(called(working, left[0]))
        await work.begun.wait()
        second = asyncio.create_task(called(waiting, left[1]))
        await asyncio.sleep(0.2)
        for caller in left:
            caller.set_result(None)
        with pytest.raises(CallerDisconnected):
            await asyncio.wait_for(second, 1)
        work.may_end.set()
        assert (await first)[1] is False
        assert (await waiting.run_once(c.who, claim(), work))[1] is True
        assert work.done == 1
