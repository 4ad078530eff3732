"""The processes that read documents: confined, replaced, shared fairly, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import psutil
import pytest
from support.kit import until

from palaver.core.ports.documents import UnreadableDocument
from palaver.knowledge import pool as reading
from palaver.knowledge.pool import ATTACHED, ReaderPool
from palaver.knowledge.protocol import ExtractedText, ExtractText, JobLimits

ANN, BOB, EVE = (1, 1), (1, 2), (2, 3)
SLOW = b"<p>x" * 400_000
"""More than a second of work."""
ENDLESS = b"<p>x" * 4_000_000
"""More than five seconds of work."""
LARGE = b"<p>x" * 500_000
"""More than 64 MiB of elements."""


@asynccontextmanager
async def readers(limits: JobLimits = ATTACHED, processes: int = 3) -> AsyncGenerator[ReaderPool]:
    pool = ReaderPool(limits, processes=processes)
    try:
        yield pool
    finally:
        await pool.close()
        assert children() == []


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if _is_reader(one)]


def _is_reader(process: psutil.Process) -> bool:
    try:
        return any("palaver.knowledge.worker" in word for word in process.cmdline())
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return False


async def read(pool: ReaderPool, content: bytes, owner: tuple[int, int] = ANN) -> str:
    async def job() -> ExtractText:
        return ExtractText(html=True, limit=100, content=content)

    answer = await pool.read(owner, job)
    assert isinstance(answer, ExtractedText)
    return answer.text


async def refused(pool: ReaderPool, content: bytes) -> str:
    with pytest.raises(UnreadableDocument) as caught:
        await read(pool, content)
    return caught.value.reason


def changed(**limits: float) -> JobLimits:
    return msgspec.structs.replace(ATTACHED, **limits)


async def test_a_process_starts_with_the_first_document_and_reads_the_next_one_too() -> None:
    async with readers() as pool:
        assert children() == []
        assert await read(pool, b"<p>one") == "one"
        (first,) = children()
        assert await read(pool, b"<p>two") == "two"
        assert children() == [first]


@pytest.mark.parametrize(
    ("limits", "content", "reason"),
    [
        (changed(cpu_s=0.7), ENDLESS, "reading it takes too long (more than 0.7 s)"),
        (changed(wall_s=4, cpu_s=60, memory=2**32), ENDLESS, "reading it takes too long (more than 4 s)"),
        (changed(memory=96 * 2**20, cpu_s=60), LARGE, "reading it takes too much memory"),
        (changed(output=100), b"<p>" + b"x" * 100, "what it says is more than 100 bytes"),
        (ATTACHED, b"<div>" * 600, "too deeply nested (more than 512 levels)"),
    ],
)
async def test_a_document_over_a_limit_is_refused_and_the_next_one_is_read(
    limits: JobLimits, content: bytes, reason: str
) -> None:
    async with readers(limits) as pool:
        assert await refused(pool, content) == reason
        assert await read(pool, b"<p>next") == "next"


async def test_a_process_that_is_killed_costs_its_document_and_no_other() -> None:
    async with readers() as pool:
        reading = asyncio.create_task(refused(pool, SLOW))
        await until(count, 1)
        other = asyncio.create_task(read(pool, b"<p>other", EVE))
        children()[0].kill()
        assert await reading == "it is broken in a way that ends its reader"
        assert await other == "other"


async def count() -> int:
    return len(children())


async def test_whoever_is_cancelled_leaves_no_process_at_work() -> None:
    async with readers() as pool:
        task = asyncio.create_task(read(pool, SLOW))
        await until(count, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(count, 0)
        assert await read(pool, b"<p>next") == "next"


async def test_a_process_without_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "IDLE_S", 0.1)

    async with readers() as pool:
        await read(pool, b"<p>one")
        await until(count, 0)
        assert await read(pool, b"<p>two") == "two"


async def test_the_event_loop_goes_on_while_documents_are_read() -> None:
    async with readers() as pool:
        await asyncio.gather(*(read(pool, b"<p>warm", owner) for owner in (ANN, EVE)))
        work = asyncio.gather(*(read(pool, SLOW[:400_000], owner) for owner in (ANN, EVE)))
        longest, last = 0.0, time.thread_time()
        while not work.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()
        assert await work == ["x\n\n" * 33 + "x"] * 2
        assert longest < 0.1


async def test_a_document_is_loaded_when_it_is_its_turn() -> None:
    loaded: list[int] = []

    async def job(number: int) -> ExtractText:
        loaded.append(number)
        return ExtractText(html=True, limit=1, content=SLOW)

    async with readers() as pool:
        tasks = [asyncio.create_task(pool.read(ANN, lambda number=number: job(number))) for number in range(5)]
        await until(count, 1)
        assert loaded == [0]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_document_waits_for_others_and_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "QUEUE_TIMEOUT_S", 0.05)

    async with readers() as pool:
        first = asyncio.create_task(read(pool, SLOW))
        await until(count, 1)
        with pytest.raises(UnreadableDocument, match="other documents kept the server busy; try again later"):
            await read(pool, b"<p>x")
        assert not first.done()
        first.cancel()


PARENT = """
import asyncio
from palaver.knowledge.protocol import ExtractText
from palaver.knowledge.pool import ReaderPool

async def main():
    pool = ReaderPool()
    async def job():
        return ExtractText(html=True, limit=1, content=CONTENT)
    reading = asyncio.create_task(pool.read((1, 1), job))
    while not pool._all:
        await asyncio.sleep(0.01)
    if not BUSY:
        await reading
    print(*(process._process.pid for process in pool._all), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_process_dies_with_its_parent_however_that_ends(*, busy: bool) -> None:
    content = "b'<p>x' * 2_000_000" if busy else "b'<p>x'"
    code = PARENT.replace("CONTENT", content).replace("BUSY", str(busy))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
        child.wait(5)
