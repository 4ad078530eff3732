"""The watchdog names what holds the event loop, and nothing else."""

from __future__ import annotations

import asyncio
import time

import structlog
from kit import run

from palaver.http.watchdog import Watchdog


def spin(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def watched(hold: float, *, busy: bool) -> tuple[int, list[dict[str, object]]]:
    """(stalls, log lines) of a loop that is held once: by work, or by a machine that has no time for it."""
    watchdog = Watchdog()

    async def work() -> None:
        watchdog.start()
        await asyncio.sleep(0.3)
        (spin if busy else time.sleep)(hold)
        await asyncio.sleep(0.3)
        watchdog.stop()

    with structlog.testing.capture_logs() as lines:
        run(work())
    return watchdog.stalls, [dict(line) for line in lines]


def test_what_holds_the_loop_is_logged_with_its_stack() -> None:
    stalls, (line,) = watched(0.6, busy=True)
    assert stalls == 1
    assert line["event"] == "event loop stalled"
    assert "spin" in str(line["stack"])


def test_a_loop_that_does_nothing_is_not_stalled() -> None:
    assert watched(0.6, busy=False) == (0, [])
    assert watched(0.05, busy=True) == (0, [])
