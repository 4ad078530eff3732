"""Whether a caller still waits for what is done for him.

Work that nobody waits for goes on where it changes something; what only waits is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_leaving: ContextVar[asyncio.Future[None] | None] = ContextVar("leaving", default=None)


class CallerLeft(Exception):  # noqa: N818  not an error of ours
    """Nobody waits for the answer any more."""


@contextmanager
def waiting_caller(left: asyncio.Future[None]) -> Generator[None]:
    """What is done in the block is done for a caller who has left when ``left`` is done."""
    token = _leaving.set(left)
    try:
        yield
    finally:
        _leaving.reset(token)


async def unless_left(waiting: Coroutine[Any, Any, T]) -> T:
    """Wait for it, and no longer than the caller does: raises ``CallerLeft``. It is cancelled then, so it must not be
    anything that has to be done."""
    left = _leaving.get()
    if left is None:
        return await waiting
    task = asyncio.ensure_future(waiting)
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CallerLeft
        return await task
    finally:
        task.cancel()
