"""Reads documents in separate processes: few, confined, and replaced when they exceed a limit.

Documents are untrusted input, so they are never read on the event loop or in its threads. A process starts on demand
and exits when it has been idle for a while. One that takes too long, needs too much memory or breaks is killed, which
affects only that document; the next one gets a new process.

A document waits for its turn before its bytes are loaded, so waiting documents use no memory. Scheduling is round-robin
over the applications and, within a round, over their end users.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from palaver.core.fair_semaphore import FairSemaphore, Owner, QueueTimeout
from palaver.core.ports.documents import UnreadableDocument
from palaver.knowledge.protocol import (
    LENGTH,
    OUT_OF_MEMORY,
    Job,
    JobLimits,
    JobRefused,
    JobResult,
    decode_result,
    encode_frame,
)

ATTACHED = JobLimits(memory=256 * 2**20, cpu_s=5, wall_s=20, output=2**20)
"""For attachments."""
INGESTED = JobLimits(memory=2**30, cpu_s=60, wall_s=180, output=256 * 2**20)
"""For files of a knowledge base."""
MAX_PROCESSES = 3
QUEUE_TIMEOUT_S = 60.0
"""Maximum wait for a turn, in seconds."""
IDLE_S = 30.0
"""Seconds after which an idle process is stopped."""
ENDS_WITHIN = 5.0
"""Seconds for a process to exit after a failed job, before it is killed."""
COMMAND = ("-P", "-m", "palaver.knowledge.worker")

log = structlog.get_logger("palaver.knowledge")


class ReaderPool:
    """Processes that read documents. ``each``: maximum number of processes for one end user."""

    def __init__(self, limits: JobLimits = ATTACHED, *, processes: int = MAX_PROCESSES, each: int = 1) -> None:
        self._limits = limits
        self._turns = FairSemaphore(processes, each)
        self._idle: list[_Process] = []
        self._all: set[_Process] = set()
        self._closed = False

    async def read(self, owner: Owner, job: Callable[[], Awaitable[Job]]) -> JobResult:
        """The result of a job; ``job`` is called when it is its turn. Raises ``UnreadableDocument``, and errors of
        ``job``."""
        async with self._turn(owner):
            try:
                async with asyncio.timeout(self._limits.wall_s):
                    result = await self._run(await job())
            except TimeoutError:
                raise UnreadableDocument(f"reading it takes too long (more than {self._limits.wall_s:g} s)") from None
        if isinstance(result, JobRefused):
            raise UnreadableDocument(result.reason)
        return result

    @asynccontextmanager
    async def _turn(self, owner: Owner) -> AsyncGenerator[None]:
        try:
            async with self._turns.slot(owner, QUEUE_TIMEOUT_S):
                yield
        except QueueTimeout as timeout:
            if timeout.full:
                raise UnreadableDocument("too many other documents are waiting to be read; try again later") from None
            raise UnreadableDocument("other documents kept the server busy; try again later") from None

    async def _run(self, job: Job) -> JobResult:
        if self._closed:
            raise UnreadableDocument("the server is stopping")
        process = await self._ready()
        result = None
        try:
            result = await process.run(job)
        finally:
            if result is None:  # its state is unknown
                process.kill()
        if result is None:
            raise UnreadableDocument(self._cause(*await process.end()))
        self._idle.append(process)
        process.rest(IDLE_S)
        return result

    async def _ready(self) -> _Process:
        while self._idle:
            process = self._idle.pop()
            if process.wake():
                return process
        process = await _Process.start(self._limits)
        self._all.add(process)
        process.on_exit(lambda: self._all.discard(process))
        if self._closed:
            process.kill()
        return process

    def _cause(self, status: int, words: str) -> str:
        """Why a process exited, as a reason for the user."""
        if status == OUT_OF_MEMORY:
            return "reading it takes too much memory"
        if status == -signal.SIGPROF:
            return f"reading it takes too long (more than {self._limits.cpu_s:g} s)"
        log.warning("reader broke", status=status, detail=words)
        return "it is broken in a way that ends its reader"

    async def close(self) -> None:
        """Kill every process."""
        self._closed = True
        for process in self._all:
            process.kill()
        await asyncio.gather(*(process.end() for process in self._all))


class _Process:
    """A process that reads one document at a time."""

    def __init__(self, process: Process, output: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._output = output
        self._in, self._out, self._errors = process.stdin, process.stdout, process.stderr
        self._alarm: asyncio.TimerHandle | None = None
        self._killed = False
        self._end = asyncio.create_task(self._watch())

    @staticmethod
    async def start(limits: JobLimits) -> _Process:
        """Raises ``UnreadableDocument``."""
        figures = (limits.memory, limits.cpu_s, limits.output, os.getpid())
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *COMMAND,
                *map(str, figures),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                limit=2**20,
                start_new_session=True,  # Ctrl-C must reach only the server, which then stops them
            )
        except OSError as error:  # the system is out of processes, descriptors or memory
            log.warning("no reader could be started", detail=str(error))
            raise UnreadableDocument("nothing can be read at the moment; try again later") from error
        return _Process(process, limits.output)

    async def run(self, job: Job) -> JobResult | None:
        """The result of a job, or ``None`` if the process has exited or is about to."""
        with suppress(OSError, asyncio.IncompleteReadError):
            self._in.write(encode_frame(job))
            await self._in.drain()
            size = int.from_bytes(await self._out.readexactly(LENGTH), "big")
            if size <= self._output:
                return decode_result(await self._out.readexactly(size))
        # It is about to exit. Sending a signal to a process that has just exited would collect its exit status, which
        # asyncio then could not report: so wait first.
        with suppress(TimeoutError):
            await asyncio.wait_for(self.end(), ENDS_WITHIN)
        return None

    def rest(self, seconds: float) -> None:
        """Kill it after that time, unless ``wake`` is called before."""
        self._alarm = asyncio.get_running_loop().call_later(seconds, self.kill)

    def wake(self) -> bool:
        """Cancel ``rest``. Returns whether the process can be used again."""
        if self._alarm is not None:
            self._alarm.cancel()
        return not self._killed and self._process.returncode is None

    def kill(self) -> None:
        self.wake()
        self._killed = True
        with suppress(ProcessLookupError):
            self._process.kill()

    def on_exit(self, then: Callable[[], None]) -> None:
        self._end.add_done_callback(lambda _: then())

    async def end(self) -> tuple[int, str]:
        """Wait until it has exited. Returns its exit status and the last line of standard error."""
        return await asyncio.shield(self._end)

    async def _watch(self) -> tuple[int, str]:
        words = await self._errors.read(4096)
        while await self._errors.read(4096):
            pass
        return await self._process.wait(), words.decode(errors="replace").strip().rpartition("\n")[2]
