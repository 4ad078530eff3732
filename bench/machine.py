"""The machine: CPU pinning, and processes with their resource usage."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
STARTS_WITHIN = 60.0
STOPS_WITHIN = 30.0
PROBE_S = 0.01


class Unfit(Exception):  # noqa: N818  a message for the user of the bench
    """The machine does not allow a measurement; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpus:
    """One CPU for the measured server, one for everything else. ``None``: any."""

    server: int | None
    others: int | None


def two_cpus() -> Cpus:
    """The first and the last CPU this process may use. Raises ``Unfit``."""
    if not hasattr(os, "sched_setaffinity"):
        raise Unfit("processes cannot be pinned to a CPU on this system: run the bench on Linux, or with --unpinned")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Unfit("this process may use one CPU only, the bench needs two: widen its CPU set, or use --unpinned")
    return Cpus(server=allowed[0], others=allowed[-1])


def pin(pid: int, cpu: int | None) -> None:
    """Pin a process (0: this one) and its future children to a CPU."""
    if cpu is not None:
        os.sched_setaffinity(pid, {cpu})


class Slowness:
    """The factor by which other processes slow down a computation on this machine."""

    def __init__(self) -> None:
        self._seconds = self._worked = 0.0

    def look(self) -> None:
        """Take a sample."""
        begun, worked = time.perf_counter(), time.thread_time()
        while time.thread_time() < worked + PROBE_S:
            pass
        self._seconds += time.perf_counter() - begun
        self._worked += time.thread_time() - worked

    @property
    def times(self) -> float:
        return max(1.0, self._seconds / self._worked) if self._worked else 1.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Process:
    """A server process that the terminal's Ctrl-C does not reach; the bench stops it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, cpu: int | None) -> None:
        self._log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        pin(self._popen.pid, cpu)
        self._watched = psutil.Process(self._popen.pid)
        # Linux derives the number of a process's CPU clock from its id; unlike /proc, it does not count in ticks.
        self._clock = (~self._popen.pid << 3) | 2 if sys.platform == "linux" else None

    @property
    def pid(self) -> int:
        return self._popen.pid

    def cpu(self) -> float:
        """CPU time of all threads since the start, user and system, in seconds."""
        if self._clock is not None:
            return time.clock_gettime(self._clock)
        times = self._watched.cpu_times()
        return times.user + times.system

    def resident(self) -> int:
        """Resident memory in bytes."""
        return self._watched.memory_info().rss

    def handles(self) -> int:
        """Open files and sockets."""
        return self._watched.num_fds()

    def alive(self) -> None:
        """Raises ``Unfit`` with the end of the log if the process has ended."""
        if self._popen.poll() is not None:
            tail = " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-5:])
            raise Unfit(f"a server ended by itself with status {self._popen.returncode}: {tail}")

    async def listens(self, port: int) -> None:
        """Wait until it accepts connections. Raises ``Unfit``."""
        until = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < until:
            self.alive()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.002)
                continue
            writer.close()
            return
        raise Unfit(f"nothing listened on port {port} within {STARTS_WITHIN:g} s, see {self._log}")

    def kill(self) -> None:
        """Kill it."""
        self._popen.kill()
        self._popen.wait()

    def stop(self) -> None:
        """Shut it down gracefully; kill it if that takes too long."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
