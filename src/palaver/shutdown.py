"""Time limits for a graceful shutdown, even if the database, a model endpoint or a client does not respond.

The constants divide the ``stop_s`` seconds that follow the drain.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable

import structlog

RUNS_SHARE = 0.4
"""For storing the runs."""
RESPONSES_SHARE = 0.6
"""For sending open responses; overlaps with storing the runs."""
TASKS_SHARE = 0.05
"""For ending background tasks."""
CLOSE_SHARE = 0.2
"""For closing connections to the database and to model endpoints."""
WORKER_SHARE = 0.85
"""After this share, the parent kills workers that are still running."""
FORCE_EXIT_SHARE = 0.95
"""After this share, a process exits without completing its shutdown."""

log = structlog.get_logger("palaver")


def force_exit_after(drain_s: float, stop_s: float) -> None:
    """Exit the process after ``drain_s`` and most of ``stop_s`` seconds, even if the shutdown is incomplete. Runs that
    could not be stored by then are recovered as after a kill."""
    timer = threading.Timer(drain_s + stop_s * FORCE_EXIT_SHARE, _exit)
    timer.daemon = True
    timer.start()


def _exit() -> None:
    log.error("forced exit")
    os._exit(1)


async def wait_at_most(seconds: float, *awaitables: Awaitable[object]) -> None:
    """Await all of ``awaitables``, at most for ``seconds``, then cancel the rest. Exceptions are only logged."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    if not tasks:
        return
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        if not task.cancel() and not task.cancelled() and (error := task.exception()) is not None:
            log.warning("close failed", error=repr(error))
