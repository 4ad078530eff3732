"""Writing live runs to the store: growing text periodically, ends immediately.

What a message has grown by since its last save is stored as a *piece*, so that the bytes written are proportional to
the text produced. A short answer is stored whole when it ends; a long one consists of its pieces, which are folded
later. Writes of many runs are batched into statements bounded by bytes. Ends go first, taking applications in turn.

A rejected write is distinguished from an unavailable database: a rejected batch is split, down to the one message that
cannot be stored, which ends *failed*; a batch that does not reach the database is retried until it does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
import structlog

from palaver.core.events import Cursor, Draft
from palaver.core.ports.store import Growth, RunRepository, RunResult
from palaver.core.problems import Internal, Problem, Unstorable
from palaver.core.types import AnyPart, RunEnded, Status, Text, Thinking, ToolCall, ToolResult, clean

SAVE_INTERVAL_S = 1.0
"""Seconds between two saves of a growing message."""
FIRST_SAVE_S = 0.25
"""Seconds until the first save of a growing message."""
READ_ELSEWHERE_INTERVAL_S = 0.1
"""Seconds between two saves of a growing message that other processes' readers follow, and between two rounds of saves
in general: the messages that are due in a round share statements."""
PIECE_CHARACTERS = 32_768
"""Maximum characters of text per piece."""
BATCH_BYTES = 256 * 1024
"""Maximum bytes per statement, unless a single message is larger."""
LONG_BYTES = 16 * 1024
"""Answers larger than this, in bytes, are stored as pieces."""
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
    saved: Cursor
    saved_size: int
    """The draft's size when it was last saved."""
    saved_at: float | None
    unstorable: bool

    @property
    def conversation(self) -> int: ...

    def has_reader_elsewhere(self, now: float) -> bool: ...


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
        self,
        store: RunRepository,
        *,
        worker: Callable[[], int],
        settled: Callable[[PendingEnd], None],
        may_start: Callable[[int], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._settled = settled
        self._may_start = may_start
        self._grown: set[WritableRun] = set()
        self._short = _EndQueue()
        self._long = _EndQueue()
        self._failures = 0
        """Consecutive saves for which the database was unavailable."""
        self._flushes: list[tuple[WritableRun, asyncio.Future[None]]] = []
        self._pending = asyncio.Event()
        """Set when there is something to write."""
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Start writing; needs a running event loop."""
        self._task = asyncio.create_task(self._write())
        self._task.add_done_callback(_critical)

    def schedule_save(self, live: WritableRun, *, urgent: bool = False) -> None:
        """Schedule a save; with ``urgent``, in the next round."""
        if urgent:
            live.saved_at = float("-inf")
        elif live.saved_at is None:
            live.saved_at = asyncio.get_running_loop().time() - SAVE_INTERVAL_S + FIRST_SAVE_S
        if not self._grown:
            self._pending.set()
        self._grown.add(live)

    def store_end(self, live: WritableRun, ended: RunEnded) -> asyncio.Future[bool]:
        """Store the end of a run. The future resolves to whether it was stored."""
        self._grown.discard(live)
        ending = PendingEnd(live, ended, asyncio.get_running_loop().create_future())
        if self._closed:
            ending.stored.set_result(False)
        else:
            (self._long if _is_long(live) else self._short).add(ending)
            self._pending.set()
        return ending.stored

    async def flush(self, live: WritableRun) -> None:
        """Wait until everything that the run has written so far is stored, or found unstorable."""
        if not _is_behind(live) or live.unstorable:
            return
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append((live, stored))
        self._pending.set()
        await stored

    async def retry(self, write: Callable[[], Awaitable[T]]) -> T:
        """Retry ``write`` until the database accepts or rejects it. Raises ``Unstorable`` if it rejects it."""
        attempt = 0
        while True:
            try:
                return await write()
            except Unstorable:
                raise
            except Problem as problem:
                pause = _retry_delay(attempt)
                attempt += 1
                log.warning("could not store runs", problem=problem.to_dict(), again_in=pause)
                await asyncio.sleep(pause)

    async def close(self, within: float) -> None:
        """Stop, and abandon pending writes. Takes at most ``within`` seconds, even if the database hangs."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=within)
        for queue in (self._short, self._long):
            for ending in (*queue.in_progress, *queue.queued):
                if not ending.stored.done():
                    ending.stored.set_result(False)
            queue.clear()

    async def _write(self) -> None:
        """One statement at a time, so that a message's pieces are stored in order and before its end. Short ends, runs
        that wait for their flush, and long ends take turns; growth comes after them."""
        loop = asyncio.get_running_loop()
        next_round = loop.time()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_round if self._grown else None):
                    await self._pending.wait()
            self._pending.clear()
            while self._has_urgent() or (self._grown and loop.time() >= next_round):
                if batch := self._short.next():
                    await self._store_batch(batch, [_result(ending) for ending in batch])
                    self._short.in_progress = ()
                await self._advance_flushes()
                await self._advance_long_ends()
                if loop.time() >= next_round and await self._save_growth():
                    next_round = loop.time() + READ_ELSEWHERE_INTERVAL_S

    def _has_urgent(self) -> bool:
        return bool(self._short or self._long or self._flushes)

    async def _advance_flushes(self) -> None:
        """Save one batch of the runs that wait for their flush."""
        await self._save_next([live for live, _ in self._flushes])
        waiting, self._flushes = self._flushes, []
        for live, stored in waiting:
            if _is_behind(live) and not live.unstorable:
                self._flushes.append((live, stored))
            elif not stored.done():
                stored.set_result(None)

    async def _advance_long_ends(self) -> None:
        """Save one batch of the text of long answers that have ended, or, once all of it is saved, their ends."""
        batch = self._long.in_progress or self._long.next()
        if batch and not await self._save_next([ending.live for ending in batch]):
            await self._store_batch(batch, [_result(ending) for ending in batch])
            self._long.in_progress = ()

    async def _save_next(self, runs: Sequence[WritableRun]) -> bool:
        """Save one batch of what the runs have written. Returns False if nothing is left to save. While the database
        is unavailable, waits until it may be tried again."""
        behind = deque(live for live in runs if _is_behind(live) and not live.unstorable)
        if not behind:
            return False
        if await self._save(_next_batch(behind)):
            self._failures = 0
        else:
            await asyncio.sleep(_retry_delay(self._failures))
            self._failures += 1
        return True

    # Growth ---------------------------------------------------------------------------------------------------------

    async def _save_growth(self) -> bool:
        """Save messages that are due: at least one batch, and more until a run ends. Returns False if some are left for
        the next call; if the database is unavailable, they wait for the next round."""
        now = asyncio.get_running_loop().time()
        due = deque(live for live in self._grown if _is_due(live, now) and _is_behind(live))
        notified = [live.run for live in due if live.has_reader_elsewhere(now)]
        while due:
            batch = _next_batch(due)
            if not await self._save(batch):
                return True
            due.extend(live for live in batch if _is_behind(live) and live in self._grown)
            if self._has_urgent():
                break
        await self._notify(notified)
        return not due

    async def _notify(self, runs: Sequence[int]) -> None:
        """Tell readers in other processes that more of ``runs`` is stored. Without it, they find out by polling."""
        if runs:
            with suppress(Problem):
                await self._store.notify_growth(runs)

    async def _save(self, runs: Sequence[WritableRun]) -> bool:
        """Store a piece of each in one statement. Returns False only if the database is unavailable; a rejected write
        returns True."""
        pieces = [_next_piece(live) for live in runs]
        try:
            await self._store.append([piece.growth for piece in pieces])
        except Unstorable as problem:
            if len(runs) > 1:
                half = len(runs) // 2
                return await self._save(runs[:half]) and await self._save(runs[half:])
            runs[0].unstorable = True  # its end is still attempted
            self._grown.discard(runs[0])
            log.warning("a growing message cannot be stored", run=runs[0].uid.hex, problem=problem.to_dict())
            return True
        except Problem as problem:  # the text is still in memory: a later round saves it
            log.warning("could not save growing messages", runs=len(runs), problem=problem.to_dict())
            return False
        now = asyncio.get_running_loop().time()
        for piece in pieces:
            piece.mark_saved(now)
            if not _is_behind(piece.live):
                self._grown.discard(piece.live)
        return True

    # Ends -----------------------------------------------------------------------------------------------------------

    async def _store_batch(self, batch: Sequence[PendingEnd], results: Sequence[RunResult]) -> None:
        try:
            startable = await self.retry(lambda: self._store.finish(results, self._worker()))
        except Unstorable as problem:
            if len(batch) == 1:
                await self._store_failure(batch[0], results[0], problem)
                return
            half = len(batch) // 2
            await self._store_batch(batch[:half], results[:half])
            await self._store_batch(batch[half:], results[half:])
            return
        await self._settle(batch, startable)

    async def _store_failure(self, ending: PendingEnd, result: RunResult, refusal: Unstorable) -> None:
        """Store an answer that the database rejects as *failed*, with as much of its content as can be stored."""
        log.error("an answer cannot be stored", run=ending.live.uid.hex, problem=refusal.to_dict())
        problem = Internal(reason="unforeseen", detail="the answer could not be stored")
        ending.ended = RunEnded(status=Status.FAILED, reason="error", problem=problem, at=result.ended.at)
        for parts in (tuple(_plain(part) for part in ending.live.draft.parts()), ()):
            failure = msgspec.structs.replace(result, parts=parts, ended=ending.ended)
            try:
                startable = await self.retry(partial(self._store.finish, [failure], self._worker()))
            except Unstorable:
                continue
            await self._settle([ending], startable)
            return
        await self._settle([ending], ())

    async def _settle(self, batch: Sequence[PendingEnd], startable: set[int] | tuple[()]) -> None:
        for ending in batch:
            self._settled(ending)
            ending.stored.set_result(True)
        for run in startable:
            self._may_start(run)
        now = asyncio.get_running_loop().time()
        await self._notify([ending.live.run for ending in batch if ending.live.has_reader_elsewhere(now)])


