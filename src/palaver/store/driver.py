"""The driver, as far as palaver uses it, with types: the only module that imports asyncpg."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from palaver.core.problems import Internal, Unstorable

FAILURES: tuple[type[Exception], ...] = (
    cast("Any", asyncpg).PostgresError,
    cast("Any", asyncpg).InterfaceError,
    OSError,
    TimeoutError,
)
"""Everything that can go wrong between here and PostgreSQL."""


GIVEN_WAY: tuple[type[Exception], ...] = (
    cast("Any", asyncpg).DeadlockDetectedError,
    cast("Any", asyncpg).SerializationError,
)
"""The statement was undone so that somebody else's could go on; it may be tried again."""


class Row(Protocol):
    """A row of a result: by column name or position."""

    def __getitem__(self, key: str | int, /) -> Any: ...


class Connection(Protocol):
    """One connection. ``timeout`` is in seconds."""

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Row]: ...
    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Row | None: ...
    async def fetchval(self, query: str, *args: Any, timeout: float | None = None) -> Any: ...
    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str: ...
    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, object], None]) -> None: ...
    def add_termination_listener(self, callback: Callable[[Any], None]) -> None: ...
    def remove_termination_listener(self, callback: Callable[[Any], None]) -> None: ...
    def transaction(self) -> AbstractAsyncContextManager[None]: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def terminate(self) -> None: ...


class Pool(Protocol):
    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...


async def connect(url: str, *, timeout: float, settings: dict[str, str] | None = None) -> Connection:
    """One connection of its own. Raises ``Internal(reason="database")``."""
    try:
        made = await cast("Any", asyncpg).connect(url, timeout=timeout, server_settings=settings or {})
    except (*FAILURES, ValueError) as error:
        raise failure(error) from error
    return cast("Connection", made)


async def _nothing_to_reset(_: Connection) -> None:
    """What a statement leaves behind on its connection: nothing, as none sets, locks or listens for its session. The
    driver's own reset is a round trip after every statement."""


async def pool(url: str, *, size: int, timeout: float, settings: dict[str, str]) -> Pool:
    """A pool of up to ``size`` connections, each statement bounded by ``timeout`` seconds."""
    try:
        made = await cast("Any", asyncpg).create_pool(
            url,
            min_size=1,
            max_size=size,
            reset=_nothing_to_reset,
            command_timeout=timeout,
            timeout=timeout,
            server_settings=settings,
        )
    except (*FAILURES, ValueError) as error:
        raise failure(error) from error
    return cast("Pool", made)


def failure(error: BaseException) -> Internal:
    """The driver's error as core knows it."""
    kind = Unstorable if _refuses(error) else Internal
    return kind(reason="database", detail=f"{type(error).__name__}: {error}".rstrip(": "))


_NOT_THE_VALUES = frozenset(("08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58"))
"""Classes of errors that say nothing of the values: no connection, no room, no right, no such table, given way."""


def _refuses(error: BaseException) -> bool:
    """Whether PostgreSQL (or the driver on its way there) took offence at the values themselves."""
    if isinstance(error, FAILURES[0]):
        return str(getattr(error, "sqlstate", None) or "08")[:2] not in _NOT_THE_VALUES
    return isinstance(error, FAILURES[1]) and isinstance(error, ValueError)
