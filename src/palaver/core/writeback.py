"""What live runs have to store: growing text from time to time, ends at once.

What many runs have to store goes out together, in statements bounded by bytes. A message is saved the less often the
longer it is, and all messages together at a bounded rate, so that what is written stays in proportion to what was
said. Ends are stored at once, long ones beside the short ones, which do not wait for them, and of each application in
turn.

What PostgreSQL refuses is told from PostgreSQL being away: a batch that it refuses is split, down to the one message
that cannot be stored, which ends *failed*; a batch that does not reach it is tried until it does.
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
"""Seconds between two saves of a growing message; the first one comes within a quarter of that."""
MESSAGE_BYTES_PER_S = 64 * 1024
"""Bytes a second that are written for one message: a longer one is saved less often."""
TOTAL_BYTES_PER_S = 4 * 1024 * 1024
"""Bytes a second that are written for all growing messages."""
BATCH_BYTES = 256 * 1024
"""Bytes of a statement, unless a single message has more."""
LONG_BYTES = 16 * 1024
"""Bytes of an answer whose end is stored beside the others', and which is put together in a thread."""
RETRY_DELAYS_S = (0.1, 0.2, 0.5, 1.0)
"""Seconds to wait before a failed save is tried again; the last one repeats."""

log = structlog.get_logger("palaver.runs")

T = TypeVar("T")


class WritableRun(Protocol):
    """A run as far as it is stored."""

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
    """The end of a run. ``stored`` is done with whether it was stored; without, recovery finds the run."""

    writing: WritableRun
    ended: RunEnded
    stored: asyncio.Future[bool]


