"""Turns at what there is little of: they go round the applications, and within one round an application's end users.

So nobody's work holds up somebody else's, however much of it waits.
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
"""How many of an application wait for a turn, unless it is said otherwise."""

T = TypeVar("T")

_owner: ContextVar[Owner | None] = ContextVar("owner", default=None)


class QueueTimeout(Exception):  # noqa: N818  nobody's mistake
    """``full``: too many wait already. Otherwise it did not come in time."""

    def __init__(self, *, full: bool) -> None:
        super().__init__("too many wait" if full else "it did not come in time")
        self.full = full


class FairQueue:
    """Who gets one of ``places`` next. An end user has at most ``each`` of them, an application ``of_app``: all but
    one, unless it is said otherwise."""

    def __init__(
        self, places: int, each: int, *, of_app: int | None = None, max_waiting: int = MAX_WAITING_PER_APPLICATION
    ) -> None:
        self._places = places
        self._each = each
        self._of_app = max(each, places - 1) if of_app is None else of_app
        self._max_waiting = max_waiting
        self._taken: Counter[Owner] = Counter()
        self._of: Counter[int] = Counter()
        self._all = 0
        self._waiting: OrderedDict[int, OrderedDict[int | str, deque[asyncio.Future[None]]]] = OrderedDict()
        self._queued: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        return self._queued.total()

    @asynccontextmanager
    async def turn(self, owner: Owner, within: float) -> AsyncGenerator[None]:
        """Raises ``QueueTimeout`` where too many of the application wait, or this one for more than ``within``
        seconds."""
        if self._has_place(owner):  # who waits now has no right to it
            self._take(owner)
        else:
            await self._wait(owner, within)
        try:
            yield
        finally:
            self._leave(owner)

    async def _wait(self, owner: Owner, within: float) -> None:
        if self._queued[owner[0]] >= self._max_waiting:
            raise QueueTimeout(full=True)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner[0], OrderedDict()).setdefault(owner[1], deque()).append(mine)
        self._queued[owner[0]] += 1
        self._hand_out()
        try:
            async with asyncio.timeout(within):
                await mine
        except (asyncio.CancelledError, TimeoutError) as gone:
            if not mine.cancelled():  # it came at the same moment
                self._leave(owner)
            else:
                self._forget(owner, mine)
            if isinstance(gone, TimeoutError):
                raise QueueTimeout(full=False) from None
            raise

    def _has_place(self, owner: Owner) -> bool:
        return self._all < self._places and self._of[owner[0]] < self._of_app and self._taken[owner] < self._each

    def _take(self, owner: Owner) -> None:
        self._taken[owner] += 1
        self._of[owner[0]] += 1
        self._all += 1

    def _leave(self, owner: Owner) -> None:
        self._all -= 1
        _less(self._of, owner[0])
        _less(self._taken, owner)
        self._hand_out()

    def _hand_out(self) -> None:
        while (owner := self._next()) is not None:
            app, user = owner
            users = self._waiting[app]
            first = users[user][0]
            self._forget(owner, first)
            if first.cancelled():  # who waited for it does not know yet
                continue
            if user in users:
                users.move_to_end(user)
            if app in self._waiting:
                self._waiting.move_to_end(app)
            self._take(owner)
            first.set_result(None)

    def _next(self) -> Owner | None:
        if self._all >= self._places:
            return None
        for app, users in self._waiting.items():
            if self._of[app] < self._of_app:
                for user in users:
                    if self._taken[app, user] < self._each:
                        return app, user
        return None

    def _forget(self, owner: Owner, waiting: asyncio.Future[None]) -> None:
        app, user = owner
        users = self._waiting.get(app)
        if users is None or user not in users or waiting not in users[user]:
            return
        users[user].remove(waiting)
        _less(self._queued, app)
        if not users[user]:
            del users[user]
        if not users:
            del self._waiting[app]


def _less(counts: Counter[T], name: T) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]


def share(whole: int, part: float) -> int:
    """So much of ``whole``, and at least one."""
    return max(1, ceil(whole * part))


# For whom -----------------------------------------------------------------------------------------------------------


def set_owner(owner: Owner | None) -> None:
    """What this task does from now on is done for ``owner``, for the server itself without one."""
    _owner.set(owner)


def current_owner() -> Owner | None:
    return _owner.get()
