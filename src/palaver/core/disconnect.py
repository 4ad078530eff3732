"""Detecting whether the caller is still connected.

After a disconnect, work that changes state continues; code that only waits is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar

_disconnect: ContextVar[asyncio.Future[None] | None] = ContextVar("disconnect", default=None)


class CallerDisconnected(Exception):  # noqa: N818  not an error of palaver
    """The caller has closed the connection."""


@contextmanager
def disconnect_scope(left: asyncio.Future[None]) -> Generator[None]:
    """Associate the block with a caller that has disconnected once ``left`` is done."""
    token = _disconnect.set(left)
    try:
        yield
    finally:
        _disconnect.reset(token)


@asynccontextmanager
async def cancel_on_disconnect() -> AsyncGenerator[None]:
    """Cancel the block when the caller disconnects, and raise ``CallerDisconnected``. The block must not contain work
    that has to be completed."""
    disconnected = _disconnect.get()
    if disconnected is None:
        yield
        return
    limit = asyncio.timeout(None)

    def cancel_block(_: asyncio.Future[None]) -> None:
        with suppress(RuntimeError):  # the block has ended already
            limit.reschedule(asyncio.get_running_loop().time())

    disconnected.add_done_callback(cancel_block)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise CallerDisconnected from None
        raise
    finally:
        disconnected.remove_done_callback(cancel_block)
