"""Detects stalls of the event loop from a separate thread: whatever blocks it for over 0.2 s is logged with its stack.

Only time that the loop's thread spends computing or blocked counts. Time spent waiting for a free processor does not: a
busy machine is not a stall.
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
    """A stall of the event loop. Of its ``seconds`` of wall-clock time, the loop's thread spent ``cpu_s`` computing and
    ``blocked_s`` (measured on Linux only) blocked; for the rest, it waited for a processor. ``stack``: innermost last.
    """

    seconds: float
    cpu_s: float
    blocked_s: float
    stack: list[str]

    @property
    def stalled_s(self) -> float:
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
    """Watches the event loop in which it is started. ``on_stall`` is called in the watchdog's thread."""

    def __init__(self, stall_s: float = STALL_S, on_stall: Callable[[Stall], None] = log_stall) -> None:
        self.stalls = 0
        """Number of stalls so far."""
        self.stalled_s = 0.0
        """Their total duration, in seconds."""
        self._stall_s = stall_s
        self._on_stall = on_stall
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        args = (asyncio.get_running_loop(), _LoopThread())
        self._thread = threading.Thread(target=self._watch, args=args, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(1)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: _LoopThread) -> None:
        thread.exclude_current_thread()
        while not self._stopped.wait(CHECK_INTERVAL_S):
            ping = _Ping(thread)
            try:
                loop.call_soon_threadsafe(ping.respond)
            except RuntimeError:  # the loop is closed
                return
            if not ping.responded.wait(self._stall_s):
                self._measure_stall(ping, thread)

    def _measure_stall(self, ping: _Ping, thread: _LoopThread) -> None:
        """The loop has not responded in time: take its stack if its thread is at fault, and wait for the response."""
        stack: list[str] = []
        while True:
            if self._stopped.is_set():  # ``stop`` itself blocks the loop while it joins this thread
                return
            if not stack and thread.times().since(ping.sent).stalled_s >= self._stall_s:
                stack = thread.stack()
            if ping.responded.wait(0.02):
                break
        assert ping.received is not None
        stall = ping.received.since(ping.sent)
        if stall.stalled_s >= self._stall_s:
            self.stalls += 1
            self.stalled_s += stall.stalled_s
            self._on_stall(stall._replace(stack=stack))


class _Times(NamedTuple):
    """Wall-clock time, CPU time, and time spent waiting for a processor (``None`` if unknown), in seconds."""

    wall_s: float
    cpu_s: float
    queued_s: float | None

    def since(self, start: _Times) -> Stall:
        seconds, cpu_s = self.wall_s - start.wall_s, self.cpu_s - start.cpu_s
        blocked_s = 0.0
        if self.queued_s is not None and start.queued_s is not None:
            blocked_s = max(0.0, seconds - cpu_s - (self.queued_s - start.queued_s))
        return Stall(seconds, cpu_s, blocked_s, [])


class _LoopThread:
    """The event loop's thread. Must be created in it."""

    def __init__(self) -> None:
        self._id = threading.get_ident()
        self._cpu_clock = time.pthread_getcpuclockid(self._id)
        self._schedstats = (_schedstat(),)

    def exclude_current_thread(self) -> None:
        """Also exclude the time that the current thread waits for a processor, in which it may hold the GIL."""
        self._schedstats = (*self._schedstats, _schedstat())

    def times(self) -> _Times:
        return _Times(time.monotonic(), time.clock_gettime(self._cpu_clock), self._queued_s())

    def _queued_s(self) -> float | None:
        try:
            return sum(int(schedstat.read_bytes().split()[1]) for schedstat in self._schedstats) / 1e9
        except (OSError, IndexError, ValueError):
            return None

    def stack(self) -> list[str]:
        """``file:line function`` of its frames, innermost last."""
        frame = sys._current_frames().get(self._id)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  documented
        frames = traceback.extract_stack(frame)[-MAX_FRAMES:] if frame else []
        return [f"{entry.filename}:{entry.lineno} {entry.name}" for entry in frames]


def _schedstat() -> Path:
    """The file in which Linux reports the current thread's running time and run queue delay, in nanoseconds."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")


class _Ping:
    """A callback for the loop, with its thread's times when it was scheduled and when it ran."""

    def __init__(self, thread: _LoopThread) -> None:
        self._thread = thread
        self.responded = threading.Event()
        self.received: _Times | None = None
        self.sent = thread.times()

    def respond(self) -> None:
        self.received = self._thread.times()
        self.responded.set()
