"""Taking up runs that no process executes: those of processes that died, and paused ones."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import structlog

from palaver.core.ports.store import Store, StoredRun
from palaver.core.problems import Busy, Internal
from palaver.core.progress import progress_of
from palaver.core.runs import ActiveRun, RunRegistry
from palaver.core.turn import turn_context
from palaver.core.types import Message, RunEnded, Status, ToolResult

BATCH_RUNS = 64
"""Runs taken over at a time."""

log = structlog.get_logger("palaver.runs")


async def take_over(runs: RunRegistry, store: Store, dead: Sequence[int]) -> tuple[int, int]:
    """Take over the live runs of ``dead`` processes. Those that waited for their turn, and those that were between two
    model calls, continue here; the others end as interrupted. Returns how many (continue, were ended)."""
    continued = ended = 0
    while True:
        limit = max(1, min(BATCH_RUNS, runs.slots.free))  # runs that end need no slot, even in a full process
        taken = await store.runs.take_over(dead, worker=runs.worker(), limit=limit)
        for app_id, uid in taken:
            stored = await store.runs.get_run(app_id, uid)
            if stored is None:
                continue
            problem = _reason_to_end(stored)
            if problem is None and await _add(runs, store, stored):
                runs.slots.take(app_id, stored.input.credential)
                continued += 1
            else:
                answer = stored.answer
                await end_runs(runs, [(app_id, answer.conversation, answer.id)], problem)
                ended += 1
        if len(taken) < limit or not runs.slots.free:
            break
    return continued, ended


async def take_up(runs: RunRegistry, store: Store, answer: Message, result: ToolResult) -> bool:
    """Give a paused run the result of a call; with the last one, it continues in this process. Returns False if the run
    no longer waits for the call. Raises ``Busy`` if no run can start here."""
    stored = await store.runs.get_run(answer.app, answer.uid)
    if stored is None:
        return False
    credential = stored.input.credential
    if runs.closing or not runs.slots.acquire(answer.app, credential):
        raise Busy(reason="closing" if runs.closing else "overload", retry_after=1)
    holds_slot = True
    try:
        mine = await store.runs.provide(answer.app, answer.uid, result, worker=runs.worker())
        await store.runs.notify_growth([answer.id])
        if mine:
            stored = await store.runs.get_run(answer.app, answer.uid)
            if stored is not None and await _add(runs, store, stored):
                holds_slot = False
        return mine is not None
    finally:
        if holds_slot:
            runs.slots.release(answer.app, credential)


def _reason_to_end(stored: StoredRun) -> Internal | None:
    """Why the run cannot continue, or ``None``."""
    progress = progress_of(stored.answer.parts)
    callers_tools = {tool.name for tool in stored.input.caller_tools}
    if progress.can_continue(stored.step, callers_tools):
        return None
    unknown = ", ".join(repr(call.name) for call in progress.unanswered if call.name not in callers_tools)
    return Internal(reason="interrupted", detail=f"the outcome of {unknown} is unknown" if unknown else "")


async def _add(runs: RunRegistry, store: Store, stored: StoredRun) -> bool:
    """Register the run in this process, and start it if it is first. Returns False if its agent is gone."""
    conversation, answer = stored.conversation, stored.answer
    agent = await store.agents.get(answer.app, conversation.agent)
    if agent is None:
        return False
    agent = msgspec.structs.replace(agent, spec=stored.spec)
    live = ActiveRun(
        app_id=answer.app,
        run_id=answer.id,
        uid=answer.uid,
        context=turn_context(agent, conversation, stored.question, stored.input),
        step=stored.step,
        parts=answer.parts,
        usage=stored.usage,
    )
    runs.add(live, start=stored.first)
    log.info("run taken up", run=answer.uid.hex, step=stored.step, trace=stored.input.trace)
    return True


async def end_runs(runs: RunRegistry, keys: Sequence[tuple[int, int, int]], problem: Internal | None = None) -> None:
    """End runs of this process that it does not execute, as interrupted. ``keys``: application, conversation and id of
    each."""
    problem = Internal(reason="interrupted") if problem is None else problem
    ended = RunEnded(status=Status.INTERRUPTED, reason="error", problem=problem, at=time.time_ns() // 1_000_000)
    await runs.finish_stored(keys, ended, runs.worker())
