"""Who is being answered, by credential: what was begun for one that is disabled or deleted meanwhile is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager

import structlog

from palaver.core.problems import Problem
from palaver.core.types import Key

Name = tuple[int, int]
"""A credential: its application and its number."""

log = structlog.get_logger("palaver.http")


class Callers:
    """``enabled`` says which of some credentials still are."""

    def __init__(self, enabled: Callable[[Sequence[Name]], Awaitable[set[Name]]]) -> None:
        self._enabled = enabled
        self._open: dict[Name, set[Callable[[], None]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._again = False

    @contextmanager
    def of(self, key: Key | None, end: Callable[[], None]) -> Generator[None]:
        """In the block somebody with that credential is answered; ``end`` ends it."""
        if key is None:
            yield
            return
        name = (key.app, key.number)
        self._open.setdefault(name, set()).add(end)
        try:
            yield
        finally:
            self._open[name].discard(end)
            if not self._open[name]:
                del self._open[name]

    def look(self) -> None:
        """Credentials have changed: end what is answered to those that are none any more."""
        self._again = True
        if self._open and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while self._again and self._open:
            self._again = False
            names = list(self._open)
            try:
                enabled = await self._enabled(names)
            except Problem as problem:  # the notice comes again with the connection
                log.warning("could not look for revoked credentials", problem=problem.record())
                return
            for name in names:
                if name not in enabled and (ends := list(self._open.get(name, ()))):
                    log.info("credential revoked", app=name[0], number=name[1], ended=len(ends))
                    for end in ends:
                        end()
