"""Stalls of the event loops of the servers that tests start: a test in which one stalls fails.

A process says so in its log. A server in the tests' own process tells it, and only what its loop's thread computed
counts: it shares the interpreter with the test, and may have waited for that.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from palaver.http.watchdog import STALL_S, Stall, Watchdog

LOGGED = b"event loop stalled"


class Stalls:
    """What has stalled since somebody took it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: list[str] = []
        self._logs: dict[Path, int] = {}

    def watchdog(self) -> Watchdog:
        """For a server in this process."""
        return Watchdog(on_stall=self._tell)

    def _tell(self, stall: Stall) -> None:
        if stall.cpu_s >= STALL_S:
            with self._lock:
                self._told.append(f"{stall.cpu_s:.3f} s of processor time:\n  " + "\n  ".join(stall.stack))

    def follow(self, log: Path) -> None:
        """The log of a process, from where it is now."""
        self._logs.setdefault(log, log.stat().st_size if log.exists() else 0)

    def leave(self, log: Path) -> None:
        """The process has ended, and its log is about to go."""
        self._read(log)
        self._logs.pop(log, None)

    def _read(self, log: Path) -> None:
        with suppress(FileNotFoundError), log.open("rb") as file:
            file.seek(self._logs.get(log, 0))
            new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._logs[log] = self._logs.get(log, 0) + len(whole)
            self._told += [line.decode(errors="replace") for line in whole.splitlines() if LOGGED in line]

    def take(self) -> list[str]:
        for log in list(self._logs):
            self._read(log)
        with self._lock:
            told, self._told = self._told, []
        return told


STALLS = Stalls()
"""Of all servers that this process has started."""
