"""Watches the event loop from a thread: what holds it for longer than 0.2 s is logged with its stack, and counted.

What counts is the time for which the loop's thread held the processor, so that a busy machine is no stall.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable

import structlog

STALL_S = 0.2
LOOK_EVERY_S = 0.1
MAX_FRAMES = 20

log = structlog.get_logger("palaver.watchdog")


class Watchdog:
    """Of the loop in whose thread it is started. ``stalls`` counts, ``stalled_s`` adds them up."""

    def __init__(self, stall_s: float = STALL_S) -> None:
        self.stalls = 0
        self.stalled_s = 0.0
        self._stall_s = stall_s
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        loop, thread = asyncio.get_running_loop(), threading.get_ident()
        clock = time.pthread_getcpuclockid(thread)
        watch = threading.Thread(target=self._watch, args=(loop, thread, clock), name="watchdog", daemon=True)
        self._thread = watch
        watch.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(1)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int, clock: int) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            turn = threading.Event()
            begun, cpu = time.monotonic(), time.clock_gettime(clock)
            try:
                loop.call_soon_threadsafe(turn.set)
            except RuntimeError:  # the loop is closed
                return
            if not turn.wait(self._stall_s):
                self._look(turn, thread, begun, lambda cpu=cpu: time.clock_gettime(clock) - cpu)

    def _look(self, turn: threading.Event, thread: int, begun: float, spent: Callable[[], float]) -> None:
        """The loop has not come round. Where its thread works, take the stack while it does, and wait for the end."""
        stack: list[str] = []
        while not self._over.is_set():
            if not stack and spent() >= self._stall_s:
                stack = _stack(thread)
            if turn.wait(0.02):
                break
        seconds = spent()
        if seconds >= self._stall_s:
            self.stalls += 1
            self.stalled_s += seconds
            waited = time.monotonic() - begun
            log.warning("event loop stalled", cpu_s=round(seconds, 3), seconds=round(waited, 3), stack=stack)


def _stack(thread: int) -> list[str]:
    """Where the thread is, innermost last."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  documented
    return (
        [f"{at.filename}:{at.lineno} {at.name}" for at in traceback.extract_stack(frame)[-MAX_FRAMES:]] if frame else []
    )
