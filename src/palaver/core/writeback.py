"""Writing live runs to the store: growing text periodically, ends immediately.

The writes of many runs are batched into statements bounded by bytes. The longer a message, the less often it is saved,
and all messages share a bounded rate, so that the bytes written stay proportional to the text produced. Ends are
stored immediately, taking applications in turn; long ones have their own queue, so that short ones need not wait.

A rejected write is distinguished from an unavailable database: a rejected batch is split, down to the one message that
cannot be stored, which ends *failed*; a batch that does not reach the database is retried until it does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

import structlog

from palaver.core.events import Draft
from palaver.core.ports.store import Checkpoint, RunRepository, RunResult
from palaver.core.problems import Internal, Problem, Unstorable
from palaver.core.types import AnyPart, RunEnded, Status, Text, Thinking, ToolCall, ToolResult, clean

SAVE_INTERVAL_S = 1.0
"""Seconds between two saves of a growing message; the first save follows within a quarter of that."""
MESSAGE_BYTES_PER_S = 64 * 1024
"""Write rate limit per growing message, in bytes per second: longer messages are saved less often."""
TOTAL_BYTES_PER_S = 4 * 1024 * 1024
"""Write rate limit for all growing messages together, in bytes per second."""
BATCH_BYTES = 256 * 1024
"""Maximum bytes per statement, unless a single message is larger."""
LONG_BYTES = 16 * 1024
"""Answers larger than this, in bytes, are assembled in a thread, and their ends use a separate queue."""
RETRY_DELAYS_S = (0.1, 0.2, 0.5, 1.0)
"""Seconds before each retry of a failed write; the last one repeats."""

log = structlog.get_logger("palaver.runs")

T = TypeVar("T")


class WritableRun(Protocol):
    """The members of a run that are needed to store it."""

    app: int
    run: int
    uid: UUID
    draft: Draft
    saved_at: float
    unstorable: bool

    @property
    def conversation(self) -> int: ...


@dataclass(slots=True, eq=False)
class PendingEnd:
    """The end of a run. ``stored`` resolves to whether it was stored; if it was not, recovery finds the run."""

    live: WritableRun
    ended: RunEnded
    stored: asyncio.Future[bool]


class WriteBack:
    """Writes drafts to the store. Calls ``settled`` for every end that is stored, and ``may_start`` for every run that
    may start as a result."""

    def __init__(
        self, store: RunRepository, *, settled: Callable[[PendingEnd], None], may_start: Callable[[int], None]
    ) -> None:
        self._store = store
        self._settled = settled
        self._may_start = may_start
        self._grown: set[WritableRun] = set()
        self._short = _EndQueue()
        self._long = _EndQueue()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="palaver-writeback")

    def start(self) -> None:
        """Start the background tasks; needs a running event loop."""
        loops = (self._save_growth(), self._store_ends(self._short), self._store_ends(self._long))
        self._tasks = [asyncio.create_task(loop) for loop in loops]
        for task in self._tasks:
            task.add_done_callback(_critical)

    def schedule_save(self, live: WritableRun, *, urgent: bool = False) -> None:
        """Schedule a save; with ``urgent``, in the next round."""
        if urgent:
            live.saved_at = float("-inf")
        self._grown.add(live)

    def store_end(self, live: WritableRun, ended: RunEnded) -> asyncio.Future[bool]:
        """Store the end of a run. The future resolves to whether it was stored."""
        self._grown.discard(live)
        ending = PendingEnd(live, ended, asyncio.get_running_loop().create_future())
        if self._closed:
            ending.stored.set_result(False)
            return ending.stored
        queue = self._long if live.draft.size > LONG_BYTES else self._short
        queue.add(ending)
        return ending.stored

    async def close(self, within: float) -> None:
        """Stop, and abandon pending writes. Takes at most ``within`` seconds, even if the database hangs."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        for queue in (self._short, self._long):
            for ending in (*queue.in_progress, *queue.queued):
                if not ending.stored.done():
                    ending.stored.set_result(False)
            queue.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Growth ---------------------------------------------------------------------------------------------------------

    async def _save_growth(self) -> None:
        loop = asyncio.get_running_loop()
        budget, last = float(TOTAL_BYTES_PER_S), loop.time()
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S / 4)
            now = loop.time()
            budget, last = min(TOTAL_BYTES_PER_S, budget + (now - last) * TOTAL_BYTES_PER_S), now
            due = [live for live in self._grown if _overdue(live, now) >= 1]
            due.sort(key=lambda live: _overdue(live, now), reverse=True)
            for batch in _batches(due, lambda live: live.draft.size):
                if budget <= 0:
                    break
                budget -= sum(live.draft.size for live in batch)
                if not await self._save(batch):
                    break

    async def _save(self, batch: Sequence[WritableRun]) -> bool:
        """Save a batch. Returns False only if the database is unavailable; a rejected write returns True."""
        self._grown.difference_update(batch)
        try:
            await self._store.save([await self._checkpoint(live) for live in batch])
        except Unstorable as problem:
            if len(batch) > 1:
                half = len(batch) // 2
                return await self._save(batch[:half]) and await self._save(batch[half:])
            batch[0].unstorable = True  # its end is still attempted
            log.warning("a growing message cannot be stored", run=batch[0].uid.hex, problem=problem.to_dict())
        except Problem as problem:  # the text is still in memory: a later round saves it
            self._grown.update(batch)
            log.warning("could not save growing messages", runs=len(batch), problem=problem.to_dict())
            return False
        now = asyncio.get_running_loop().time()
        for live in batch:
            live.saved_at = now
        return True

    async def _checkpoint(self, live: WritableRun) -> Checkpoint:
        return Checkpoint(
            app=live.app,
            conversation=live.conversation,
            run=live.run,
            parts=await self._parts(live.draft),
            size=live.draft.size,
        )

    async def _parts(self, draft: Draft) -> tuple[AnyPart, ...]:
        if draft.size <= LONG_BYTES:
            return draft.parts()
        return await asyncio.get_running_loop().run_in_executor(self._threads, draft.snapshot().parts)

    # Ends -----------------------------------------------------------------------------------------------------------

    async def _store_ends(self, queue: _EndQueue) -> None:
        while True:
            await queue.available.wait()
            queue.available.clear()
            while batch := queue.next():
                await self._store_batch(batch, [await self._result(ending) for ending in batch])
                queue.in_progress = ()

    async def _store_batch(self, batch: Sequence[PendingEnd], results: Sequence[RunResult]) -> None:
        try:
            startable = await self._finish(results)
        except Unstorable as problem:
            if len(batch) == 1:
                await self._store_failure(batch[0], results[0], problem)
                return
            half = len(batch) // 2
            await self._store_batch(batch[:half], results[:half])
            await self._store_batch(batch[half:], results[half:])
            return
        self._settle(batch, startable)

    async def _finish(self, results: Sequence[RunResult]) -> set[int]:
        """Retry until the database accepts or rejects the write. Raises ``Unstorable`` if it rejects it."""
        attempt = 0
        while True:
            try:
                return await self._store.finish(results)
            except Unstorable:
                raise
            except Problem as problem:
                pause = RETRY_DELAYS_S[min(attempt, len(RETRY_DELAYS_S) - 1)]
                attempt += 1
                log.warning("could not store ends", runs=len(results), problem=problem.to_dict(), again_in=pause)
                await asyncio.sleep(pause)

    async def _store_failure(self, ending: PendingEnd, result: RunResult, refusal: Unstorable) -> None:
        """Store an answer that the database rejects as *failed*, with as much of its content as can be stored."""
        log.error("an answer cannot be stored", run=ending.live.uid.hex, problem=refusal.to_dict())
        problem = Internal(reason="unforeseen", detail="the answer could not be stored")
        ending.ended = RunEnded(status=Status.FAILED, reason="error", problem=problem, at=result.ended.at)
        for parts in (tuple(_plain(part) for part in result.parts), ()):
            failure = RunResult(
                app=result.app, run=result.run, conversation=result.conversation, parts=parts, ended=ending.ended
            )
            try:
                startable = await self._finish([failure])
            except Unstorable:
                continue
            self._settle([ending], startable)
            return
        self._settle([ending], ())

    def _settle(self, batch: Sequence[PendingEnd], startable: set[int] | tuple[()]) -> None:
        for ending in batch:
            self._settled(ending)
            ending.stored.set_result(True)
        for run in startable:
            self._may_start(run)

    async def _result(self, ending: PendingEnd) -> RunResult:
        live = ending.live
        return RunResult(
            app=live.app,
            run=live.run,
            conversation=live.conversation,
            parts=await self._parts(live.draft),
            ended=ending.ended,
            size=live.draft.size,
        )


