"""Turns go round: nobody's work holds up somebody else's, however much of it waits."""

from __future__ import annotations

import asyncio

from palaver.core.fair_semaphore import FairSemaphore, Owner, QueueTimeout

ANN, BOB, EVE = (1, 1), (1, 2), (2, 3)


async def test_turns_go_round_applications_and_their_end_users() -> None:
    turns = FairSemaphore(capacity=1, per_user=1)
    order: list[str] = []
    end = asyncio.Event()

    async def take(owner: Owner, name: str) -> None:
        async with turns.slot(owner, 5):
            order.append(name)
            await end.wait()

    wanted = [(ANN, "ann 1"), (ANN, "ann 2"), (ANN, "ann 3"), (BOB, "bob 1"), (BOB, "bob 2"), (EVE, "eve 1")]
    tasks = [asyncio.create_task(take(owner, name)) for owner, name in wanted]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["ann 1"]
    end.set()
    await asyncio.gather(*tasks)
    assert order == ["ann 1", "ann 2", "eve 1", "bob 1", "ann 3", "bob 2"]


async def test_an_end_user_has_one_turn_at_a_time_and_an_application_leaves_one() -> None:
    turns = FairSemaphore(capacity=3, per_user=1)
    held: list[Owner] = []
    end = asyncio.Event()

    async def take(owner: Owner) -> None:
        async with turns.slot(owner, 5):
            held.append(owner)
            await end.wait()

    owners = [ANN, ANN, BOB, (1, 9), EVE]
    tasks = [asyncio.create_task(take(owner)) for owner in owners]
    for _ in range(5):
        await asyncio.sleep(0)
    assert held == [ANN, BOB, EVE]
    end.set()
    await asyncio.gather(*tasks)
    assert sorted(held) == sorted(owners)


async def test_too_many_and_too_patient_ones_get_none() -> None:
    turns = FairSemaphore(capacity=1, per_user=1, max_waiting=2)

    async def take(owner: Owner = ANN, within: float = 0.05) -> None:
        async with turns.slot(owner, within):
            pass

    async with turns.slot(ANN, 0.05):
        tasks = [asyncio.create_task(take()) for _ in range(3)]
        await asyncio.sleep(0)
        others = [asyncio.create_task(take(EVE, 5)) for _ in range(2)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, QueueTimeout) and one.full for one in results] == [False, False, True]
    await asyncio.gather(*others)
    assert turns.waiting == 0
    await take()


async def test_a_turn_that_comes_to_somebody_who_gives_up_goes_on_to_the_next() -> None:
    turns = FairSemaphore(capacity=1, per_user=1)
    first, second = asyncio.Event(), asyncio.Event()

    async def take(held: asyncio.Event) -> None:
        async with turns.slot(ANN, 5):
            held.set()

    async with turns.slot(ANN, 5):
        waiting = [asyncio.create_task(take(first)), asyncio.create_task(take(second))]
        await asyncio.sleep(0)
    waiting[0].cancel()  # it has the turn by now, and does not know
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (first.is_set(), second.is_set()) == (False, True)
    await take(first)
    assert first.is_set()


async def test_a_place_that_is_left_as_somebody_gives_up_waiting_goes_to_the_next() -> None:
    turns = FairSemaphore(capacity=1, per_user=1)
    had: list[str] = []

    async def take(name: str) -> None:
        async with turns.slot(ANN, 5):
            had.append(name)

    async with turns.slot(ANN, 5):
        waiting = [asyncio.create_task(take(name)) for name in ("first", "second", "third")]
        await asyncio.sleep(0)
        waiting[0].cancel()  # it does not know yet when the place is left
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (had, turns.waiting) == (["second", "third"], 0)
