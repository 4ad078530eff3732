"""Waiting for a whole answer."""

from __future__ import annotations

import asyncio

from palaver.core.events import Draft, PartStarted, TextDelta, fold
from palaver.core.feed import Feed, RunReader, read_to_end
from palaver.core.types import RunEnded, Status, Text

ENDED = RunEnded(status=Status.COMPLETE)


async def test_an_answer_that_is_over_is_collected_at_once() -> None:
    events = await read_to_end(RunReader(Feed(Draft((Text(text="yes"),), ENDED))), 5)
    assert events is not None
    assert fold(events) == ((Text(text="yes"),), ENDED)


async def test_an_answer_is_collected_while_it_is_written() -> None:
    feed = Feed(Draft())
    collecting = asyncio.create_task(read_to_end(RunReader(feed), 5))
    for event in (PartStarted(part=Text()), TextDelta(text="a"), TextDelta(text="b"), ENDED):
        await asyncio.sleep(0)
        feed.draft.apply(event)
        feed.notify_readers()
    events = await collecting
    assert events is not None
    assert fold(events) == ((Text(text="ab"),), ENDED)
    assert not feed.readers


async def test_who_waits_too_long_gets_nothing_and_reads_no_longer() -> None:
    feed = Feed(Draft())
    assert await read_to_end(RunReader(feed), 0.01) is None
    assert not feed.readers