class _EndQueue:
    """Ends to be stored, one batch at a time, taking applications in turn."""

    def __init__(self) -> None:
        self.in_progress: Sequence[PendingEnd] = ()
        self.available = asyncio.Event()
        self._waiting: OrderedDict[int, deque[PendingEnd]] = OrderedDict()

    def add(self, ending: PendingEnd) -> None:
        self._waiting.setdefault(ending.live.app, deque()).append(ending)
        self.available.set()

    @property
    def queued(self) -> list[PendingEnd]:
        return [ending for endings in self._waiting.values() for ending in endings]

    def next(self) -> Sequence[PendingEnd]:
        """The next batch, of at most ``BATCH_BYTES`` bytes but at least one end; empty if none is queued."""
        batch: list[PendingEnd] = []
        budget = BATCH_BYTES
        while self._waiting:
            app, endings = next(iter(self._waiting.items()))
            size = endings[0].live.draft.size
            if batch and size > budget:
                break
            batch.append(endings.popleft())
            budget -= size
            self._waiting.move_to_end(app)
            if not endings:
                del self._waiting[app]
        self.in_progress = batch
        return batch

    def clear(self) -> None:
        self._waiting.clear()


def _overdue(live: WritableRun, now: float) -> float:
    """The time since the last save, as a fraction of the save interval; 0 for a message that cannot be stored."""
    if live.unstorable:
        return 0
    return (now - live.saved_at) / (SAVE_INTERVAL_S * max(1.0, live.draft.size / MESSAGE_BYTES_PER_S))


def _batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """``items`` in order, in batches of at most ``BATCH_BYTES`` bytes but at least one item."""
    batch: list[T] = []
    budget = BATCH_BYTES
    for item in items:
        if batch and size(item) > budget:
            yield batch
            batch, budget = [], BATCH_BYTES
        batch.append(item)
        budget -= size(item)
    if batch:
        yield batch


def _plain(part: AnyPart) -> AnyPart:
    """``part`` reduced to its text, without provider data, arguments and tool data."""
    match part:
        case Text(text=text):
            return Text(text=clean(text))
        case Thinking(text=text):
            return Thinking(text=clean(text))
        case ToolCall():
            return ToolCall(call_id=clean(part.call_id), name=clean(part.name), arguments={}, at=part.at)
        case ToolResult():
            content = clean(part.content)
            return ToolResult(
                call_id=clean(part.call_id), name=clean(part.name), content=content, error=part.error, at=part.at
            )
        case _:
            return part


def _critical(task: asyncio.Task[None]) -> None:
    """Log the failure of a background task; they run as long as the process, and it would go unnoticed otherwise."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("no run is stored any more, restart this process", exc_info=error)
