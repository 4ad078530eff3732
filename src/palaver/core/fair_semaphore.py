"""A fair semaphore: its slots are assigned round-robin to applications, and within each to its end users.

One end user's backlog never delays another's work.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from math import ceil
from typing import TypeVar

Owner = tuple[int, int | str]
"""An application and its end user."""

MAX_WAITING_PER_APPLICATION = 512
"""Default limit on the waiting tasks of one application."""

T = TypeVar("T")

_owner: ContextVar[Owner | None] = ContextVar("owner", default=None)


class QueueTimeout(Exception):  # noqa: N818  not an error
    """No slot was assigned in time or, if ``full``, too many tasks were waiting already."""

    def __init__(self, *, full: bool) -> None:
        super().__init__("too many tasks are waiting" if full else "no slot became free in time")
        self.full = full


class FairSemaphore:
    """A semaphore with ``capacity`` slots: at most ``per_user`` for one end user, and at most ``per_application``
    (default: all but one) for one application."""

    def __init__(
        self,
        capacity: int,
        per_user: int,
        *,
        per_application: int | None = None,
        max_waiting: int = MAX_WAITING_PER_APPLICATION,
    ) -> None:
        self._capacity = capacity
        self._per_user = per_user
        self._per_application = max(per_user, capacity - 1) if per_application is None else per_application
        self._max_waiting = max_waiting
        self._by_owner: Counter[Owner] = Counter()
        self._by_app: Counter[int] = Counter()
        self._in_use = 0
        self._waiting: OrderedDict[int, OrderedDict[int | str, deque[asyncio.Future[None]]]] = OrderedDict()
        self._queued: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        return self._queued.total()

    @asynccontextmanager
    async def slot(self, owner: Owner, timeout_s: float) -> AsyncGenerator[None]:
        """Hold a slot during the block. Raises ``QueueTimeout`` after ``timeout_s`` seconds, or at once if too many
        tasks of the application are waiting."""
        if self._is_available(owner):  # then all waiting tasks are blocked by their own limits
            self._acquire(owner)
        else:
            await self._wait(owner, timeout_s)
        try:
            yield
        finally:
            self._release(owner)

    async def _wait(self, owner: Owner, timeout_s: float) -> None:
        if self._queued[owner[0]] >= self._max_waiting:
            raise QueueTimeout(full=True)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner[0], OrderedDict()).setdefault(owner[1], deque()).append(future)
        self._queued[owner[0]] += 1
        self._assign()
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except (asyncio.CancelledError, TimeoutError) as error:
            if not future.cancelled():  # the slot was assigned at the same moment
                self._release(owner)
            else:
                self._remove(owner, future)
            if isinstance(error, TimeoutError):
                raise QueueTimeout(full=False) from None
            raise

    def _is_available(self, owner: Owner) -> bool:
        app = owner[0]
        return (
            self._in_use < self._capacity
            and self._by_app[app] < self._per_application
            and self._by_owner[owner] < self._per_user
        )

    def _acquire(self, owner: Owner) -> None:
        self._by_owner[owner] += 1
        self._by_app[owner[0]] += 1
        self._in_use += 1

    def _release(self, owner: Owner) -> None:
        self._in_use -= 1
        _decrement(self._by_app, owner[0])
        _decrement(self._by_owner, owner)
        self._assign()

    def _assign(self) -> None:
        while (owner := self._next_owner()) is not None:
            app, user = owner
            users = self._waiting[app]
            first = users[user][0]
            self._remove(owner, first)
            if first.cancelled():  # its waiter has not handled the cancellation yet
                continue
            if user in users:
                users.move_to_end(user)
            if app in self._waiting:
                self._waiting.move_to_end(app)
            self._acquire(owner)
            first.set_result(None)

    def _next_owner(self) -> Owner | None:
        if self._in_use >= self._capacity:
            return None
        for app, users in self._waiting.items():
            if self._by_app[app] < self._per_application:
                for user in users:
                    if self._by_owner[app, user] < self._per_user:
                        return app, user
        return None

    def _remove(self, owner: Owner, waiting: asyncio.Future[None]) -> None:
        app, user = owner
        users = self._waiting.get(app)
        if users is None or user not in users or waiting not in users[user]:
            return
        users[user].remove(waiting)
        _decrement(self._queued, app)
        if not users[user]:
            del users[user]
        if not users:
            del self._waiting[app]


def _decrement(counts: Counter[T], name: T) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]


def fraction_of(whole: int, part: float) -> int:
    """The fraction ``part`` of ``whole``, rounded up, at least 1."""
    return max(1, ceil(whole * part))


# Owner of the current task ------------------------------------------------------------------------------------------


def set_owner(owner: Owner | None) -> None:
    """Set the owner of the current task's work; ``None`` is the server itself."""
    _owner.set(owner)


def current_owner() -> Owner | None:
    return _owner.get()
