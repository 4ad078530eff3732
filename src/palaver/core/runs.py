"""Live runs: each is a task of the server, independent of the request that started it.

A run writes a ``Draft``; any number of readers follow it at their own pace, each with a cursor and no queue. Writes of
many runs are batched into one statement: growing text about once a second, ends immediately. A reader sees the end
only after it is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
import structlog

from palaver.core.disconnect import cancel_on_disconnect
from palaver.core.events import Draft, Event, PartAdded
from palaver.core.fair_semaphore import set_owner
from palaver.core.observer import NullObserver, Observer, RunReport
from palaver.core.ports.store import Store
from palaver.core.problems import Busy, Internal, Problem, Upstream
from palaver.core.slots import RunSlots
from palaver.core.turn import TurnContext, TurnServices, UsageMeter, run_turn
from palaver.core.types import Message, RunEnded, Status
from palaver.core.writeback import PendingEnd, WriteBack

MAX_EARLY_STARTS = 10_000
"""Maximum number of start notifications remembered for runs not yet registered here."""
MAX_READ_CHARACTERS = 16_384
"""Characters returned per ``take``; bounds the memory that a stalled reader occupies."""
WAKE_BATCH = 32
"""Readers of a run that are woken in one iteration of the event loop."""
READER_COST_S = 0.0001
"""Minimum seconds between two wake rounds, per reader, for runs with more than ``WAKE_BATCH`` readers."""
POLL_INTERVAL_S = 0.5
"""Seconds between polls of a run that another process writes, if no notification arrives."""
REMOTE_READER_TTL_S = 3.0
"""Seconds for which a run counts as read after another process has reported a reader."""
NOTIFY_INTERVAL_S = 1.0
"""Seconds between two such reports."""
ABANDON_GRACE_S = 4.0
"""Seconds after a new message within which a run is still stopped as abandoned when its last reader leaves: a closed
connection may be noticed only after the message that follows it."""
log = structlog.get_logger("palaver.runs")


class RunReader:
    """One reader of a run. ``take`` returns the events not yet seen, long texts in chunks; ``wait`` returns when there
    may be more."""

    __slots__ = ("_ahead", "_cursor", "_draft", "_feed", "_waiting", "_woken")

    def __init__(self, feed: Feed, after: int = 0) -> None:
        self._feed = feed
        self._draft = feed.draft
        self._cursor = feed.draft.cursor(after)
        # The reader may be ahead of this process: it saw text that another process has not saved yet.
        self._ahead = after if after > feed.draft.steps and feed.draft.ended is None else 0
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False
        feed.readers.add(self)

    @property
    def cursor(self) -> int:
        return max(self._cursor.steps, self._ahead)

    @property
    def done(self) -> bool:
        """Whether all events have been taken and no more will follow."""
        return self._draft.at_end(self._cursor)

    def take(self) -> list[Event]:
        if self._ahead:
            if self._draft.steps < self._ahead and self._draft.ended is None:
                return []
            # An interrupted run may end before the reader's cursor: report its end anyway.
            self._cursor = self._draft.cursor(min(self._ahead, self._draft.steps - (self._draft.ended is not None)))
            self._ahead = 0
        return self._draft.read(self._cursor, MAX_READ_CHARACTERS)

    async def wait(self) -> None:
        """Wait until the run progresses or ``wake`` is called; return at once if either has happened already."""
        if not self._woken and self._draft.steps <= max(self._cursor.steps, self._ahead):
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
            self._waiting = None
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        self._feed.readers.discard(self)


async def read_to_end(reader: RunReader, limit_s: float) -> list[Event] | None:
    """All events from the reader's cursor to the end, or ``None`` after ``limit_s`` seconds. Raises
    ``CallerDisconnected`` if the caller disconnects. The run continues in either case."""
    try:
        async with asyncio.timeout(limit_s), cancel_on_disconnect():
            return await _read_to_end(reader)
    except TimeoutError:
        return None
    finally:
        reader.close()


async def _read_to_end(reader: RunReader) -> list[Event]:
    events: list[Event] = []
    while not reader.done:
        await reader.wait()
        events += reader.take()
    return events


class Feed:
    """A draft and its readers."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.readers: set[RunReader] = set()
        self._wake_queue = WakeQueue()

    def notify_readers(self) -> None:
        if len(self.readers) > WAKE_BATCH:
            self._wake_queue.schedule(self)
            return
        for reader in self.readers:
            reader.wake()


