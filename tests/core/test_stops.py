"""A stop answers when the end is stored; a run whose message is deleted, in whatever way, is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.core_stage import SLOW, Stage, stage

from palaver import housekeeping
from palaver.core.chat import Turn
from palaver.core.problems import Internal
from palaver.core.types import Status

LATE = """
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END'"""
LATE_ENDS = """
CREATE TRIGGER late BEFORE UPDATE ON message FOR EACH ROW WHEN (NEW.status <> 'live') EXECUTE FUNCTION late()"""


async def ends_late(on: Stage) -> None:
    for statement in (LATE, LATE_ENDS):
        await on.core.store.db.execute(statement)


async def statuses(on: Stage, sent: Turn) -> list[Status | None]:
    return [answer.ended and answer.ended.status for answer in await on.answers(sent)]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another process"])
@pytest.mark.parametrize("whole", [False, True], ids=["one run", "the conversation"])
async def test_a_stop_answers_when_the_end_is_stored(
    database_url: str, tmp_path: Path, elsewhere: bool, whole: bool
) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        await ends_late(here)
        agent = await here.agent(SLOW)
        sent = await here.say(agent)
        if whole:
            await there.say(agent, conversation=sent.conversation.id)
        await here.begun(sent)
        chat = (there if elsewhere else here).core.chat
        if whole:
            assert await chat.stop(sent.conversation) == 2
        else:
            assert await chat.stop_run(sent)
        assert await statuses(here, sent) == [Status.STOPPED] * (2 if whole else 1)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another process"])
async def test_a_stop_says_when_the_end_is_not_stored_yet(database_url: str, tmp_path: Path, elsewhere: bool) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        await ends_late(here)
        sent = await here.say(await here.agent(SLOW))
        await here.begun(sent)
        with pytest.raises(Internal, match="not stored yet"):
            await (there if elsewhere else here).core.chat.stop(sent.conversation, within=0.1)
        assert (await here.ended(sent)).status is Status.STOPPED


async def by_command(on: Stage, sent: Turn) -> None:
    await on.core.store.agents.delete(sent.agent)


async def by_statement(on: Stage, sent: Turn) -> None:
    await on.core.store.db.execute("DELETE FROM conversation WHERE id = $1", sent.conversation.id)


async def with_its_user(on: Stage, sent: Turn) -> None:
    await on.core.store.db.execute("DELETE FROM end_user WHERE id = $1", sent.conversation.user)


async def with_its_application(on: Stage, sent: Turn) -> None:
    await on.core.store.db.execute("DELETE FROM application WHERE id = $1", sent.conversation.app)


@pytest.mark.parametrize("delete", [by_command, by_statement, with_its_user, with_its_application])
async def test_a_run_whose_message_is_deleted_in_whatever_way_is_stopped(
    database_url: str, tmp_path: Path, delete: Callable[[Stage, Turn], Awaitable[None]]
) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        caring = asyncio.create_task(housekeeping.run_housekeeping(here.core, lambda _: None))  # pyright: ignore[reportPrivateUsage]
        sent = await here.say(await here.agent(SLOW))
        await here.begun(sent)
        reader = await there.core.chat.resume(sent)
        await delete(there, sent)
        assert (await here.ended(sent)).status is Status.STOPPED
        while not reader.done:
            await reader.wait()
            reader.take()
        assert len(here.core.runs) == 0
        caring.cancel()
        await asyncio.gather(caring, return_exceptions=True)


async def test_an_agent_that_is_deleted_stops_its_runs_at_once(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        sent = await here.say(await here.agent(SLOW))
        await here.begun(sent)
        await there.core.store.agents.delete(sent.agent)
        async with asyncio.timeout(1):
            assert (await here.ended(sent)).status is Status.STOPPED


async def test_runs_that_go_on_are_never_taken_for_deleted(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        caring = asyncio.create_task(housekeeping.run_housekeeping(on.core, lambda _: None))  # pyright: ignore[reportPrivateUsage]
        agent = await on.agent("- repeat: {text: x, times: 30, every: 0.1}")
        ends = await asyncio.gather(*[on.ended(await on.say(agent)) for _ in range(30)])
        assert {ended.status for ended in ends} == {Status.COMPLETE}
        caring.cancel()
        await asyncio.gather(caring, return_exceptions=True)