class WriteBack:
    """Keeps the store up with the drafts. ``settled`` is told of every end that is stored, and of the runs that may
    start by it."""

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

    def open(self) -> None:
        """Begin; needs a running loop."""
        work = (self._save_growth(), self._store_ends(self._short), self._store_ends(self._long))
        self._tasks = [asyncio.create_task(one) for one in work]
        for task in self._tasks:
            task.add_done_callback(_critical)

    def changed(self, writing: WritableRun, *, urgent: bool = False) -> None:
        """There is something to save; ``urgent``: in the next round."""
        if urgent:
            writing.saved_at = float("-inf")
        self._grown.add(writing)

    def end(self, writing: WritableRun, ended: RunEnded) -> asyncio.Future[bool]:
        """Store the end of a run; the future says when that is done."""
        self._grown.discard(writing)
        ending = PendingEnd(writing, ended, asyncio.get_running_loop().create_future())
        if self._closed:
            ending.stored.set_result(False)
            return ending.stored
        lane = self._long if writing.draft.size > LONG_BYTES else self._short
        lane.add(ending)
        return ending.stored

    async def close(self, within: float) -> None:
        """Give up what is not stored, in ``within`` seconds at most, whatever the database does."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        for lane in (self._short, self._long):
            for ending in (*lane.stores, *lane.endings):
                if not ending.stored.done():
                    ending.stored.set_result(False)
            lane.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # Growth ---------------------------------------------------------------------------------------------------------

    async def _save_growth(self) -> None:
        loop = asyncio.get_running_loop()
        room, last = float(TOTAL_BYTES_PER_S), loop.time()
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S / 4)
            now = loop.time()
            room, last = min(TOTAL_BYTES_PER_S, room + (now - last) * TOTAL_BYTES_PER_S), now
            due = [writing for writing in self._grown if _overdue(writing, now) >= 1]
            due.sort(key=lambda writing: _overdue(writing, now), reverse=True)
            for batch in _batches(due, lambda writing: writing.draft.size):
                if room <= 0:
                    break
                room -= sum(writing.draft.size for writing in batch)
                if not await self._save(batch):
                    break

    async def _save(self, batch: Sequence[WritableRun]) -> bool:
        """Whether the database took it, or refused it; false when it is away."""
        self._grown.difference_update(batch)
        try:
            await self._store.save([await self._growth(writing) for writing in batch])
        except Unstorable as problem:
            if len(batch) > 1:
                half = len(batch) // 2
                return await self._save(batch[:half]) and await self._save(batch[half:])
            batch[0].unstorable = True  # its end is tried all the same
            log.warning("a growing message cannot be stored", run=batch[0].uid.hex, problem=problem.record())
        except Problem as problem:  # the text is in memory: a later round saves it
            self._grown.update(batch)
            log.warning("could not save growing messages", runs=len(batch), problem=problem.record())
            return False
        now = asyncio.get_running_loop().time()
        for writing in batch:
            writing.saved_at = now
        return True

    async def _growth(self, writing: WritableRun) -> Checkpoint:
        return Checkpoint(
            app=writing.app,
            conversation=writing.conversation,
            run=writing.run,
            parts=await self._parts(writing.draft),
            size=writing.draft.size,
        )

    async def _parts(self, draft: Draft) -> tuple[AnyPart, ...]:
        if draft.size <= LONG_BYTES:
            return draft.parts()
        return await asyncio.get_running_loop().run_in_executor(self._threads, draft.snapshot().parts)

    # Ends -----------------------------------------------------------------------------------------------------------

    async def _store_ends(self, lane: _EndQueue) -> None:
        while True:
            await lane.something.wait()
            lane.something.clear()
            while batch := lane.next():
                await self._store_batch(batch, [await self._outcome(ending) for ending in batch])
                lane.stores = ()

    async def _store_batch(self, batch: Sequence[PendingEnd], outcomes: Sequence[RunResult]) -> None:
        try:
            startable = await self._until_reached(outcomes)
        except Unstorable as problem:
            if len(batch) == 1:
                await self._store_failure(batch[0], outcomes[0], problem)
                return
            half = len(batch) // 2
            await self._store_batch(batch[:half], outcomes[:half])
            await self._store_batch(batch[half:], outcomes[half:])
            return
        self._settle(batch, startable)

    async def _until_reached(self, outcomes: Sequence[RunResult]) -> set[int]:
        """Try until the database has taken it or refused it. Raises ``Unstorable``."""
        attempt = 0
        while True:
            try:
                return await self._store.finish(outcomes)
            except Unstorable:
                raise
            except Problem as problem:
                pause = RETRY_DELAYS_S[min(attempt, len(RETRY_DELAYS_S) - 1)]
                attempt += 1
                log.warning("could not store ends", runs=len(outcomes), problem=problem.record(), again_in=pause)
                await asyncio.sleep(pause)

    async def _store_failure(self, ending: PendingEnd, outcome: RunResult, refusal: Unstorable) -> None:
        """The end of an answer that the database refuses: *failed*, with as much of it as can be stored."""
        log.error("an answer cannot be stored", run=ending.writing.uid.hex, problem=refusal.record())
        problem = Internal(reason="unforeseen", detail="the answer could not be stored")
        ending.ended = RunEnded(status=Status.FAILED, reason="error", problem=problem, at=outcome.ended.at)
        for parts in (tuple(_plain(part) for part in outcome.parts), ()):
            failure = RunResult(
                app=outcome.app, run=outcome.run, conversation=outcome.conversation, parts=parts, ended=ending.ended
            )
            try:
                startable = await self._until_reached([failure])
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

    async def _outcome(self, ending: PendingEnd) -> RunResult:
        writing = ending.writing
        return RunResult(
            app=writing.app,
            run=writing.run,
            conversation=writing.conversation,
            parts=await self._parts(writing.draft),
            ended=ending.ended,
            size=writing.draft.size,
        )


class _EndQueue:
    """Ends that are stored one batch after the other, of each application in turn."""

    def __init__(self) -> None:
        self.stores: Sequence[PendingEnd] = ()
        self.something = asyncio.Event()
        self._waiting: OrderedDict[int, deque[PendingEnd]] = OrderedDict()

    def add(self, ending: PendingEnd) -> None:
        self._waiting.setdefault(ending.writing.app, deque()).append(ending)
        self.something.set()

    @property
    def endings(self) -> list[PendingEnd]:
        return [ending for endings in self._waiting.values() for ending in endings]

    def next(self) -> Sequence[PendingEnd]:
        """As many as have ``BATCH_BYTES`` bytes together, at least one where there is any."""
        batch: list[PendingEnd] = []
        room = BATCH_BYTES
        while self._waiting:
            app, endings = next(iter(self._waiting.items()))
            size = endings[0].writing.draft.size
            if batch and size > room:
                break
            batch.append(endings.popleft())
            room -= size
            self._waiting.move_to_end(app)
            if not endings:
                del self._waiting[app]
        self.stores = batch
        return batch

    def clear(self) -> None:
        self._waiting.clear()


def _overdue(writing: WritableRun, now: float) -> float:
    """How much of the time that may pass between two saves has passed; 0 for what cannot be saved."""
    if writing.unstorable:
        return 0
    return (now - writing.saved_at) / (SAVE_INTERVAL_S * max(1.0, writing.draft.size / MESSAGE_BYTES_PER_S))


def _batches(things: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """``things`` in their order, as many at a time as have ``BATCH_BYTES`` bytes together, at least one."""
    batch: list[T] = []
    room = BATCH_BYTES
    for thing in things:
        if batch and size(thing) > room:
            yield batch
            batch, room = [], BATCH_BYTES
        batch.append(thing)
        room -= size(thing)
    if batch:
        yield batch


def _plain(part: AnyPart) -> AnyPart:
    """``part`` without what only programs read: its words, in the same place."""
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
    """These tasks work as long as the process does; one that ends is a fault nobody would see otherwise."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("no run is stored any more, restart this process", exc_info=error)
