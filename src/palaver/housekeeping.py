"""What a server does at intervals: recover orphaned runs, remove expired rows, save usage counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from palaver.app import Core, tidy
from palaver.core.problems import Internal, Problem

RECOVERY_INTERVAL_S = 2.0
"""Seconds between two looks for runs that a dead process left behind."""
SAVE_USAGE_INTERVAL_S = 10.0
"""Seconds between two saves of how often credentials were used."""
CLEANUP_INTERVAL_S = 600.0
"""Seconds between two removals of what has run out."""
log = structlog.get_logger("palaver")


async def keep_house(core: Core, recovered: Callable[[float], None]) -> None:
    """End the runs that nobody works on, and remove what has run out."""
    pause, tidied = 0.3, 0.0  # two looks soon after the start: a restart finds its own dead runs at once
    suspects: set[int] = set()
    missed: set[int] = set()
    loop = asyncio.get_running_loop()
    while True:
        try:
            recovered(await _end_orphaned_runs(core))
            known = core.runs.ids()  # before the look: one that is added meanwhile cannot be missed
            stored = await core.store.runs.list_live_ids(core.store.presence.worker)
            ended, suspects = await _end_unknown_runs(core, stored, suspects)
            recovered(ended)
            missed = core.runs.stop_vanished(known - stored, missed)
            for run in await core.store.runs.list_head_ids(core.store.presence.worker):
                core.runs.may_start(run)
            if loop.time() > tidied + CLEANUP_INTERVAL_S:
                tidied = loop.time()
                await tidy(core.store)
        except Problem as problem:
            log.warning("could not look after runs", problem=problem.to_dict())
        await asyncio.sleep(pause)
        pause = min(pause * 2, RECOVERY_INTERVAL_S)


async def save_key_usage(core: Core) -> None:
    """Store how often credentials are used, and once more at the end."""
    try:
        while True:
            await asyncio.sleep(SAVE_USAGE_INTERVAL_S)
            with suppress(Problem):  # the store said so in the log; the next time stores it
                await core.store.keys.save_uses()
    finally:
        with suppress(Problem, TimeoutError):
            await asyncio.wait_for(core.store.keys.save_uses(), 1)


async def _end_orphaned_runs(core: Core) -> int:
    """End the runs of processes that are no more; how many."""
    dead = await core.store.presence.find_lost_workers()
    count = 0
    if dead:
        count = await core.store.runs.interrupt(dead, Internal(reason="interrupted"))
        log.warning("ended runs that a dead process left behind", runs=count, processes=dead)
    return count


async def _end_unknown_runs(core: Core, stored: set[int], suspects: set[int]) -> tuple[int, set[int]]:
    """End runs that are this process's by what is stored, and that it does not know: the connection was lost after
    their message was stored and before it heard of it. A run between the two is only a suspect until the next look.
    How many were ended, and the suspects."""
    worker = core.store.presence.worker
    forgotten = {run for run in stored if not core.runs.contains(run)}
    count = 0
    if sure := sorted(forgotten & suspects):
        count = await core.store.runs.interrupt([worker], Internal(reason="interrupted"), only=sure)
        log.warning("ended runs that nobody here works on", runs=count)
    return count, forgotten
