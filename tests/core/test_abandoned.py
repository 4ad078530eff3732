"""Turns that nobody reads, where a new message stops them instead of waiting."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.core_stage import SLOW, stage
from support.kit import read

from palaver.core.problems import Busy
from palaver.core.types import Principal, Status, Text

QUICK = "- text: on we go"


async def test_a_message_stops_the_turn_that_nobody_reads_and_keeps_its_text(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        first = await on.say(await on.agent(SLOW))
        await on.begun(first)
        first.reader.close()
        second = await on.say(await on.agent(QUICK), conversation=first.conversation.id, stop_abandoned=True)
        assert (await read(second.reader))[1][0] == (Text(text="on we go"),)
        stopped, complete = await on.answers(first)
        assert (stopped.text, stopped.ended and stopped.ended.status) == ("begun", Status.STOPPED)
        assert complete.text == "on we go"


async def test_a_turn_that_somebody_reads_goes_on(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        first = await on.say(await on.agent("- text: begun\n- wait: 0.5\n- text: ' and done'"))
        second = await on.say(await on.agent(QUICK), conversation=first.conversation.id, stop_abandoned=True)
        assert (await on.ended(first)).status is Status.COMPLETE
        assert (await on.ended(second)).status is Status.COMPLETE
        assert [answer.text for answer in await on.answers(first)] == ["begun and done", "on we go"]


async def test_a_reader_whose_leaving_is_noticed_late_has_abandoned_the_turn_all_the_same(
    database_url: str, tmp_path: Path
) -> None:
    async with stage(database_url, tmp_path) as on:
        first = await on.say(await on.agent(SLOW))
        await on.begun(first)
        second = await on.say(await on.agent(QUICK), conversation=first.conversation.id, stop_abandoned=True)
        first.reader.close()
        assert (await on.ended(second)).status is Status.COMPLETE


@pytest.mark.parametrize("room", [0, 1])
async def test_abandoned_turns_leave_room_in_a_conversation_that_is_full(
    database_url: str, tmp_path: Path, room: int
) -> None:
    async with stage(database_url, tmp_path, max_waiting_turns=room) as on:
        agent = await on.agent(SLOW)
        first = await on.say(agent)
        sent = [first] + [await on.say(agent, conversation=first.conversation.id) for _ in range(room)]
        quick = await on.agent(QUICK)
        with pytest.raises(Busy):  # all are read
            await on.say(quick, conversation=first.conversation.id, stop_abandoned=True)
        for one in sent:
            one.reader.close()
        last = await on.say(quick, conversation=first.conversation.id, stop_abandoned=True)
        assert (await on.ended(last)).status is Status.COMPLETE
        statuses = [answer.ended and answer.ended.status for answer in await on.answers(first)]
        assert statuses == [Status.STOPPED] * (room + 1) + [Status.COMPLETE]


async def test_a_turn_of_another_process_is_stopped_there_unless_somebody_reads_it_anywhere(
    database_url: str, tmp_path: Path
) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        first = await here.say(await here.agent("- text: begun\n- wait: 5\n- text: never"))
        await here.begun(first)
        watching = await there.core.chat.resume(first)
        first.reader.close()
        quick = await there.agent(QUICK)
        second = await there.say(quick, conversation=first.conversation.id, stop_abandoned=True)
        assert not second.reader.take()
        assert (await here.answers(first))[0].ended is None
        watching.close()
        third = await there.say(quick, conversation=first.conversation.id, stop_abandoned=True)
        assert (await there.ended(second)).status is Status.COMPLETE
        assert (await there.ended(third)).status is Status.COMPLETE
        stopped = (await here.answers(first))[0]
        assert (stopped.text, stopped.ended and stopped.ended.status) == ("begun", Status.STOPPED)


@pytest.mark.parametrize(("setting", "default", "stops"), [("stop", False, True), ("wait", True, False)])
async def test_the_credentials_setting_overrules_where_the_message_comes_from(
    database_url: str, tmp_path: Path, setting: str, default: bool, stops: bool
) -> None:
    async with stage(database_url, tmp_path) as on:
        app = await on.core.store.applications.get_or_create("acme")
        key = await on.core.store.keys.create(app, "wps", "w", "s", {"abandoned": setting})
        on.who = Principal(key=key, user="ann")
        first = await on.say(await on.agent("- text: begun\n- wait: 0.5\n- text: ' and done'"))
        await on.begun(first)
        first.reader.close()
        second = await on.say(await on.agent(QUICK), conversation=first.conversation.id, stop_abandoned=default)
        await on.ended(second)
        assert (await on.answers(first))[0].text == ("begun" if stops else "begun and done")
