"""Live runs: each is a task of the server's, not of the caller who began it.

A run writes a ``Draft``; any number of readers follow it at their own pace, each with a cursor and no queue. What
many runs have to store goes out together in one statement: growing text about once a second, ends at once. A reader
learns of an end only when it is stored.
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

from palaver.core.disconnect import unless_disconnected
from palaver.core.events import Draft, Event, PartAdded
from palaver.core.fair_queue import set_owner
from palaver.core.observer import NullObserver, Observer, RunReport
from palaver.core.ports.store import Store
from palaver.core.problems import Busy, Internal, Problem, Upstream
from palaver.core.slots import RunSlots
from palaver.core.turn import TurnContext, TurnServices, UsageMeter, run_turn
from palaver.core.types import Message, RunEnded, Status
from palaver.core.writeback import PendingEnd, WriteBack

MAX_EARLY_STARTS = 10_000
"""How many runs that may start are remembered before they are known."""
MAX_READ_CHARACTERS = 16_384
"""Characters that a reader is given at a time: what one that does not read on makes the server hold."""
WAKE_BATCH = 32
"""Readers of a run that are woken in one pass of the event loop."""
READER_COST_S = 0.0001
"""Seconds for each of a run's readers, where there are more, between two rounds in which they are woken."""
POLL_INTERVAL_S = 0.5
"""Seconds between two looks at a run that another process writes."""
REMOTE_READER_TTL_S = 3.0
"""Seconds for which a run counts as read after another process has said that somebody reads it there."""
NOTIFY_INTERVAL_S = 1.0
"""Seconds between two such words."""
ABANDON_GRACE_S = 4.0
"""Seconds within which a run's last reader may leave and the run still counts as abandoned when a message came: a
closed connection may be noticed after the message that follows it."""
log = structlog.get_logger("palaver.runs")


class RunReader:
    """One follower of a run. ``take`` gives what it has not seen, of a long text a piece at a time; ``wait`` returns
    when there may be more."""

    __slots__ = ("_ahead", "_draft", "_place", "_waiting", "_watched", "_woken")

    def __init__(self, watched: Feed, after: int = 0) -> None:
        self._watched = watched
        self._draft = watched.draft
        self._place = watched.draft.cursor(after)
        # The reader may know more than this process does: it saw text that another one has not saved yet.
        self._ahead = after if after > watched.draft.steps and watched.draft.ended is None else 0
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False
        watched.readers.add(self)

    @property
    def cursor(self) -> int:
        return max(self._place.steps, self._ahead)

    @property
    def done(self) -> bool:
        """Whether there will be no more events than those taken."""
        return self._draft.read_out(self._place)

    def take(self) -> list[Event]:
        if self._ahead:
            if self._draft.steps < self._ahead and self._draft.ended is None:
                return []
            # An interrupted run may end short of what the reader saw: its end is told all the same.
            self._place = self._draft.cursor(min(self._ahead, self._draft.steps - (self._draft.ended is not None)))
            self._ahead = 0
        return self._draft.read(self._place, MAX_READ_CHARACTERS)

    async def wait(self) -> None:
        """Until the run goes on, or somebody calls ``wake``; not at all when either has happened already."""
        if not self._woken and self._draft.steps <= max(self._place.steps, self._ahead):
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
            self._waiting = None
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        self._watched.readers.discard(self)


async def collect(reader: RunReader, limit_s: float) -> list[Event] | None:
    """Every event from where the reader is to the end; ``None`` when that takes longer. The run goes on regardless,
    also when the caller who waits for it leaves: that raises ``CallerDisconnected``."""
    try:
        async with asyncio.timeout(limit_s), unless_disconnected():
            return await _to_the_end(reader)
    except TimeoutError:
        return None
    finally:
        reader.close()


async def _to_the_end(reader: RunReader) -> list[Event]:
    events: list[Event] = []
    while not reader.done:
        await reader.wait()
        events += reader.take()
    return events