@dataclass(slots=True, eq=False)
class _Piece:
    """The next piece of a run, and the state of the run once it is saved."""

    live: WritableRun
    growth: Growth
    end: Cursor

    def mark_saved(self, now: float) -> None:
        self.live.saved = self.end
        self.live.saved_size += self.growth.size
        self.live.saved_at = now


def _next_piece(live: WritableRun) -> _Piece:
    end = live.saved.copy()
    piece = live.draft.growth(end, PIECE_CHARACTERS)
    growth = Growth(app=live.app, conversation=live.conversation, run=live.run, piece=piece, size=_growth_bytes(live))
    return _Piece(live, growth, end)


def _result(ending: PendingEnd) -> RunResult:
    live = ending.live
    as_pieces = _is_long(live) and not live.unstorable
    return RunResult(
        app=live.app,
        run=live.run,
        conversation=live.conversation,
        parts=None if as_pieces else live.draft.parts(),
        ended=ending.ended,
        size=0 if as_pieces else live.draft.size,
    )


class _EndQueue:
    """Ends to be stored, one batch at a time, taking applications in turn."""

    def __init__(self) -> None:
        self.in_progress: Sequence[PendingEnd] = ()
        self._waiting: OrderedDict[int, deque[PendingEnd]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting or self.in_progress)

    def add(self, ending: PendingEnd) -> None:
        self._waiting.setdefault(ending.live.app, deque()).append(ending)

    @property
    def queued(self) -> list[PendingEnd]:
        return [ending for endings in self._waiting.values() for ending in endings]

    def next(self) -> Sequence[PendingEnd]:
        """The next batch, of at most ``BATCH_BYTES`` bytes but at least one end; empty if none is queued."""
        batch: list[PendingEnd] = []
        budget = BATCH_BYTES
        while self._waiting:
            app, endings = next(iter(self._waiting.items()))
            size = endings[0].live.draft.size - endings[0].live.saved_size
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


