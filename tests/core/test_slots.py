"""Nobody takes every run: shares of an application and of a credential beside the number of all."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.core_stage import SLOW, Stage, stage

from palaver.core.problems import Busy, NotFound
from palaver.core.slots import RunSlots
from palaver.core.types import Principal, Status


async def key_of(on: Stage, name: str, app: str = "acme", **settings: object) -> Principal:
    application = await on.core.store.applications.get_or_create(app)
    key = await on.core.store.keys.create(application, "snail", name, f"secret of {name}", settings)
    return Principal(key=key, user="ann")


async def admitted(on: Stage, who: Principal, most: int = 30) -> int:
    """How many hanging runs the caller gets, of ``most``."""
    on.who = who
    app = next(one for one in await on.core.store.applications.list_all() if one.id == who.app)
    agent = await on.agent(SLOW, app=app.name)
    for number in range(most):
        try:
            await on.say(agent)
        except Busy:
            return number
    return most


@pytest.mark.parametrize(
    ("settings", "first", "second", "stranger"),
    [
        ({"max_live_runs": 16}, 12, 2, 2),
        ({"max_live_runs": 16, "max_credential_runs": 3}, 3, 3, 3),
        ({"max_live_runs": 16, "max_application_runs": 5}, 5, 0, 5),
    ],
)
async def test_a_caller_leaves_room_for_others(
    database_url: str, tmp_path: Path, settings: dict[str, int], first: int, second: int, stranger: int
) -> None:
    async with stage(database_url, tmp_path, **settings) as on:
        assert await admitted(on, await key_of(on, "first")) == first
        assert await admitted(on, await key_of(on, "second")) == second
        assert await admitted(on, await key_of(on, "stranger", "other")) == stranger


async def test_a_credential_may_have_a_number_of_its_own(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path, max_live_runs=16) as on:
        assert await admitted(on, await key_of(on, "small", max_runs=2)) == 2
        assert await admitted(on, await key_of(on, "large", max_runs=100)) == 12


async def test_turns_that_wait_count_and_ends_make_room(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path, max_credential_runs=3) as on:
        agent = await on.agent(SLOW)
        sent = [await on.say(agent)]
        sent += [await on.say(agent, conversation=sent[0].conversation.id) for _ in range(2)]
        with pytest.raises(Busy) as caught:
            await on.say(agent)
        assert caught.value == Busy(reason="overload", retry_after=1)
        assert await on.core.chat.stop(sent[0].conversation) == 3
        for one in sent:
            assert (await on.ended(one)).status is Status.STOPPED
        assert await admitted(on, on.who) == 3


async def test_what_is_refused_or_fails_takes_no_slot(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path, max_live_runs=4) as on:
        agent = await on.agent(SLOW)
        for _ in range(10):
            with pytest.raises(NotFound):
                await on.say(agent, conversation="nope")
        assert await admitted(on, on.who) == 3


def test_a_slot_that_was_given_back_can_be_taken() -> None:
    slots = RunSlots(4)
    assert [slots.acquire(1, 1) for _ in range(4)] == [True, True, True, False]
    slots.release(1, 1)
    assert slots.acquire(1, 1)
    assert slots.acquire(2, 7)
    assert not slots.acquire(2, 7)