class Feed:
    """A draft and who reads it."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.readers: set[RunReader] = set()
        self._rounds = WakeQueue()

    def changed(self) -> None:
        if len(self.readers) > WAKE_BATCH:
            self._rounds.go(self)
            return
        for reader in self.readers:
            reader.wake()


class WakeQueue:
    """Wakes many readers a few at a time, so that everybody else has his turn in between, and the more there are the
    less often: each of them is given more at once. It does not keep what they read: a cycle of references would keep
    every answer until the collector comes."""

    __slots__ = ("_again", "_begun", "_left")

    def __init__(self) -> None:
        self._left: list[RunReader] | None = None
        """Who is to be woken yet; ``None`` between two rounds."""
        self._again = False
        self._begun = float("-inf")

    def go(self, watched: Feed) -> None:
        """There is something to read: at the latest by the end of the next round everybody knows."""
        self._again = True
        if self._left is None:
            self._left = []
            loop = asyncio.get_running_loop()
            pause = self._begun + len(watched.readers) * READER_COST_S - loop.time()
            loop.call_later(max(0.0, pause), self._begin, watched)

    def _begin(self, watched: Feed) -> None:
        self._again = False
        self._begun = asyncio.get_running_loop().time()
        self._left = list(watched.readers)
        self._wake_some(watched)

    def _wake_some(self, watched: Feed) -> None:
        assert self._left is not None
        some, self._left = self._left[-WAKE_BATCH:], self._left[:-WAKE_BATCH]
        for reader in some:
            reader.wake()
        if self._left:
            asyncio.get_running_loop().call_soon(self._wake_some, watched)
            return
        self._left = None
        if self._again:
            self.go(watched)


class ActiveRun(Feed):
    """A run of this process."""

    def __init__(self, *, app: int, run: int, uid: UUID, scene: TurnContext, credential: int | None = None) -> None:
        super().__init__(Draft())
        self.app = app
        self.run = run
        self.uid = uid
        self.scene = scene
        self.credential = credential
        """Whose slot it has."""
        self.task: asyncio.Task[None] | None = None
        self.unstorable = False
        self.saved_at = float("-inf")
        self.meter = UsageMeter()
        self.ending: RunEnded | None = None
        """How to end, said from outside: stopped, interrupted."""
        self.stored = asyncio.Event()
        """Set when the end is stored."""
        self.read_elsewhere_until = float("-inf")
        self.abandoning: asyncio.Task[None] | None = None
        """Stops the run as soon as nobody reads it."""

    def is_read(self, now: float) -> bool:
        return bool(self.readers) or now < self.read_elsewhere_until

    @property
    def conversation(self) -> int:
        return self.scene.conversation


class RunRegistry:
    """The registry of this process's live runs, and what keeps them stored."""

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
        self._held = 0
        """Bytes of memory that the live runs' drafts take."""
        self._store: Store = ports.store
        self._timeout = timeout
        self.worker = worker
        self._live: dict[UUID, ActiveRun] = {}
        self._by_id: dict[int, ActiveRun] = {}
        self._past: WeakValueDictionary[tuple[int, UUID], Feed] = WeakValueDictionary()
        """Ended runs that somebody reads: all their readers share one copy."""
        self._remote: dict[UUID, tuple[Feed, asyncio.Task[None]]] = {}
        self._early: OrderedDict[int, None] = OrderedDict()
        """Runs that may start and are not known here: another process's, or one that is about to be added."""
        self._back = WriteBack(self._store.runs, settled=self._settled, may_start=self.may_start)
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
        """How many of them wait for another one to end."""
        return sum(live.task is None for live in self._live.values())

    def knows(self, run: int) -> bool:
        """Whether the run of that id is one of this process's."""
        return run in self._by_id

    def active(self, run: UUID) -> ActiveRun | None:
        """The run, while it is one of this process's."""
        return self._live.get(run)

    def open(self) -> None:
        """Begin to keep runs stored; needs a running loop."""
        self._back.open()

    # Running --------------------------------------------------------------------------------------------------------

    def add(self, live: ActiveRun, *, start: bool) -> None:
        """Take a stored run over. It starts now, or (``start`` false) when ``may_start`` says so."""
        self._live[live.uid] = live
        self._by_id[live.run] = live
        self._idle.clear()
        if start or live.run in self._early:
            self._start(live)

    def may_start(self, run: int) -> None:
        """The run is first in its conversation. Ids of other processes' runs, and repeats, change nothing.

        The word may come before the run is added: the one before it can end between the moment the database has
        stored a message and the moment this process hears that it did.
        """
        live = self._by_id.get(run)
        if live is not None:
            self._start(live)
            return
        self._early[run] = None
        if len(self._early) > MAX_EARLY_STARTS:
            self._early.popitem(last=False)

    def _start(self, live: ActiveRun) -> None:
        if live.task is None:
            live.task = asyncio.create_task(self._run(live), name=f"run {live.run}")

    async def _run(self, live: ActiveRun) -> None:
        set_owner((live.app, live.scene.user))
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
            log.warning("run failed", run=live.uid.hex, trace=live.scene.trace, problem=problem.record())
        except Exception as error:
            ended = _failed(Internal(reason="unforeseen", detail=type(error).__name__))
            log.exception("run failed", run=live.uid.hex, trace=live.scene.trace)
        await self._end(live, ended)

    async def _execute(self, live: ActiveRun) -> RunEnded:
        async with (
            asyncio.timeout(self._timeout),
            aclosing(run_turn(live.scene, self._ports, live.meter, live.draft)) as events,
        ):
            async for event in events:
                if isinstance(event, RunEnded):
                    return event
                self._apply(live, event)
                self._back.changed(
                    live, urgent=isinstance(event, PartAdded)
                )  # a step is worth more than a second's text
                live.changed()
        raise AssertionError("a turn says how it ended")

    def _apply(self, live: ActiveRun, event: Event) -> None:
        """Raises ``Upstream`` for an answer that is too long, ``Busy`` for one of the longest when all together are."""
        draft = live.draft
        before = draft.memory_bytes
        draft.apply(event)
        self._held += draft.memory_bytes - before
        if draft.size > self._max_answer_bytes:
            raise Upstream(reason="cut", detail=f"the answer has more than {self._max_answer_bytes} bytes")
        if self._held > self._max_live_bytes and draft.memory_bytes * len(self._live) >= self._held:
            raise Busy(reason="overload")

    async def _end(self, live: ActiveRun, ended: RunEnded) -> None:
        """Store the end, then let the readers know. Nothing may interrupt this: it is shielded by its future."""
        ended = msgspec.structs.replace(ended, usage=live.meter.usage, at=time.time_ns() // 1_000_000)
        stored = self._back.end(live, ended)
        while not stored.done():
            try:
                await asyncio.shield(stored)
            except asyncio.CancelledError:
                _uncancel()

    # Stopping -------------------------------------------------------------------------------------------------------

    def stop(self, run: UUID) -> bool:
        """Stop a run of this process: the model's connection is closed, no further step begins, the text stays.
        False when there is none of that id (it may have ended)."""
        live = self._live.get(run)
        if live is None or live.ending is not None:
            return False
        self._finish_early(live, RunEnded(status=Status.STOPPED))
        return True

    def numbers(self) -> set[int]:
        """The ids of this process's runs."""
        return set(self._by_id)

    def stop_vanished(self, missed: set[int], before: set[int]) -> set[int]:
        """Stop the runs whose messages were ``missed`` in the database now and ``before``: they were deleted, in
        whatever way. One that was missed once may just have ended. Those missed now."""
        for run in missed & before:
            if (live := self._by_id.get(run)) is not None and self.stop(live.uid):
                log.info("stopped a run whose message is gone", run=live.uid.hex)
        return missed

    def stop_abandoned(self, run: int) -> bool:
        """Stop a run of this process if nobody reads it; whether it is being stopped. One that is read is stopped
        when its last reader leaves within ``ABANDON_GRACE_S``."""
        live = self._by_id.get(run)
        if live is None or live.ending is not None:
            return live is not None
        if not live.is_read(asyncio.get_running_loop().time()):
            return self.stop(live.uid)
        if live.abandoning is None:
            live.abandoning = asyncio.create_task(self._stop_once_unread(live))
        return False

    async def _stop_once_unread(self, live: ActiveRun) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + ABANDON_GRACE_S
        while live.run in self._by_id and live.ending is None and loop.time() < until:
            if not live.is_read(loop.time()):
                self.stop(live.uid)
            else:
                await asyncio.sleep(0.05)
        live.abandoning = None

    def is_read_elsewhere(self, run: int) -> None:
        """Another process has said that somebody reads the run there."""
        live = self._by_id.get(run)
        if live is not None:
            live.read_elsewhere_until = asyncio.get_running_loop().time() + REMOTE_READER_TTL_S

    def _finish_early(self, live: ActiveRun, ended: RunEnded) -> None:
        live.ending = ended
        if live.task is None:
            self._start(live)
        else:
            live.task.cancel()

    async def close(self, *, drain: float, limit: float = 10.0) -> None:
        """Let the runs end by themselves for ``drain`` seconds, interrupt the rest, and store everything.
        After ``limit`` more seconds (the database is away) what could not be stored is left to recovery."""
        self.closing = True
        if self._closed:
            return
        self._closed = True
        done = [asyncio.ensure_future(event.wait()) for event in (self._idle, self._hurry)]
        await asyncio.wait(done, timeout=drain, return_when=asyncio.FIRST_COMPLETED)
        for waiting in done:
            waiting.cancel()
        for live in list(self._live.values()):
            self._finish_early(live, _interrupted())
        try:
            await asyncio.wait_for(self._idle.wait(), limit)
        except TimeoutError:
            log.error("runs not stored at shutdown", runs=[live.uid.hex for live in self._live.values()])
            for live in self._live.values():  # their readers need not wait for what does not come
                if live.draft.ended is None:
                    live.draft.apply(live.ending or _interrupted())
                live.changed()
        abandoning = [live.abandoning for live in self._live.values() if live.abandoning is not None]
        for task in (*abandoning, *(task for _, task in self._remote.values())):
            task.cancel()
        await self._back.close(within=0.5)

    def skip_drain(self) -> None:
        """Do not wait for runs to end by themselves any longer."""
        self._hurry.set()

    # Following ------------------------------------------------------------------------------------------------------

    async def follow(self, app: int, run: UUID, after: int = 0) -> RunReader | None:
        """A reader of the run, wherever it is written, or of the message it wrote; ``None`` for an unknown one."""
        live = self._live.get(run)
        if live is not None and live.app == app:
            return RunReader(live, after)
        past = self._past.get((app, run))
        if past is not None:
            return RunReader(past, after)
        message = await self._store.runs.get(app, run)
        if message is None:
            return None
        if message.ended is not None:
            return RunReader(self._past.setdefault((app, run), Feed(Draft(message.parts, message.ended))), after)
        if run not in self._live and run not in self._remote:  # before its reader is there: nobody may stop it then
            await self._tell_of_reader(message)
        live = self._live.get(run)
        return RunReader(live or self._watch(message), after)

    def _watch(self, message: Message) -> Feed:
        if message.uid not in self._remote:
            watched = Feed(Draft(message.parts))
            self._remote[message.uid] = (watched, asyncio.create_task(self._poll(message, watched)))
        return self._remote[message.uid][0]

    async def _poll(self, message: Message, watched: Feed) -> None:
        """Copy what another process saves into ``watched``, while somebody reads it, and tell that process so."""
        loop = asyncio.get_running_loop()
        told, seen = loop.time(), None
        try:
            await asyncio.sleep(POLL_INTERVAL_S)
            while watched.readers and watched.draft.ended is None:
                if told <= loop.time() - NOTIFY_INTERVAL_S:
                    told = loop.time()
                    await self._tell_of_reader(message)
                with suppress(Problem):
                    version = await self._store.runs.row_version(message.app, message.uid)
                    if version is not None and version == seen:
                        pass
                    elif (saved := await self._store.runs.get(message.app, message.uid)) is not None:
                        self._copy_on(saved, watched)
                        seen = version
                    else:  # deleted: it ends for its readers as a stop ends it
                        watched.draft.apply(RunEnded(status=Status.STOPPED))
                        watched.changed()
                        return
                await asyncio.sleep(POLL_INTERVAL_S)
        finally:
            del self._remote[message.uid]

    async def _tell_of_reader(self, message: Message) -> None:
        with suppress(Problem):
            await self._store.runs.tell_of_reader(message.id)

    @staticmethod
    def _copy_on(message: Message, watched: Feed) -> None:
        place = watched.draft.cursor(2**62)
        saved = Draft(message.parts, message.ended)
        for event in saved.read(saved.cursor(place.steps)):
            watched.draft.apply(event)
        watched.changed()

    # Storing --------------------------------------------------------------------------------------------------------

    def _settled(self, ending: PendingEnd) -> None:
        """A run's end is stored: its readers are told, and it is no longer one of the live ones."""
        live = self._live[ending.writing.uid]
        if live.draft.ended is None:
            live.draft.apply(ending.ended)
            live.changed()
        self._held -= live.draft.memory_bytes
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
