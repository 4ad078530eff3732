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

CredentialRef = tuple[int, int]
"""A credential: its application and its row id."""

MAX_TIMER_S = 86_400
"""Maximum delay of a timer, in seconds; for a later expiry, the timer is set again."""

log = structlog.get_logger("palaver.http")


class _OpenResponse:
    """One open response. Calls ``on_revoked`` at most once: when the credential or the token is no longer valid."""

    def __init__(self, principal: Principal, on_revoked: Callable[[Unauthenticated], None]) -> None:
        self.generation = principal.key.generation
        self._token_until = principal.expires_at
        self._on_revoked: Callable[[Unauthenticated], None] | None = on_revoked
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.set_key_expiry(principal.key.expires_at)

    def set_key_expiry(self, key_until: float) -> None:
        """Set when the credential expires, in Unix seconds."""
        self._until = min(key_until, self._token_until)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        remaining_s = self._until - time.time()
        if remaining_s == math.inf:
            return
        self._timer = asyncio.get_running_loop().call_later(max(0.0, min(remaining_s, MAX_TIMER_S)), self._check_clock)

    def _check_clock(self) -> None:
        if time.time() < self._until:
            self._set_timer()
        else:
            self.revoke(Unauthenticated(reason="expired", subject="token"))

    def revoke(self, problem: Unauthenticated) -> None:
        on_revoked = self._on_revoked
        self.close()
        if on_revoked is not None:
            on_revoked(problem)

    def close(self) -> None:
        self._on_revoked = None
        if self._timer is not None:
            self._timer.cancel()


class RevocationWatcher:
    """Watches the credentials of open responses. ``enabled`` returns those of the given credentials that are still
    valid; ``changes`` counts notifications of changes."""

    def __init__(self, enabled: Callable[[Sequence[CredentialRef]], Awaitable[Mapping[CredentialRef, ApiKey]]]) -> None:
        self._enabled = enabled
        self._open: dict[CredentialRef, set[_OpenResponse]] = {}
        self._task: asyncio.Task[None] | None = None
        self._check_pending = False
        self.changes = 0

    @contextmanager
    def watch(
        self, principal: Principal, on_revoked: Callable[[Unauthenticated], None], *, since: int
    ) -> Generator[None]:
        """Watch the caller's credential during the block; call ``on_revoked`` once it is no longer valid. ``since`` is
        the value of ``changes`` before the credential was looked up."""
        if principal is ANONYMOUS:
            yield
            return
        name = (principal.app, principal.key.number)
        response = _OpenResponse(principal, on_revoked)
        self._open.setdefault(name, set()).add(response)
        if since != self.changes:
            self._schedule_check()
        try:
            yield
        finally:
            response.close()
            self._open[name].discard(response)
            if not self._open[name]:
                del self._open[name]

    def on_credentials_changed(self) -> None:
        """Credentials have changed: end the responses of those that are no longer valid."""
        self.changes += 1
        self._schedule_check()

    def _schedule_check(self) -> None:
        self._check_pending = True
        if self._open and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._check())

    async def _check(self) -> None:
        while self._check_pending and self._open:
            self._check_pending = False
            names = list(self._open)
            try:
                enabled = await self._enabled(names)
            except Problem as problem:  # repeated when the database is available again
                log.warning("revocation check failed", problem=problem.to_dict())
                return
            for name in names:
                self._compare(name, enabled.get(name))

    def _compare(self, name: CredentialRef, key: ApiKey | None) -> None:
        """End the responses whose version of the credential is no longer valid."""
        now, ended = time.time(), 0
        for response in list(self._open.get(name, ())):
            version = None if key is None else key.version(response.generation, now)
            if version is None:
                ended += 1
                response.revoke(Unauthenticated(reason="disabled"))
            else:
                response.set_key_expiry(version.expires_at)
        if ended:
            log.info("credential revoked", app=name[0], number=name[1], ended=ended)
