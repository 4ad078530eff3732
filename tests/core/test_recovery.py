"""Runs of dead processes: those between two model calls continue, the others end as interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.core_stage import Stage, stage
from support.kit import until

from palaver.core.events import Draft, PartAdded, PartStarted, TextDelta
from palaver.core.ports.store import Growth, NewTurn, RunInput, StoredTurn
from palaver.core.ports.tools import ToolSpec
from palaver.core.problems import Internal
from palaver.core.progress import progress_of
from palaver.core.recovery import take_over
from palaver.core.types import AnyPart, Message, Status, Text, Thinking, ToolCall, ToolResult, Usage, new_uid

DEAD = 999_999
"""The number of a process that does not exist."""
SCRIPT = "- text: first\n- call: {name: now}\n- text: ' then ${result}'"
CALL = ToolCall(call_id="c1", name="now", arguments={})
RESULT = ToolResult(call_id="c1", name="now", content="noon")
CALLERS = ToolSpec(name="weather", description="", parameters={"type": "object"})


async def opened(on: Stage, script: str = SCRIPT, **changes: Any) -> StoredTurn:
    """A turn that the dead process accepted."""
    user = await on.core.store.users.get_or_create(on.who.app, "ann")
    turn = NewTurn(
        principal=on.who,
        user=user,
        agent=await on.agent(script, tools=("now",)),
        run=new_uid(),
        question=new_uid(),
        parts=(Text(text="hi"),),
        conversation=None,
        worker=DEAD,
        input=RunInput(credential=on.who.key.number, **changes),
    )
    stored = await on.core.store.turns.open(turn)
    assert isinstance(stored, StoredTurn)
    return stored


async def wrote(on: Stage, turn: StoredTurn, parts: Sequence[AnyPart], step: int = 1) -> None:
    """What the dead process stored of the answer, and the number of its last model call."""
    answer, draft = turn.answer, Draft()
    for part in parts:
        if isinstance(part, Text | Thinking):
            draft.apply(PartStarted(part=msgspec.structs.replace(part, text="")))
            draft.apply(TextDelta(text=part.text))
        else:
            draft.apply(PartAdded(part=part))
    piece = draft.growth(draft.cursor(0), 1000)
    growth = Growth(app=answer.app, conversation=answer.conversation, run=answer.id, piece=piece)
    await on.core.store.runs.append([growth])
    usage = Usage(prompt=7, completion=2)
    await on.core.store.runs.begin_step(answer.app, answer.conversation, answer.id, worker=DEAD, step=step, usage=usage)


async def ended(on: Stage, turn: StoredTurn) -> Message:
    """The answer, once the run has ended."""
    store = on.core.store

    async def has_ended() -> bool:
        answer = await store.runs.get_answer(turn.answer.app, turn.answer.uid)
        return answer is not None and answer.ended is not None

    await until(has_ended, True)
    answer = await store.runs.get_answer(turn.answer.app, turn.answer.uid)
    assert answer is not None
    return answer


async def test_a_run_that_died_between_two_steps_goes_on(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        turn = await opened(on)
        await wrote(on, turn, [Text(text="first"), CALL, RESULT])
        assert await take_over(on.core.runs, on.core.store, [DEAD]) == (1, 0)
        answer = await ended(on, turn)
        assert answer.parts == (Text(text="first"), CALL, RESULT, Text(text=" then noon"))
        assert answer.ended is not None
        assert (answer.ended.status, answer.ended.usage.prompt) == (Status.COMPLETE, 7)


@pytest.mark.parametrize(
    ("parts", "step"),
    [
        pytest.param([], 1, id="in a silent step"),
        pytest.param([Text(text="first")], 1, id="in the middle of its text"),
        pytest.param([Text(text="first"), CALL, RESULT], 2, id="in a silent second step"),
        pytest.param([CALL, RESULT, Thinking(text="hm")], 2, id="in the middle of its second step"),
    ],
)
async def test_a_run_that_died_within_a_step_is_interrupted_with_its_text(
    database_url: str, tmp_path: Path, parts: list[AnyPart], step: int
) -> None:
    async with stage(database_url, tmp_path) as on:
        turn = await opened(on)
        await wrote(on, turn, parts, step)
        assert await take_over(on.core.runs, on.core.store, [DEAD]) == (0, 1)
        answer = await ended(on, turn)
        assert answer.parts == tuple(parts)
        assert answer.ended is not None
        assert answer.ended.status is Status.INTERRUPTED


async def test_a_full_process_ends_what_cannot_continue(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path, max_live_runs=1, max_credential_runs=1, max_application_runs=1) as on:
        await on.say(await on.agent("- wait: 60", name="other"))
        turn = await opened(on)
        assert await take_over(on.core.runs, on.core.store, [DEAD]) == (0, 1)
        answer = await ended(on, turn)
        assert answer.ended is not None
        assert answer.ended.status is Status.INTERRUPTED


async def test_a_call_whose_outcome_nobody_knows_is_named_and_not_repeated(database_url: str, tmp_path: Path) -> None:
    other = ToolCall(call_id="c2", name="pay", arguments={})
    async with stage(database_url, tmp_path) as on:
        turn = await opened(on)
        await wrote(on, turn, [CALL, other, RESULT])
        assert await take_over(on.core.runs, on.core.store, [DEAD]) == (0, 1)
        answer = await ended(on, turn)
        assert answer.parts == (CALL, other, RESULT)
        assert answer.ended is not None
        assert answer.ended.problem == Internal(reason="interrupted", detail="the outcome of 'pay' is unknown")


async def test_calls_of_the_callers_tools_wait_for_the_caller(database_url: str, tmp_path: Path) -> None:
    callers = ToolCall(call_id="c2", name="weather", arguments={"city": "Ulm"})
    async with stage(database_url, tmp_path) as on:
        turn = await opened(on, caller_tools=(CALLERS,))
        await wrote(on, turn, [CALL, callers, RESULT])
        assert await take_over(on.core.runs, on.core.store, [DEAD]) == (1, 0)

        async def waiting() -> list[str]:
            answer = await on.core.store.runs.get_answer(turn.answer.app, turn.answer.uid)
            return [] if answer is None else [call.tool for call in answer.waiting_for]

        await until(waiting, ["weather"])


async def test_a_process_that_was_thought_dead_begins_no_step_of_a_run_that_it_lost(
    database_url: str, tmp_path: Path
) -> None:
    async with stage(database_url, tmp_path) as here, stage(database_url, tmp_path) as there:
        first = await here.say(await here.agent("- wait: 0.5\n- text: first"))
        agent = await here.agent("- text: 'turn ${turn}'")
        waiting = await here.say(agent, conversation=first.conversation.id)
        assert await take_over(there.core.runs, there.core.store, [here.core.runs.worker()]) == (1, 1)
        answers = await here.answers(first)
        await until(lambda: _statuses(here, first), [Status.INTERRUPTED, Status.COMPLETE])
        assert (await here.ended(waiting)).status is Status.COMPLETE  # read in the process that lost it
        answers = await here.answers(first)
        assert [answer.text for answer in answers] == ["", "turn 2"]


async def _statuses(on: Stage, turn: Any) -> list[Status | None]:
    return [answer.ended and answer.ended.status for answer in await on.answers(turn)]


def test_progress_counts_rounds_and_passes_over_what_precedes_the_model() -> None:
    retrieval = ToolCall(call_id="retrieval", name="knowledge_search", arguments={"query": "hi"})
    found = ToolResult(call_id="retrieval", name="knowledge_search", content="", data=[])
    progress = progress_of([retrieval, found, Text(text="a"), CALL, RESULT])
    assert (progress.first, progress.rounds, progress.unanswered, progress.partial) == (2, 1, (), False)
    assert progress.can_continue(1, ())
    assert not progress.can_continue(2, ())
    assert progress_of([retrieval, found]).can_continue(0, ())
