"""The driver, as far as palaver uses it, with types: the only module that imports asyncpg."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from palaver.core.problems import Internal, Unstorable

_asyncpg = cast("Any", asyncpg)

FAILURES: tuple[type[Exception], ...] = (
    _asyncpg.PostgresError,
    _asyncpg.InterfaceError,
    _asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""Everything that can go wrong between here and PostgreSQL."""


GIVEN_WAY: tuple[type[Exception], ...] = (
    _asyncpg.DeadlockDetectedError,
    _asyncpg.SerializationError,
)
"""The statement was undone so that somebody else's could go on; it may be tried again."""

_ENDED: tuple[type[Exception], ...] = (
    _asyncpg.AdminShutdownError,
    _asyncpg.CrashShutdownError,
    _asyncpg.CannotConnectNowError,
    _asyncpg.DatabaseDroppedError,
    _asyncpg.IdleSessionTimeoutError,
    _asyncpg.IdleInTransactionSessionTimeoutError,
)
"""PostgreSQL's last words on a connection that it ends."""

_LOST: tuple[type[Exception], ...] = (*_ENDED, _asyncpg.PostgresConnectionError, ConnectionError)


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
    def get_server_pid(self) -> int: ...
    def is_closed(self) -> bool: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def terminate(self) -> None: ...


class Pool(Protocol):
    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]: ...
    def get_size(self) -> int: ...
    def get_idle_size(self) -> int: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...


async def connect(
    url: str, *, timeout: float, name: str = "palaver", settings: Mapping[str, str] | None = None
) -> Connection:
    """One connection of its own, on which ``settings`` hold. Nothing is prepared on it by name: a pooler may lead each
    transaction to another session. Raises ``Internal(reason="database")``."""
    try:
        made = await _asyncpg.connect(
            url, timeout=timeout, statement_cache_size=0, server_settings={"application_name": name}
        )
    except (*FAILURES, ValueError) as error:
        raise failure(error) from error
    connection = cast("Connection", made)
    try:
        await _configure(connection, settings or {})
    except FAILURES as error:
        connection.terminate()
        raise failure(error) from error
    return connection


@asynccontextmanager
async def connected(url: str, *, timeout: float) -> AsyncGenerator[Connection]:
    """One connection while the block lasts. Raises ``Internal(reason="database")``, whatever of the driver's failed."""
    connection = await connect(url, timeout=timeout)
    try:
        yield connection
        await connection.close(timeout=5)
    except FAILURES as error:
        raise failure(error) from error
    finally:
        connection.terminate()


async def _configure(connection: Connection, settings: Mapping[str, str]) -> None:
    """By statement: PgBouncer refuses a connection that brings parameters which it does not know."""
    if settings:
        await connection.fetch(
            "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)",
            list(settings),
            list(settings.values()),
        )


async def _nothing_to_reset(_: Connection) -> None:
    """What a statement leaves behind on its connection: nothing, as none sets, locks or listens for its session. The
    driver's own reset is a round trip after every statement."""


async def pool(url: str, *, size: int, timeout: float, settings: Mapping[str, str], shared: bool) -> Pool:
    """A pool of up to ``size`` connections, each statement bounded by ``timeout`` seconds. ``shared``: a pooler may
    lead each transaction to another session, so nothing is set or prepared in one."""

    async def configure(connection: Connection) -> None:
        await _configure(connection, {} if shared else settings)

    more: dict[str, Any] = {"statement_cache_size": 0} if shared else {}
    try:
        made = await _asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            init=configure,
            reset=_nothing_to_reset,
            command_timeout=timeout,
            timeout=timeout,
            server_settings={"application_name": "palaver", "timezone": "UTC"},
            **more,
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


# Lost connections ---------------------------------------------------------------------------------------------------


def lost(error: BaseException) -> bool:
    """Whether ``error`` means that the connection is gone, or that there was none to be had."""
    return isinstance(error, _LOST) or type(error) in {_asyncpg.InterfaceError, _asyncpg.InternalClientError}


def undone(error: BaseException) -> bool:
    """Whether PostgreSQL, for certain, has done nothing of what was on its way when the connection was lost.

    The driver refuses, before it sends anything, to use a connection that it knows to be closed. A packet that could
    not be written whole lacks its end, the Sync, at which PostgreSQL commits. And PostgreSQL says an error only of what
    it undoes: once it has committed it ends a connection without a word.
    """
    if type(error) in {_asyncpg.InterfaceError, _asyncpg.InternalClientError}:
        return True
    last_words = (*_ENDED, BrokenPipeError)
    return isinstance(error, last_words) or isinstance(error.__cause__, last_words)


async def usable(connection: Connection) -> bool:
    """Whether nothing says that ``connection`` is gone: what PostgreSQL sent on it while it was idle is read first."""
    try:
        if connection.is_closed():
            return False
        transport = cast("Any", connection)._transport  # noqa: SLF001  the driver does not say what waits to be read
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        for _ in range(3):  # the words, then the end
            if not poll.poll(0):
                break
            await asyncio.sleep(0)
        return not connection.is_closed()
    except _asyncpg.InterfaceError:  # the pool has it back already
        return False


# Poolers ------------------------------------------------------------------------------------------------------------


async def shares_sessions(url: str, connection: Connection, *, timeout: float) -> bool:
    """Whether ``connection``, made to ``url``, leads to a pooler that gives a session to whoever has a transaction.

    A pooler tells a client a process of its own invention. If there is one, a second client shows whether both come
    to the same session, or one of them to several.
    """
    mine: int = await connection.fetchval("SELECT pg_backend_pid()", timeout=timeout)
    if mine == connection.get_server_pid():
        return False
    async with connected(url, timeout=timeout) as other:
        for _ in range(5):
            async with other.transaction():
                theirs: int = await other.fetchval("SELECT pg_backend_pid()", timeout=timeout)
                if theirs == mine or mine != await connection.fetchval("SELECT pg_backend_pid()", timeout=timeout):
                    return True
    return False
