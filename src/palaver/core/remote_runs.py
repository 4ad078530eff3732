"""Runs that are read in this process and written by another one, or by none: readers follow what is stored of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

from palaver.core.events import Draft
from palaver.core.feed import Feed, RunReader
from palaver.core.ports.store import RunRepository
from palaver.core.problems import Problem
from palaver.core.types import Message, RunEnded, Status

POLL_INTERVAL_S = 0.5
"""Seconds between polls of a run that another process writes, if no notification arrives."""
NOTIFY_INTERVAL_S = 1.0
"""Seconds between two reports of a reader to the process that writes the run."""


class _RemoteRun:
    """A live run that is read here and belongs to another process, or is paused."""

    def __init__(self, app_id: int, run_uid: UUID, run_id: int, feed: Feed) -> None:
        self.app = app_id
        self.uid = run_uid
        self.run = run_id
        self.feed = feed
        self.grown = asyncio.Event()
        """Set when the other process has stored more of it."""
        self.task: asyncio.Task[None] | None = None


class RemoteRuns:
    """The runs of other processes, and the paused ones, that are read in this process."""

    def __init__(self, store: RunRepository) -> None:
        self._store = store
        self._runs: dict[UUID, _RemoteRun] = {}

    def __contains__(self, run_uid: UUID) -> bool:
        return run_uid in self._runs

    def open_reader(self, message: Message, after: int) -> RunReader:
        """A reader of the run that writes ``message``, from cursor ``after``."""
        if (remote := self._runs.get(message.uid)) is not None:
            return RunReader(remote.feed, after)
        feed = Feed(Draft(message.parts))
        reader = RunReader(feed, after)
        self.follow(message.app, message.uid, message.id, feed)
        return reader

    def move_readers(self, run_uid: UUID, feed: Feed) -> None:
        """The run has come to this process: its readers continue with ``feed``."""
        if (remote := self._runs.get(run_uid)) is not None:
            remote.feed.move_readers(feed)
            remote.grown.set()

    def close(self) -> None:
        for remote in self._runs.values():
            if remote.task is not None:
                remote.task.cancel()

    def follow(self, app_id: int, run_uid: UUID, run_id: int, feed: Feed) -> None:
        """Keep ``feed`` up to date while it has readers."""
        remote = self._runs[run_uid] = _RemoteRun(app_id, run_uid, run_id, feed)
        remote.task = asyncio.create_task(self._follow(remote))

    def on_growth(self, run_id: int) -> None:
        """Another process has stored more of a run."""
        for remote in self._runs.values():
            if remote.run == run_id:
                remote.grown.set()

    async def _follow(self, remote: _RemoteRun) -> None:
        """While a run of another process has readers here, copy what is stored of it, and report the readers."""
        loop = asyncio.get_running_loop()
        reported_at = loop.time()
        try:
            while remote.feed.readers and remote.feed.draft.ended is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await remote.grown.wait()
                remote.grown.clear()
                if reported_at <= loop.time() - NOTIFY_INTERVAL_S:
                    reported_at = loop.time()
                    await self.report_reader(remote.run)
                with suppress(Problem):
                    await self._copy_growth(remote)
        finally:
            del self._runs[remote.uid]

    async def _copy_growth(self, remote: _RemoteRun) -> None:
        """Copy the events of a run that were stored since the last call."""
        draft = remote.feed.draft
        growth = await self._store.get_growth(remote.app, remote.uid, draft.steps)
        if growth.live and not growth.pieces:
            return
        if growth.live and growth.pieces[0].start == draft.steps:
            events = [event for piece in growth.pieces for event in piece.events()]
        else:
            stored = await self._store.get_answer(remote.app, remote.uid)
            if stored is None:  # deleted: readers see it as stopped
                events = [RunEnded(status=Status.STOPPED)]
            else:
                complete = Draft(stored.parts, stored.ended)
                events = complete.read(complete.cursor(draft.steps))
        for event in events:
            draft.apply(event)
        if events:
            remote.feed.notify_readers()

    async def report_reader(self, run_id: int) -> None:
        """Tell the process that writes the run that it is read here."""
        with suppress(Problem):
            await self._store.notify_has_reader(run_id)