class WakeQueue:
    """Wakes many readers in batches, so that other tasks run in between. The more readers, the less often a round
    starts, and the more each of them reads at once. It holds no reference to the feed: a reference cycle would keep
    every answer in memory until the garbage collector runs."""

    __slots__ = ("_again", "_pending", "_started")

    def __init__(self) -> None:
        self._pending: list[RunReader] | None = None
        """The readers still to be woken; ``None`` between two rounds."""
        self._again = False
        self._started = float("-inf")

    def schedule(self, feed: Feed) -> None:
        """Wake all readers, by the end of the next round at the latest."""
        self._again = True
        if self._pending is None:
            self._pending = []
            loop = asyncio.get_running_loop()
            pause = self._started + len(feed.readers) * READER_COST_S - loop.time()
            loop.call_later(max(0.0, pause), self._start_round, feed)

    def _start_round(self, feed: Feed) -> None:
        self._again = False
        self._started = asyncio.get_running_loop().time()
        self._pending = list(feed.readers)
        self._wake_batch(feed)

    def _wake_batch(self, feed: Feed) -> None:
        assert self._pending is not None
        batch, self._pending = self._pending[-WAKE_BATCH:], self._pending[:-WAKE_BATCH]
        for reader in batch:
            reader.wake()
        if self._pending:
            asyncio.get_running_loop().call_soon(self._wake_batch, feed)
            return
        self._pending = None
        if self._again:
            self.schedule(feed)


class ActiveRun(Feed):
    """A live run of this process."""

    def __init__(
        self, *, app_id: int, run_id: int, uid: UUID, context: TurnContext, credential: int | None = None
    ) -> None:
        super().__init__(Draft())
        self.app = app_id
        self.run = run_id
        self.uid = uid
        self.context = context
        self.credential = credential
        """The row id of the credential whose slot it occupies."""
        self.task: asyncio.Task[None] | None = None
        self.unstorable = False
        self.saved = self.draft.cursor(0)
        self.saved_size = 0
        self.saved_at: float | None = None
        self.meter = UsageMeter()
        self.ending: RunEnded | None = None
        """The outcome imposed from outside: stopped or interrupted."""
        self.stored = asyncio.Event()
        """Set once the end is stored."""
        self.read_elsewhere_until = float("-inf")
        self.abandoning: asyncio.Task[None] | None = None
        """Stops the run once nobody reads it."""

    def has_reader(self, now: float) -> bool:
        return bool(self.readers) or self.has_reader_elsewhere(now)

    def has_reader_elsewhere(self, now: float) -> bool:
        return now < self.read_elsewhere_until

    @property
    def conversation(self) -> int:
        return self.context.conversation


class _RemoteRun(Feed):
    """A live run of another process that is read here."""

    def __init__(self, message: Message) -> None:
        super().__init__(Draft(message.parts))
        self.message = message
        self.grown = asyncio.Event()
        """Set when the other process has stored more of it."""
        self.task: asyncio.Task[None] | None = None


