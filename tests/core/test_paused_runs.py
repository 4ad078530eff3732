"""Runs that wait for something from outside: they belong to no process, survive restarts, and continue anywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.core_stage import Stage, stage
from support.kit import read, until

from palaver.core.chat import Run, Turn
from palaver.core.ports.tools import ToolOutput, ToolSpec
from palaver.core.problems import Busy, Conflict, NotFound
from palaver.core.recovery import take_over
from palaver.core.types import Status, Text, ToolCall, ToolResult

WEATHER = ToolSpec(name="weather", description="The weather.", parameters={"type": "object"})
ASKS = "- text: 'one moment. '\n- call: {name: weather, arguments: {city: Ulm}}\n- text: 'it is ${result}'"
SUNNY = ToolOutput(content="sunny", data={"degrees": 21})


async def paused(on: Stage, script: str = ASKS, *, calls: int = 1) -> tuple[Turn, Run]:
    """A turn whose run waits for so many calls of the caller's tool."""
    turn = await on.say(await on.agent(script), caller_tools=(WEATHER,))

    async def waiting() -> int:
        return len((await on.core.chat.open_run(on.who, turn.run_uid)).answer.waiting_for)

    await until(waiting, calls)
    return turn, await on.core.chat.open_run(on.who, turn.run_uid)


async def test_a_run_that_waits_for_the_caller_continues_with_its_result(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        turn, run = await paused(on)
        (call,) = run.answer.waiting_for
        assert (call.tool, call.arguments, call.since > 0) == ("weather", {"city": "Ulm"}, True)
        assert run.answer.ended is None
        assert len(on.core.runs) == 0  # it costs nothing
        assert on.core.runs.slots.free == on.core.settings.max_live_runs
        answer = await on.core.chat.provide(run, call.call_id, SUNNY)
        assert answer.waiting_for == ()
        _, (parts, ended) = await read(turn.reader)
        assert ended is not None
        assert ended.status is Status.COMPLETE
        text, called, result, rest = parts
        assert (text, rest) == (Text(text="one moment. "), Text(text="it is sunny"))
        assert isinstance(called, ToolCall)
        assert isinstance(result, ToolResult)
        assert (result.call_id, result.name, result.data) == (called.call_id, "weather", {"degrees": 21})
        (stored,) = await on.answers(turn)
        assert (stored.parts, stored.ended) == (parts, ended)


async def test_it_continues_in_another_process_after_its_own_is_gone(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as there:
        async with stage(database_url, tmp_path) as here:
            turn, run = await paused(here)
        remote = await there.core.chat.resume(run)
        (call,) = run.answer.waiting_for
        await there.core.chat.provide(run, call.call_id, SUNNY)
        _, (parts, ended) = await read(remote)
        assert (parts[-1], ended and ended.status) == (Text(text="it is sunny"), Status.COMPLETE)
        assert len(await there.answers(turn)) == 1


async def test_a_result_counts_once_and_only_for_a_call_that_waits(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        turn, run = await paused(here)
        (call,) = run.answer.waiting_for
        with pytest.raises(NotFound):
            await here.core.chat.provide(run, "other", SUNNY)
        told = await asyncio.gather(*(on.core.chat.provide(run, call.call_id, SUNNY) for on in (here, there) * 5))
        assert {answer.uid for answer in told} == {run.run_uid}
        assert (await here.ended(turn)).status is Status.COMPLETE
        (stored,) = await here.answers(turn)
        assert sum(isinstance(part, ToolResult) for part in stored.parts) == 1
        ended = await here.core.chat.open_run(here.who, run.run_uid)
        assert (await here.core.chat.provide(ended, call.call_id, SUNNY)).parts == stored.parts
        with pytest.raises(Conflict):
            await here.core.chat.provide(ended, call.call_id, ToolOutput(content="rainy"))


async def test_a_run_waits_for_all_of_its_calls_and_messages_wait_behind_it(database_url: str, tmp_path: Path) -> None:
    script = (
        "- call: {name: weather, arguments: {city: Ulm}}\n- call: {name: weather, arguments: {city: Bonn}}\n"
        "- text: done"
    )
    async with stage(database_url, tmp_path) as on:
        turn, run = await paused(on, script)
        behind = await on.say(await on.agent("- text: next"), conversation=turn.conversation.id)
        (first,) = run.answer.waiting_for
        await on.core.chat.provide(run, first.call_id, ToolOutput(content="1"))

        async def second() -> bool:
            calls = (await on.core.chat.open_run(on.who, turn.run_uid)).answer.waiting_for
            return bool(calls) and calls[0].call_id != first.call_id

        await until(second, True)
        assert not behind.reader.take()
        run = await on.core.chat.open_run(on.who, turn.run_uid)
        await on.core.chat.provide(run, run.answer.waiting_for[0].call_id, ToolOutput(content="2"))
        assert (await on.ended(turn)).status is Status.COMPLETE
        assert (await on.ended(behind)).status is Status.COMPLETE


async def test_a_paused_run_can_be_stopped_and_deleted(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        turn, run = await paused(here)
        assert await there.core.chat.stop_run(run)
        assert (await here.ended(turn)).status is Status.STOPPED
        (stored,) = await here.answers(turn)
        assert stored.text == "one moment. "
        with pytest.raises(NotFound):
            await here.core.chat.provide(run, run.answer.waiting_for[0].call_id, SUNNY)
        turn, run = await paused(here)
        await there.core.chat.delete_conversation(there.who, turn.conversation.id)
        assert (await here.ended(turn)).status is Status.STOPPED


async def test_a_paused_run_is_nobodys_loss(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as there:
        async with stage(database_url, tmp_path) as here:
            _, run = await paused(here)
            worker = here.core.runs.worker()
        assert await there.core.store.presence.find_lost_workers() == []
        assert await take_over(there.core.runs, there.core.store, [worker]) == (0, 0)
        assert (await there.core.chat.open_run(there.who, run.run_uid)).answer.waiting_for


async def test_a_full_server_refuses_the_result_and_the_run_goes_on_waiting(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path, max_live_runs=1, max_credential_runs=1, max_application_runs=1) as on:
        turn, run = await paused(on)
        (call,) = run.answer.waiting_for
        other = await on.say(await on.agent("- wait: 60", name="other"))
        with pytest.raises(Busy):
            await on.core.chat.provide(run, call.call_id, SUNNY)
        await on.core.chat.stop_run(other)
        await on.core.chat.provide(run, call.call_id, SUNNY)
        assert (await on.ended(turn)).status is Status.COMPLETE


async def test_tokens_of_all_steps_are_counted(database_url: str, tmp_path: Path) -> None:
    script = (
        "- usage: {prompt: 3, completion: 5}\n- call: {name: weather}\n- text: done\n"
        "- usage: {prompt: 10, completion: 1}"
    )
    async with stage(database_url, tmp_path) as there:
        async with stage(database_url, tmp_path) as here:
            turn, run = await paused(here, script)
        await there.core.chat.provide(run, run.answer.waiting_for[0].call_id, SUNNY)
        assert (await there.core.chat.wait_for_end(run, 5)).ended is not None
        (stored,) = await there.answers(turn)
        assert stored.ended is not None
        assert (stored.ended.usage.prompt, stored.ended.usage.completion) == (13, 6)
