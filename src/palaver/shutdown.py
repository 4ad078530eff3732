"""A stop that ends in time, whatever does not answer: the database, an endpoint, a reader."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable

import structlog

RUNS_SHARE = 0.4
"""Of the ``stop_s`` seconds that follow ``drain_s``, this part is for runs to be stored, …"""
RESPONSES_SHARE = 0.6
"""… this one, which has begun as well, for answers to be written, …"""
TASKS_SHARE = 0.05
"""… this one for what the process does for itself to end, …"""
CLOSE_SHARE = 0.2
"""… and this one for connections to be closed."""
WORKER_SHARE = 0.85
"""When this part has passed, a worker that was told to end is killed, …"""
FORCE_EXIT_SHARE = 0.95
"""… and when this one has, the process ends as it is."""

log = structlog.get_logger("palaver")


def force_exit_after(drain_s: float, stop_s: float) -> None:
    """From now on the process has ``drain_s`` and nearly ``stop_s`` seconds. What it had to store and could not is left
    to recovery, as after a kill."""
    timer = threading.Timer(drain_s + stop_s * FORCE_EXIT_SHARE, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    log.error("stopped by force")
    os._exit(1)


async def wait_at_most(seconds: float, *works: Awaitable[object]) -> None:
    """Wait for all of ``works``, and no longer; what they raise is theirs."""
    tasks = [asyncio.ensure_future(work) for work in works]
    if not tasks:
        return
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        if not task.cancel() and not task.cancelled() and (error := task.exception()) is not None:
            log.warning("could not be closed", error=repr(error))
