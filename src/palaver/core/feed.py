"""Following a run: any number of readers read one draft, each at its own pace, with a cursor and no queue."""

from __future__ import annotations

import asyncio

from palaver.core.disconnect import cancel_on_disconnect
from palaver.core.events import Draft, Event

MAX_READ_CHARACTERS = 16_384
"""Characters returned per ``take``; bounds the memory that a stalled reader occupies."""
WAKE_BATCH = 32
"""Readers of a run that are woken in one iteration of the event loop."""
READER_COST_S = 0.0001
"""Minimum seconds between two wake rounds, per reader, for runs with more than ``WAKE_BATCH`` readers."""


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

    def follow(self, feed: Feed) -> None:
        """Continue at the same place in another feed of the same run."""
        cursor = self.cursor
        self._feed.readers.discard(self)
        self._feed, self._draft = feed, feed.draft
        self._cursor = feed.draft.cursor(cursor)
        self._ahead = cursor if cursor > feed.draft.steps else 0
        feed.readers.add(self)
        self.wake()

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

    def move_readers(self, other: Feed) -> None:
        """Let all readers continue with ``other``, a feed of the same run."""
        for reader in list(self.readers):
            reader.follow(other)

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
