"""Ends open responses when their credential is disabled, rotated or expires."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from palaver.core.problems import Problem, Unauthenticated
from palaver.core.types import ANONYMOUS, ApiKey, Principal

KeyName = tuple[int, int]
"""A credential: its application and its row id."""

LONGEST_S = 86_400
"""Maximum delay of a timer, in seconds; a later expiry sets another one."""

log = structlog.get_logger("palaver.http")


class _OpenResponse:
    """One open response. Calls ``end`` at most once: when the credential or the token ends."""

    def __init__(self, who: Principal, end: Callable[[Unauthenticated], None]) -> None:
        self.generation = who.key.generation
        self._proof_until = who.until
        self._end: Callable[[Unauthenticated], None] | None = end
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.set_key_expiry(who.key.until)

    def set_key_expiry(self, key_until: float) -> None:
        """Set when the credential expires, in Unix seconds."""
        self._until = min(key_until, self._proof_until)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = self._until - time.time()
        if left == math.inf:
            return
        self._timer = asyncio.get_running_loop().call_later(max(0.0, min(left, LONGEST_S)), self._check_clock)

    def _check_clock(self) -> None:
        if time.time() < self._until:
            self._set_timer()
        else:
            self.end(Unauthenticated(reason="expired", subject="token"))

    def end(self, why: Unauthenticated) -> None:
        end = self._end
        self.close()
        if end is not None:
            end(why)

    def close(self) -> None:
        self._end = None
        if self._timer is not None:
            self._timer.cancel()


class RevocationWatcher:
    """Watches the credentials of open responses. ``enabled`` returns those of some credentials that are still valid;
    ``changes`` counts notifications of changes."""

    def __init__(self, enabled: Callable[[Sequence[KeyName]], Awaitable[Mapping[KeyName, ApiKey]]]) -> None:
        self._enabled = enabled
        self._open: dict[KeyName, set[_OpenResponse]] = {}
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self.changes = 0

    @contextmanager
    def watch(self, who: Principal, end: Callable[[Unauthenticated], None], *, since: int) -> Generator[None]:
        """Watch the caller's credential during the block; ``end`` is called once it is no longer valid. ``since`` is
        the value of ``changes`` before the credential was looked up."""
        if who is ANONYMOUS:
            yield
            return
        name = (who.app, who.key.number)
        answered = _OpenResponse(who, end)
        self._open.setdefault(name, set()).add(answered)
        if since != self.changes:
            self._schedule_check()
        try:
            yield
        finally:
            answered.close()
            self._open[name].discard(answered)
            if not self._open[name]:
                del self._open[name]

    def check(self) -> None:
        """Credentials have changed: end the responses of those that are no longer valid."""
        self.changes += 1
        self._schedule_check()

    def _schedule_check(self) -> None:
        self._again = True
        if self._open and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._check())

    async def _check(self) -> None:
        while self._again and self._open:
            self._again = False
            names = list(self._open)
            try:
                enabled = await self._enabled(names)
            except Problem as problem:  # repeated when the connection is back
                log.warning("could not look for revoked credentials", problem=problem.to_dict())
                return
            for name in names:
                self._compare(name, enabled.get(name))

    def _compare(self, name: KeyName, key: ApiKey | None) -> None:
        """End the responses whose version of the credential is no longer valid."""
        now, ended = time.time(), 0
        for answered in list(self._open.get(name, ())):
            version = None if key is None else key.version(answered.generation, now)
            if version is None:
                ended += 1
                answered.end(Unauthenticated(reason="disabled"))
            else:
                answered.set_key_expiry(version.until)
        if ended:
            log.info("credential revoked", app=name[0], number=name[1], ended=ended)
