"""The watchdog reports what blocks the event loop, and nothing else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.live_server import serving
from support.server_process import Installation
from support.stalls import STALLS, Stalls

from palaver.http.watchdog import Stall, Watchdog, log_stall


def spin(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def watched(hold: Callable[[], None]) -> list[Stall]:
    """The stalls reported for a loop in which ``hold`` runs once."""
    stalls: list[Stall] = []
    watchdog = Watchdog(on_stall=stalls.append)
    watchdog.start()
    await asyncio.sleep(0.3)
    hold()
    await asyncio.sleep(0.3)
    watchdog.stop()
    assert watchdog.stalls == len(stalls)
    assert watchdog.stalled_s == pytest.approx(sum(stall.stalled_s for stall in stalls))
    return stalls


@contextmanager
def crowd(count: int) -> Generator[set[int]]:
    """``count`` busy processes on one processor, which is returned."""
    only = {min(os.sched_getaffinity(0))}
    command = [sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for other in others:
            os.sched_setaffinity(other.pid, only)
            assert other.stdout is not None
            other.stdout.readline()
        yield only
    finally:
        for other in others:
            other.kill()
            other.communicate()


async def test_a_computation_on_the_loop_is_reported_with_its_stack() -> None:
    (stall,) = await watched(lambda: spin(0.6))
    assert stall.cpu_s > 0.4
    assert any("spin" in place for place in stall.stack)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long a thread waited for a processor")
async def test_a_blocking_call_on_the_loop_is_reported_with_its_stack() -> None:
    (stall,) = await watched(lambda: time.sleep(0.6))
    assert stall.cpu_s < 0.2
    assert stall.blocked_s > 0.3
    assert stall.stack[-1].endswith("<lambda>")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a thread to a processor")
async def test_a_busy_machine_is_not_a_stall() -> None:
    durations: list[float] = []

    def work(processor: set[int]) -> None:
        everywhere, begun = os.sched_getaffinity(0), time.monotonic()
        os.sched_setaffinity(0, processor)
        spin(0.1)
        os.sched_setaffinity(0, everywhere)
        durations.append(time.monotonic() - begun)

    with crowd(8) as processor:
        assert await watched(lambda: work(processor)) == []
    assert durations[0] > 0.4


async def test_a_short_computation_is_not_a_stall() -> None:
    assert await watched(lambda: spin(0.05)) == []


def test_a_stall_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log_stall(Stall(0.71, 0.5, 0.2, ["here.py:1 work"]))
    output = capsys.readouterr().out
    assert all(word in output for word in ("event loop stalled", "0.71", "0.5", "0.2", "here.py:1 work"))


@pytest.mark.stalls
def test_a_stall_of_an_in_process_server_is_visible_to_a_test(database_url: str, tmp_path: Path) -> None:
    async def hold() -> None:
        spin(0.6)

    with serving(database_url, tmp_path) as served:
        served.do(hold())
    (stall,) = STALLS.take()
    assert "spin" in stall


def test_a_stall_of_a_server_process_is_visible_in_its_log(tmp_path: Path) -> None:
    stalls, place = Stalls(), Installation(tmp_path)
    place.log.write_text('{"event": "event loop stalled", "stack": "of another test"}\n')
    stalls.follow(place.log)
    with place.log.open("a") as log:
        log.write('{"event": "started"}\n{"event": "event loop stalled", "stack": "here"}\n{"event": "event loop sta')
    assert stalls.take() == ['{"event": "event loop stalled", "stack": "here"}']
    assert stalls.take() == []
