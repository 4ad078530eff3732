"""Watches the event loop from a thread: what holds it for longer than 0.2 s is logged with its stack, and counted.

What counts is the time for which the loop's thread worked or was blocked. The time for which it could have worked and
had no processor does not, so that a busy machine is no stall.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

STALL_S = 0.2
CHECK_INTERVAL_S = 0.1
MAX_FRAMES = 20

log = structlog.get_logger("palaver.watchdog")


class Stall(NamedTuple):
    """``seconds`` by the clock; for ``cpu_s`` of them the loop's thread worked, for ``blocked_s`` it was blocked."""

    seconds: float
    cpu_s: float
    blocked_s: float
    stack: list[str]

    @property
    def held_s(self) -> float:
        return self.cpu_s + self.blocked_s


def log_stall(stall: Stall) -> None:
    log.warning(
        "event loop stalled",
        cpu_s=round(stall.cpu_s, 3),
        blocked_s=round(stall.blocked_s, 3),
        seconds=round(stall.seconds, 3),
        stack="\n".join(stall.stack),
    )


class Watchdog:
    """Of the loop in whose thread it is started. ``stalls`` counts, ``stalled_s`` adds up, each goes to ``tell``."""

    def __init__(self, stall_s: float = STALL_S, tell: Callable[[Stall], None] = log_stall) -> None:
        self.stalls = 0
        self.stalled_s = 0.0
        self._stall_s = stall_s
        self._tell = tell
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        loop, worker = asyncio.get_running_loop(), _Worker()
        watch = threading.Thread(target=self._watch, args=(loop, worker), name="watchdog", daemon=True)
        self._thread = watch
        watch.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(1)

    def _watch(self, loop: asyncio.AbstractEventLoop, worker: _Worker) -> None:
        worker.beside_me()
        while not self._over.wait(CHECK_INTERVAL_S):
            turn = _Turn(worker)
            try:
                loop.call_soon_threadsafe(turn.come)
            except RuntimeError:  # the loop is closed
                return
            if not turn.came.wait(self._stall_s):
                self._look(turn, worker)

    def _look(self, turn: _Turn, worker: _Worker) -> None:
        """The loop has not come round. Where its thread is held, take the stack while it is, and wait for the end."""
        stack: list[str] = []
        while True:
            if self._over.is_set():  # whoever ended the watch waits for it, and keeps the loop meanwhile
                return
            if not stack and worker.times().since(turn.asked).held_s >= self._stall_s:
                stack = worker.stack()
            if turn.came.wait(0.02):
                break
        assert turn.ended is not None
        stall = turn.ended.since(turn.asked)
        if stall.held_s >= self._stall_s:
            self.stalls += 1
            self.stalled_s += stall.held_s
            self._tell(stall._replace(stack=stack))


class _Times(NamedTuple):
    """What a thread has used so far: of the clock, of a processor, and of waiting for one (where the system tells)."""

    clock: float
    cpu: float
    queued: float | None

    def since(self, begun: _Times) -> Stall:
        seconds, cpu = self.clock - begun.clock, self.cpu - begun.cpu
        blocked = 0.0
        if self.queued is not None and begun.queued is not None:
            blocked = max(0.0, seconds - cpu - (self.queued - begun.queued))
        return Stall(seconds, cpu, blocked, [])


class _Worker:
    """The thread in which it is made."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._cpu = time.pthread_getcpuclockid(self._thread)
        self._schedules = (_schedule(),)

    def beside_me(self) -> None:
        """The calling thread looks on. Where it has no processor it may keep the worker waiting: no stall either."""
        self._schedules = (*self._schedules, _schedule())

    def times(self) -> _Times:
        return _Times(time.monotonic(), time.clock_gettime(self._cpu), self._queued())

    def _queued(self) -> float | None:
        try:
            return sum(int(schedule.read_bytes().split()[1]) for schedule in self._schedules) / 1e9
        except (OSError, IndexError, ValueError):
            return None

    def stack(self) -> list[str]:
        """Where the thread is, innermost last."""
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  documented
        places = traceback.extract_stack(frame)[-MAX_FRAMES:] if frame else []
        return [f"{at.filename}:{at.lineno} {at.name}" for at in places]


def _schedule() -> Path:
    """Where Linux tells how long the calling thread worked and how long it waited for a processor, in nanoseconds."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")


class _Turn:
    """A turn of the loop that was asked for, and when it came."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker
        self.came = threading.Event()
        self.ended: _Times | None = None
        self.asked = worker.times()

    def come(self) -> None:
        self.ended = self._worker.times()
        self.came.set()
