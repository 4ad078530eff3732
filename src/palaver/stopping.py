"""A stop that ends in time, whatever does not answer: the database, an endpoint, a reader."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable

import structlog

STOPS_WITHIN = 10.0
"""Seconds that a stop takes at most, beside ``drain_s``."""
RUNS_WITHIN = 4.0
"""… of which runs have these to be stored, …"""
ANSWERS_WITHIN = 6
"""… answers these to be written, …"""
CLOSED_WITHIN = 2.0
"""… and connections these to be closed."""
LAST_RESORT = 9.5
"""When they have passed, the process ends as it is."""

log = structlog.get_logger("palaver")


def end_at_last(drain_s: float) -> None:
    """From now on the process has ``drain_s + LAST_RESORT`` seconds. What it had to store and could not is left to
    recovery, as after a kill."""
    timer = threading.Timer(drain_s + LAST_RESORT, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    log.error("stopped by force")
    os._exit(1)


async def within(seconds: float, *works: Awaitable[object]) -> None:
    """Wait for all of ``works``, and no longer; what they raise is theirs."""
    tasks = [asyncio.ensure_future(work) for work in works]
    if not tasks:
        return
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        if not task.cancel() and not task.cancelled() and (error := task.exception()) is not None:
            log.warning("could not be closed", error=repr(error))
