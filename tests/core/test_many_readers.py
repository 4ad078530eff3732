"""A run that thousands follow: everybody hears all of it, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import gc
import weakref

from palaver.core.events import Draft, PartStarted, TextDelta, fold
from palaver.core.runs import WAKE_BATCH, Feed, RunReader, read_to_end
from palaver.core.types import RunEnded, Status, Text

READERS = 1000


async def test_others_have_their_turn_between_a_few_readers() -> None:
    feed = Feed(Draft())
    served = most = 0

    async def follow(reader: RunReader) -> str:
        nonlocal served
        text = ""
        while not reader.done:
            await reader.wait()
            text += "".join(event.text for event in reader.take() if isinstance(event, TextDelta))
            served += 1
        reader.close()
        return text

    async def somebody_else() -> None:
        nonlocal served, most
        while True:
            most, served = max(most, served), 0
            await asyncio.sleep(0)

    following = [asyncio.create_task(follow(RunReader(feed))) for _ in range(READERS)]
    other = asyncio.create_task(somebody_else())
    await asyncio.sleep(0)
    feed.draft.apply(PartStarted(part=Text()))
    for _ in range(20):
        feed.draft.apply(TextDelta(text="some words "))
        feed.notify_readers()
        await asyncio.sleep(0.01)
    feed.draft.apply(RunEnded(status=Status.COMPLETE))
    feed.notify_readers()
    assert set(await asyncio.gather(*following)) == {"some words " * 20}
    other.cancel()
    assert 0 < most <= 2 * WAKE_BATCH


async def test_what_came_while_readers_were_woken_comes_to_all_of_them() -> None:
    feed = Feed(Draft((Text(text="a"),)))
    collecting = [asyncio.create_task(read_to_end(RunReader(feed), 5)) for _ in range(READERS)]
    await asyncio.sleep(0)
    for text in ("b", "c"):
        feed.draft.apply(TextDelta(text=text))
        feed.notify_readers()
        await asyncio.sleep(0)
    feed.draft.apply(RunEnded(status=Status.COMPLETE))
    feed.notify_readers()
    for events in await asyncio.gather(*collecting):
        assert events is not None
        assert fold(events)[0] == (Text(text="abc"),)


async def test_what_was_read_is_gone_with_its_last_reader() -> None:
    gc.collect()
    gc.disable()
    try:
        feed = Feed(Draft((Text(text="a"),)))
        gone = weakref.ref(feed)
        collecting = [asyncio.create_task(read_to_end(RunReader(feed), 5)) for _ in range(WAKE_BATCH + 1)]
        await asyncio.sleep(0)
        feed.draft.apply(RunEnded(status=Status.COMPLETE))
        feed.notify_readers()
        del feed
        await asyncio.gather(*collecting)
        collecting.clear()
        await asyncio.sleep(0)
        assert gone() is None
    finally:
        gc.enable()
