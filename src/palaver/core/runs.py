"""Live runs: each is a task of the server, independent of the request that started it.

A run writes a ``Draft``; any number of readers follow it at their own pace, each with a cursor and no queue. Writes of
many runs are batched into one statement: growing text about once a second, ends immediately. A reader sees the end
only after it is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
import structlog

from palaver.core.events import Draft, Event, PartAdded
from palaver.core.fair_semaphore import set_owner
from palaver.core.feed import Feed, RunReader
from palaver.core.observer import NullObserver, Observer, RunReport
from palaver.core.ports.store import Pause, RunResult, Store
from palaver.core.problems import Busy, Internal, Problem, Upstream
from palaver.core.remote_runs import RemoteRuns
from palaver.core.slots import RunSlots
from palaver.core.turn import RunPaused, StepStarted, TurnContext, TurnServices, UsageMeter, run_turn
from palaver.core.types import AnyPart, Message, PendingCall, RunEnded, Status, Usage
from palaver.core.writeback import PendingEnd, WriteBack

MAX_EARLY_STARTS = 10_000
"""Maximum number of start notifications remembered for runs not yet registered here."""
REMOTE_READER_TTL_S = 3.0
"""Seconds for which a run counts as read after another process has reported a reader."""
ABANDON_GRACE_S = 4.0
"""Seconds after a new message within which a run is still stopped as abandoned when its last reader leaves: a closed
connection may be noticed only after the message that follows it."""
log = structlog.get_logger("palaver.runs")


class ActiveRun(Feed):
    """A live run of this process."""

    def __init__(
        self,
        *,
        app_id: int,
        run_id: int,
        uid: UUID,
        context: TurnContext,
        step: int = 0,
        parts: tuple[AnyPart, ...] = (),
        usage: Usage = Usage(),  # noqa: B008  immutable
    ) -> None:
        super().__init__(Draft(parts))
        self.app = app_id
        self.run = run_id
        self.uid = uid
        self.context = context
        self.step = step
        """The number of model calls begun, as stored."""
        self.begun = False
        """Whether its task has begun to execute."""
        self.task: asyncio.Task[None] | None = None
        self.unstorable = False
        self.saved = self.draft.cursor(self.draft.steps)
        self.saved_size = self.draft.size
        self.saved_at: float | None = None
        self.meter = UsageMeter(usage)
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
        self.remote = RemoteRuns(self._store.runs)
        self._early: OrderedDict[int, None] = OrderedDict()
        """Runs that may start but are unknown here: another process's, or about to be added."""
        self._write_back = WriteBack(self._store.runs, worker=worker, settled=self._settled, may_start=self.allow_start)
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
        self._draft_bytes += live.draft.memory_bytes
        self.remote.move_readers(live.uid, live)
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
        live.begun = True
        set_owner((live.app, live.context.user))
        ended: RunEnded | None = live.ending
        try:
            if ended is None:
                ended = await self._execute(live)
            if ended is None:
                self._hand_over(live)
                return
        except asyncio.CancelledError:
            ended = live.ending or _interrupted()
            _uncancel()
        except TimeoutError:
            ended = _failed(Internal(reason="timeout", detail=f"no end after {self._timeout:g} s"))
        except Problem as problem:
            ended = _failed(problem)
            log.warning("run failed", run=live.uid.hex, trace=live.context.input.trace, problem=problem.to_dict())
        except Exception as error:
            ended = _failed(Internal(reason="unforeseen", detail=type(error).__name__))
            log.exception("run failed", run=live.uid.hex, trace=live.context.input.trace)
        await self._end(live, ended)

    async def _execute(self, live: ActiveRun) -> RunEnded | None:
        """The run's outcome, or ``None`` if it is paused or belongs to another process now."""
        async with (
            asyncio.timeout(self._timeout),
            aclosing(run_turn(live.context, self._ports, live.meter, live.draft)) as events,
        ):
            async for event in events:
                match event:
                    case RunEnded():
                        return event
                    case StepStarted(number=number):
                        if not await self._begin_step(live, number):
                            return None
                    case RunPaused(calls=calls):
                        await self._pause(live, calls)
                        return None
                    case _:
                        self._apply(live, event)
                        # Save a step at once: losing it costs more than losing a second of text.
                        self._write_back.schedule_save(live, urgent=isinstance(event, PartAdded))
                        live.notify_readers()
        raise AssertionError("a turn says how it ended")

    async def _begin_step(self, live: ActiveRun, number: int) -> bool:
        """Store that a model call begins, and everything before it: should this process die, another one knows whether
        it may continue the run. Returns False if another process has taken it over."""
        if number <= live.step:  # stored together with the message
            return True
        await self._write_back.flush(live)
        live.step = number
        return await self._write_back.retry(
            lambda: self._store.runs.begin_step(
                live.app, live.conversation, live.run, worker=self.worker(), step=number, usage=live.meter.usage
            )
        )

    async def _pause(self, live: ActiveRun, calls: tuple[PendingCall, ...]) -> None:
        await self._write_back.flush(live)
        pause = Pause(steps=live.draft.steps, calls=calls)
        await self._write_back.retry(
            lambda: self._store.runs.pause(
                live.app, live.conversation, live.run, worker=self.worker(), pause=pause, usage=live.meter.usage
            )
        )
        log.info("run paused", run=live.uid.hex, calls=[call.tool for call in calls], trace=live.context.input.trace)

    def _hand_over(self, live: ActiveRun) -> None:
        """Forget a run that no longer belongs to this process. Its readers follow it in the database."""
        self._remove(live)
        if live.readers:
            self.remote.follow(live.app, live.uid, live.run, live)

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

    async def stop_paused(self, app_id: int, runs: Sequence[UUID]) -> None:
        """End those of the runs that are paused, as stopped."""
        paused = await self._store.runs.list_paused(app_id, runs)
        ended = RunEnded(status=Status.STOPPED, at=time.time_ns() // 1_000_000)
        if paused:
            await self.finish_stored([(app_id, answer.conversation, answer.id) for answer in paused], ended, None)
            await self._store.runs.notify_growth([answer.id for answer in paused])

    async def finish_stored(self, keys: Sequence[tuple[int, int, int]], ended: RunEnded, worker: int | None) -> None:
        """End runs that no task executes and whose text is stored: those of ``worker``, or paused ones. ``keys``:
        application, conversation and id of each."""
        results = [
            RunResult(app=app_id, conversation=conversation_id, run=run_id, parts=None, ended=ended)
            for app_id, conversation_id, run_id in keys
        ]
        for run in await self._store.runs.finish(results, worker):
            self.allow_start(run)

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
        elif live.begun:  # a task cancelled before it begins would never store the end
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
        for task in abandoning:
            task.cancel()
        self.remote.close()
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
            return await self._open_remote_reader(answer, after)
        name = (answer.app, answer.uid)
        feed = self._past.get(name) or self._past.setdefault(name, Feed(Draft(answer.parts, answer.ended)))
        return RunReader(feed, after)

    async def _open_remote_reader(self, answer: Message, after: int) -> RunReader | None:
        current = await self._store.runs.get_answer(answer.app, answer.uid)
        if current is None or current.ended is not None:
            return None if current is None else await self.open_reader(current, after)
        if current.uid not in self._live and current.uid not in self.remote:
            await self.remote.report_reader(current.id)  # first, so that it is not stopped as abandoned
        live = self._live.get(current.uid)
        return self.remote.open_reader(current, after) if live is None else RunReader(live, after)

    # Storing --------------------------------------------------------------------------------------------------------

    def _settled(self, ending: PendingEnd) -> None:
        """After a run's end is stored: notify its readers and remove it from the live runs."""
        live = self._live[ending.live.uid]
        if live.draft.ended is None:
            live.draft.apply(ending.ended)
            live.notify_readers()
        self._remove(live)
        meter = live.meter
        self.observer.run_ended(
            RunReport(app=live.app, model=meter.model, ended=ending.ended, first_token_s=meter.first_token_s)
        )

    def _remove(self, live: ActiveRun) -> None:
        self._draft_bytes -= live.draft.memory_bytes
        self.slots.release(live.app, live.context.input.credential)
        live.stored.set()
        self._live.pop(live.uid, None)
        self._by_id.pop(live.run, None)
        if not self._live:
            self._idle.set()


def _interrupted() -> RunEnded:
    return RunEnded(status=Status.INTERRUPTED, reason="error", problem=Internal(reason="interrupted"))


def _failed(problem: Problem) -> RunEnded:
    return RunEnded(status=Status.FAILED, reason="error", problem=problem)


def _uncancel() -> None:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    if task is not None:
        while task.cancelling():
            task.uncancel()
