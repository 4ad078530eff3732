"""Whether a caller still waits for what is done for him.

Work that nobody waits for goes on where it changes something; what only waits is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar

_leaving: ContextVar[asyncio.Future[None] | None] = ContextVar("leaving", default=None)


class CallerDisconnected(Exception):  # noqa: N818  not an error of ours
    """Nobody waits for the answer any more."""


@contextmanager
def disconnect_scope(left: asyncio.Future[None]) -> Generator[None]:
    """What is done in the block is done for a caller who has left when ``left`` is done."""
    token = _leaving.set(left)
    try:
        yield
    finally:
        _leaving.reset(token)


@asynccontextmanager
async def unless_disconnected() -> AsyncGenerator[None]:
    """Wait in the block no longer than the caller does: raises ``CallerDisconnected``. The block is cancelled then, so
    it must not hold anything that has to be done."""
    left = _leaving.get()
    if left is None:
        yield
        return
    limit = asyncio.timeout(None)

    def give_up(_: asyncio.Future[None]) -> None:
        with suppress(RuntimeError):  # the block is over already
            limit.reschedule(asyncio.get_running_loop().time())

    left.add_done_callback(give_up)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise CallerDisconnected from None
        raise
    finally:
        left.remove_done_callback(give_up)
