"""Periodic tasks of a server: take over orphaned runs, delete expired rows, save usage counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from palaver.app import Core, delete_expired_rows
from palaver.core.problems import Problem
from palaver.core.recovery import end_runs, take_over

RECOVERY_INTERVAL_S = 2.0
"""Seconds between two searches for orphaned runs."""
SAVE_USAGE_INTERVAL_S = 10.0
"""Seconds between two saves of the credentials' usage counts."""
CLEANUP_INTERVAL_S = 600.0
"""Seconds between two deletions of expired rows."""

log = structlog.get_logger("palaver")


async def run_housekeeping(core: Core, on_recovered: Callable[[float], None]) -> None:
    """Take over runs that no process executes, start waiting runs whose turn has come, fold long answers, and delete
    expired rows, until cancelled. ``on_recovered`` receives the number of runs ended."""
    pause, last_cleanup = 0.3, 0.0  # twice soon after the start: a restarted server ends its previous runs at once
    suspects: set[int] = set()
    missed: set[int] = set()
    loop = asyncio.get_running_loop()
    while True:
        try:
            on_recovered(await _take_over_orphaned_runs(core))
            known = core.runs.ids()  # before the query: a run added meanwhile cannot count as vanished
            stored = await core.store.runs.list_assigned(core.store.presence.worker)
            ended, suspects = await _end_unknown_runs(core, stored, suspects)
            on_recovered(ended)
            missed = core.runs.stop_deleted(known - stored.keys(), missed)
            while await core.store.runs.fold():
                pass
            for run in await core.store.runs.list_head_ids(core.store.presence.worker):
                core.runs.allow_start(run)
            if loop.time() > last_cleanup + CLEANUP_INTERVAL_S:
                last_cleanup = loop.time()
                await delete_expired_rows(core.store)
        except Problem as problem:
            log.warning("housekeeping failed", problem=problem.to_dict())
        await asyncio.sleep(pause)
        pause = min(pause * 2, RECOVERY_INTERVAL_S)


async def save_key_usage(core: Core) -> None:
    """Save the credentials' usage counts periodically, and once more when cancelled."""
    try:
        while True:
            await asyncio.sleep(SAVE_USAGE_INTERVAL_S)
            with suppress(Problem):  # logged by the store; the next save includes these counts
                await core.store.keys.save_uses()
    finally:
        with suppress(Problem, TimeoutError):
            await asyncio.wait_for(core.store.keys.save_uses(), 1)


async def _take_over_orphaned_runs(core: Core) -> int:
    """Take over the runs of dead processes. Returns how many of them ended."""
    dead = await core.store.presence.find_lost_workers()
    if not dead or core.runs.closing:
        return 0
    continued, ended = await take_over(core.runs, core.store, dead)
    if continued or ended:
        log.warning("orphaned runs taken over", continued=continued, ended=ended, processes=dead)
    return ended


async def _end_unknown_runs(
    core: Core, stored: Mapping[int, tuple[int, int, int]], suspects: set[int]
) -> tuple[int, set[int]]:
    """End the runs in ``stored`` that belong to this process but are unknown to it: its connection broke just as their
    message was stored. A run that is being added looks the same, so it is ended at the second check. Returns how many
    were ended, and the suspects for the next call."""
    unknown = {run for run in stored if not core.runs.contains(run)}
    count = 0
    if confirmed := sorted(unknown & suspects):
        count = len(confirmed)
        await end_runs(core.runs, [stored[run] for run in confirmed])
        log.warning("unknown runs ended", runs=count)
    return count, unknown