class RunRegistry:
    """The live runs of this process; starts, stops and stores them."""

    def __init__(
        self,
        ports: TurnServices,
        *,
        worker: Callable[[], int],
        timeout: float,
        max_answer_bytes: int,
        max_live_bytes: int,
        slots: RunSlots,
    ) -> None:
        self._ports = ports
        self._max_answer_bytes = max_answer_bytes
        self._max_live_bytes = max_live_bytes
        self.slots = slots
        self._draft_bytes = 0
        """Memory used by the live runs' drafts, in bytes."""
        self._store: Store = ports.store
        self._timeout = timeout
        self.worker = worker
        self._live: dict[UUID, ActiveRun] = {}
        self._by_id: dict[int, ActiveRun] = {}
        self._past: WeakValueDictionary[tuple[int, UUID], Feed] = WeakValueDictionary()
        """Ended runs that are being read: all their readers share one copy."""
        self._remote: dict[UUID, _RemoteRun] = {}
        self._early: OrderedDict[int, None] = OrderedDict()
        """Runs that may start but are unknown here: another process's, or about to be added."""
        self._write_back = WriteBack(self._store.runs, settled=self._settled, may_start=self.allow_start)
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self.closing = False
        self._closed = False
        self.observer: Observer = NullObserver()

    def __len__(self) -> int:
        return len(self._live)

    @property
    def waiting(self) -> int:
        """The number of live runs queued behind another one."""
        return sum(live.task is None for live in self._live.values())

    def contains(self, run_id: int) -> bool:
        """Whether this process has a live run with that id."""
        return run_id in self._by_id

    def get(self, run_uid: UUID) -> ActiveRun | None:
        """The run, if it is live in this process."""
        return self._live.get(run_uid)

    def start(self) -> None:
        """Start storing runs; needs a running event loop."""
        self._write_back.start()

    # Running --------------------------------------------------------------------------------------------------------

    def add(self, live: ActiveRun, *, start: bool) -> None:
        """Register a stored run. It starts now or, with ``start=False``, when ``may_start`` is called."""
        self._live[live.uid] = live
        self._by_id[live.run] = live
        self._idle.clear()
        if start or live.run in self._early:
            self._start(live)

    def allow_start(self, run_id: int) -> None:
        """Start the run, which is now first in its conversation. Repeats and runs of other processes have no effect.

        The call may precede ``add``: the previous run can end after the database has stored the message but before
        this process receives the result.
        """
        live = self._by_id.get(run_id)
        if live is not None:
            self._start(live)
            return
        self._early[run_id] = None
        if len(self._early) > MAX_EARLY_STARTS:
            self._early.popitem(last=False)

    def _start(self, live: ActiveRun) -> None:
        if live.task is None:
            live.task = asyncio.create_task(self._run(live), name=f"run {live.run}")

    async def _run(self, live: ActiveRun) -> None:
        set_owner((live.app, live.context.user))
        ended: RunEnded | None = live.ending
        try:
            if ended is None:
                ended = await self._execute(live)
        except asyncio.CancelledError:
            ended = live.ending or _interrupted()
            _uncancel()
        except TimeoutError:
            ended = _failed(Internal(reason="timeout", detail=f"no end after {self._timeout:g} s"))
        except Problem as problem:
            ended = _failed(problem)
            log.warning("run failed", run=live.uid.hex, trace=live.context.trace, problem=problem.to_dict())
        except Exception as error:
            ended = _failed(Internal(reason="unforeseen", detail=type(error).__name__))
            log.exception("run failed", run=live.uid.hex, trace=live.context.trace)
        await self._end(live, ended)

    async def _execute(self, live: ActiveRun) -> RunEnded:
        async with (
            asyncio.timeout(self._timeout),
            aclosing(run_turn(live.context, self._ports, live.meter, live.draft)) as events,
        ):
            async for event in events:
                if isinstance(event, RunEnded):
                    return event
                self._apply(live, event)
                # Save a step at once: losing it costs more than losing a second of text.
                self._write_back.schedule_save(live, urgent=isinstance(event, PartAdded))
                live.notify_readers()
        raise AssertionError("a turn says how it ended")

    def _apply(self, live: ActiveRun, event: Event) -> None:
        """Raises ``Upstream`` for an answer that is too long. If all drafts together exceed the memory limit, raises
        ``Busy`` for one of the longest."""
        draft = live.draft
        before = draft.memory_bytes
        draft.apply(event)
        self._draft_bytes += draft.memory_bytes - before
        if draft.size > self._max_answer_bytes:
            raise Upstream(reason="cut", detail=f"the answer has more than {self._max_answer_bytes} bytes")
        if self._draft_bytes > self._max_live_bytes and draft.memory_bytes * len(self._live) >= self._draft_bytes:
            raise Busy(reason="overload")

    async def _end(self, live: ActiveRun, ended: RunEnded) -> None:
        """Store the end, then notify the readers. Shielded: cancellation must not interrupt this."""
        ended = msgspec.structs.replace(ended, usage=live.meter.usage, at=time.time_ns() // 1_000_000)
        stored = self._write_back.store_end(live, ended)
        while not stored.done():
            try:
                await asyncio.shield(stored)
            except asyncio.CancelledError:
                _uncancel()

    # Stopping -------------------------------------------------------------------------------------------------------

    def stop(self, run_uid: UUID) -> bool:
        """Stop a run of this process: close the connection to the model, start no further step, keep the text.
        Returns False if there is no such live run (it may have ended)."""
        live = self._live.get(run_uid)
        if live is None or live.ending is not None:
            return False
        self._finish_early(live, RunEnded(status=Status.STOPPED))
        return True

    def ids(self) -> set[int]:
        """The ids of this process's live runs."""
        return set(self._by_id)

    def stop_deleted(self, missed: set[int], before: set[int]) -> set[int]:
        """Stop the runs whose messages are missing from the database now (``missed``) and were at the last check
        (``before``): they were deleted. A run missed only once may just have ended. Returns ``missed``."""
        for run in missed & before:
            if (live := self._by_id.get(run)) is not None and self.stop(live.uid):
                log.info("stopped a run whose message is gone", run=live.uid.hex)
        return missed

    def stop_if_abandoned(self, run_id: int) -> bool:
        """Stop a run of this process if nobody reads it. Returns whether it is being stopped. A run with readers is
        stopped if the last of them leaves within ``ABANDON_GRACE_S``."""
        live = self._by_id.get(run_id)
        if live is None or live.ending is not None:
            return live is not None
        if not live.has_reader(asyncio.get_running_loop().time()):
            return self.stop(live.uid)
        if live.abandoning is None:
            live.abandoning = asyncio.create_task(self._stop_once_unread(live))
        return False

    async def _stop_once_unread(self, live: ActiveRun) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + ABANDON_GRACE_S
        while live.run in self._by_id and live.ending is None and loop.time() < until:
            if not live.has_reader(loop.time()):
                self.stop(live.uid)
            else:
                await asyncio.sleep(0.05)
        live.abandoning = None

    def mark_read_elsewhere(self, run_id: int) -> None:
        """Record another process's report that the run has a reader there."""
        live = self._by_id.get(run_id)
        if live is not None:
            live.read_elsewhere_until = asyncio.get_running_loop().time() + REMOTE_READER_TTL_S

    def _finish_early(self, live: ActiveRun, ended: RunEnded) -> None:
        live.ending = ended
        if live.task is None:
            self._start(live)
        else:
            live.task.cancel()

    async def close(self, *, drain: float, limit: float = 10.0) -> None:
        """Wait up to ``drain`` seconds for runs to end, interrupt the rest, and store everything. Whatever is not
        stored after ``limit`` more seconds (the database is unavailable) is left to recovery."""
        self.closing = True
        if self._closed:
            return
        self._closed = True
        waits = [asyncio.ensure_future(event.wait()) for event in (self._idle, self._hurry)]
        await asyncio.wait(waits, timeout=drain, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for live in list(self._live.values()):
            self._finish_early(live, _interrupted())
        try:
            await asyncio.wait_for(self._idle.wait(), limit)
        except TimeoutError:
            log.error("runs not stored at shutdown", runs=[live.uid.hex for live in self._live.values()])
            for live in self._live.values():  # release the readers: no stored end will arrive
                if live.draft.ended is None:
                    live.draft.apply(live.ending or _interrupted())
                live.notify_readers()
        abandoning = [live.abandoning for live in self._live.values() if live.abandoning is not None]
        following = [remote.task for remote in self._remote.values() if remote.task is not None]
        for task in (*abandoning, *following):
            task.cancel()
        await self._write_back.close(within=0.5)

    def skip_drain(self) -> None:
        """Stop waiting for runs to end by themselves."""
        self._hurry.set()

    # Following ------------------------------------------------------------------------------------------------------

    async def open_reader(self, answer: Message, after: int = 0) -> RunReader | None:
        """A reader of the run that writes ``answer``, in whichever process it runs, or of its stored message; ``None``
        if the message has been deleted."""
        live = self._live.get(answer.uid)
        if live is not None:
            return RunReader(live, after)
        if answer.ended is None:  # in another process, or it has ended since the answer was read
            return await self._subscribe_elsewhere(answer, after)
        name = (answer.app, answer.uid)
        feed = self._past.get(name) or self._past.setdefault(name, Feed(Draft(answer.parts, answer.ended)))
        return RunReader(feed, after)

    async def _subscribe_elsewhere(self, answer: Message, after: int) -> RunReader | None:
        current = await self._store.runs.get_answer(answer.app, answer.uid)
        if current is None or current.ended is not None:
            return None if current is None else await self.open_reader(current, after)
        if current.uid not in self._live and current.uid not in self._remote:
            await self._report_reader(current)  # first, so that it is not stopped as abandoned
        live = self._live.get(current.uid)
        return RunReader(live or self._watch(current), after)

    def _watch(self, message: Message) -> Feed:
        remote = self._remote.get(message.uid)
        if remote is None:
            remote = self._remote[message.uid] = _RemoteRun(message)
            remote.task = asyncio.create_task(self._follow(remote))
        return remote

    def on_growth(self, run_id: int) -> None:
        """Another process has stored more of a run."""
        for remote in self._remote.values():
            if remote.message.id == run_id:
                remote.grown.set()

    async def _follow(self, remote: _RemoteRun) -> None:
        """While a run of another process has readers here, copy what is stored of it, and report the readers."""
        loop = asyncio.get_running_loop()
        reported_at = loop.time()
        try:
            while remote.readers and remote.draft.ended is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await remote.grown.wait()
                remote.grown.clear()
                if reported_at <= loop.time() - NOTIFY_INTERVAL_S:
                    reported_at = loop.time()
                    await self._report_reader(remote.message)
                with suppress(Problem):
                    await self._copy_growth(remote)
        finally:
            del self._remote[remote.message.uid]

    async def _copy_growth(self, remote: _RemoteRun) -> None:
        """Copy the events of a run that were stored since the last call."""
        message, draft = remote.message, remote.draft
        growth = await self._store.runs.get_growth(message.app, message.uid, draft.steps)
        if growth.live and not growth.pieces:
            return
        if growth.live and growth.pieces[0].start == draft.steps:
            events = [event for piece in growth.pieces for event in piece.events()]
        else:
            stored = await self._store.runs.get_answer(message.app, message.uid)
            if stored is None:  # deleted: readers see it as stopped
                events = [RunEnded(status=Status.STOPPED)]
            else:
                complete = Draft(stored.parts, stored.ended)
                events = complete.read(complete.cursor(draft.steps))
        for event in events:
            draft.apply(event)
        if events:
            remote.notify_readers()

    async def _report_reader(self, message: Message) -> None:
        with suppress(Problem):
            await self._store.runs.notify_has_reader(message.id)

    # Storing --------------------------------------------------------------------------------------------------------

    def _settled(self, ending: PendingEnd) -> None:
        """After a run's end is stored: notify its readers and remove it from the live runs."""
        live = self._live[ending.live.uid]
        if live.draft.ended is None:
            live.draft.apply(ending.ended)
            live.notify_readers()
        self._draft_bytes -= live.draft.memory_bytes
        if live.credential is not None:
            self.slots.release(live.app, live.credential)
        live.stored.set()
        self._live.pop(live.uid, None)
        self._by_id.pop(live.run, None)
        if not self._live:
            self._idle.set()
        meter = live.meter
        self.observer.run_ended(
            RunReport(app=live.app, model=meter.model, ended=ending.ended, first_token_s=meter.first_token_s)
        )


def _interrupted() -> RunEnded:
    return RunEnded(status=Status.INTERRUPTED, reason="error", problem=Internal(reason="interrupted"))


def _failed(problem: Problem) -> RunEnded:
    return RunEnded(status=Status.FAILED, reason="error", problem=problem)


def _uncancel() -> None:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    if task is not None:
        while task.cancelling():
            task.uncancel()