def _is_due(live: WritableRun, now: float) -> bool:
    interval = READ_ELSEWHERE_INTERVAL_S if live.has_reader_elsewhere(now) else SAVE_INTERVAL_S
    return not live.unstorable and (live.saved_at is None or now - live.saved_at >= interval)


def _is_behind(live: WritableRun) -> bool:
    return live.saved.steps < live.draft.steps


def _is_long(live: WritableRun) -> bool:
    return live.draft.size > LONG_BYTES


def _next_batch(runs: deque[WritableRun]) -> list[WritableRun]:
    """Take runs whose growth fits into ``BATCH_BYTES`` bytes, but at least one."""
    batch = [runs.popleft()]
    budget = BATCH_BYTES - _growth_bytes(batch[0])
    while runs and (size := _growth_bytes(runs[0])) <= budget:
        batch.append(runs.popleft())
        budget -= size
    return batch


def _growth_bytes(live: WritableRun) -> int:
    """The approximate size of the run's next piece, in bytes."""
    size, steps = live.draft.size - live.saved_size, live.draft.steps - live.saved.steps
    return size if steps <= PIECE_CHARACTERS else size * PIECE_CHARACTERS // steps


def _retry_delay(attempt: int) -> float:
    return RETRY_DELAYS_S[min(attempt, len(RETRY_DELAYS_S) - 1)]


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
