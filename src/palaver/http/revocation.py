"""Who is being answered, by credential: what was begun for one that has ended meanwhile is ended."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from palaver.core.problems import Problem, Unauthenticated
from palaver.core.types import ANONYMOUS, ApiKey, Principal

Name = tuple[int, int]
"""A credential: its application and its number."""

LONGEST_S = 86_400
"""Seconds that a timer is set for; one that lies further ahead is set anew."""

log = structlog.get_logger("palaver.http")


class _Answered:
    """One who is answered. ``end`` is called at most once: when the credential or the token ends."""

    def __init__(self, who: Principal, end: Callable[[Unauthenticated], None]) -> None:
        self.generation = who.key.generation
        self._proof_until = who.until
        self._end: Callable[[Unauthenticated], None] | None = end
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.expect(who.key.until)

    def expect(self, key_until: float) -> None:
        """The credential ends at that moment."""
        self._until = min(key_until, self._proof_until)
        self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = self._until - time.time()
        if left == math.inf:
            return
        self._timer = asyncio.get_running_loop().call_later(max(0.0, min(left, LONGEST_S)), self._look_at_clock)

    def _look_at_clock(self) -> None:
        if time.time() < self._until:
            self._wait()
        else:
            self.end(Unauthenticated(reason="expired", subject="token"))

    def end(self, why: Unauthenticated) -> None:
        end = self._end
        self.done()
        if end is not None:
            end(why)

    def done(self) -> None:
        self._end = None
        if self._timer is not None:
            self._timer.cancel()


class RevocationWatcher:
    """``enabled`` gives those of some credentials that may still call. ``changes`` counts the times they changed."""

    def __init__(self, enabled: Callable[[Sequence[Name]], Awaitable[Mapping[Name, ApiKey]]]) -> None:
        self._enabled = enabled
        self._open: dict[Name, set[_Answered]] = {}
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self.changes = 0

    @contextmanager
    def of(self, who: Principal, end: Callable[[Unauthenticated], None], *, since: int) -> Generator[None]:
        """In the block that caller is answered; ``end`` ends it. ``since`` is what ``changes`` was before the
        credential was looked up."""
        if who is ANONYMOUS:
            yield
            return
        name = (who.app, who.key.number)
        answered = _Answered(who, end)
        self._open.setdefault(name, set()).add(answered)
        if since != self.changes:
            self._begin_look()
        try:
            yield
        finally:
            answered.done()
            self._open[name].discard(answered)
            if not self._open[name]:
                del self._open[name]

    def look(self) -> None:
        """Credentials have changed: end what is answered to those that are none any more."""
        self.changes += 1
        self._begin_look()

    def _begin_look(self) -> None:
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
                log.warning("could not look for revoked credentials", problem=problem.to_dict())
                return
            for name in names:
                self._compare(name, enabled.get(name))

    def _compare(self, name: Name, key: ApiKey | None) -> None:
        """End what is answered to a credential, or a version of it, that is none any more."""
        now, ended = time.time(), 0
        for answered in list(self._open.get(name, ())):
            version = None if key is None else key.version(answered.generation, now)
            if version is None:
                ended += 1
                answered.end(Unauthenticated(reason="disabled"))
            else:
                answered.expect(version.until)
        if ended:
            log.info("credential revoked", app=name[0], number=name[1], ended=ended)
