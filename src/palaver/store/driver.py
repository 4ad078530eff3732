"""A typed interface to asyncpg, as far as palaver uses it: the only module that imports it."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from palaver.core.problems import Internal, Unstorable

_asyncpg = cast("Any", asyncpg)

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    _asyncpg.PostgresError,
    _asyncpg.InterfaceError,
    _asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""Every exception that the driver raises, including those of the network."""

RETRYABLE_ERRORS: tuple[type[Exception], ...] = (
    _asyncpg.DeadlockDetectedError,
    _asyncpg.SerializationError,
)
"""The statement was rolled back in favour of a concurrent one and may be retried."""

_SHUTDOWN_ERRORS: tuple[type[Exception], ...] = (
    _asyncpg.AdminShutdownError,
    _asyncpg.CrashShutdownError,
    _asyncpg.CannotConnectNowError,
    _asyncpg.DatabaseDroppedError,
    _asyncpg.IdleSessionTimeoutError,
    _asyncpg.IdleInTransactionSessionTimeoutError,
)
"""Errors that PostgreSQL sends before it closes a connection."""

_CONNECTION_LOST_ERRORS: tuple[type[Exception], ...] = (
    *_SHUTDOWN_ERRORS,
    _asyncpg.PostgresConnectionError,
    ConnectionError,
)
_CLIENT_ERRORS = {_asyncpg.InterfaceError, _asyncpg.InternalClientError}
"""The exact types of the errors that the driver raises for a closed connection; their subclasses mean something
else."""


class Row(Protocol):
    """A row of a result; columns are indexed by name or position."""

    def __getitem__(self, key: str | int, /) -> Any: ...


class Connection(Protocol):
    """An ``asyncpg.Connection``. ``timeout`` is in seconds."""

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
    """An ``asyncpg.Pool``."""

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]: ...
    def get_size(self) -> int: ...
    def get_idle_size(self) -> int: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...


async def connect(
    url: str, *, timeout: float, name: str = "palaver", settings: Mapping[str, str] | None = None
) -> Connection:
    """Open a connection outside of the pool with these ``settings``. It uses no named prepared statements, because a
    pooler may run each transaction in another session. Raises ``Internal(reason="database")``."""
    try:
        made = await _asyncpg.connect(
            url, timeout=timeout, statement_cache_size=0, server_settings={"application_name": name}
        )
    except (*DRIVER_ERRORS, ValueError) as error:
        raise to_problem(error) from error
    connection = cast("Connection", made)
    try:
        await _configure(connection, settings or {})
    except DRIVER_ERRORS as error:
        connection.terminate()
        raise to_problem(error) from error
    return connection


@asynccontextmanager
async def connection_to(url: str, *, timeout: float) -> AsyncGenerator[Connection]:
    """A connection that is open during the block. Errors of the driver in it are raised as
    ``Internal(reason="database")``."""
    connection = await connect(url, timeout=timeout)
    try:
        yield connection
        await connection.close(timeout=5)
    except DRIVER_ERRORS as error:
        raise to_problem(error) from error
    finally:
        connection.terminate()


async def _configure(connection: Connection, settings: Mapping[str, str]) -> None:
    """Set them by a statement: PgBouncer rejects connections with startup parameters that it does not know."""
    if settings:
        await connection.fetch(
            "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS s (name, value)",
            list(settings),
            list(settings.values()),
        )


async def _skip_reset(_: Connection) -> None:
    """Replaces the driver's reset, a round trip after every statement: no statement leaves session state behind."""


async def create_pool(
    url: str, *, size: int, timeout: float, settings: Mapping[str, str], transaction_pooler: bool
) -> Pool:
    """Create a pool of up to ``size`` connections; ``timeout`` is that of a statement, in seconds. With a
    ``transaction_pooler``, which may run each transaction in another session, nothing is set or prepared in a
    session. Raises ``Internal(reason="database")``."""

    async def configure(connection: Connection) -> None:
        await _configure(connection, {} if transaction_pooler else settings)

    options: dict[str, Any] = {"statement_cache_size": 0} if transaction_pooler else {}
    try:
        made = await _asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            init=configure,
            reset=_skip_reset,
            command_timeout=timeout,
            timeout=timeout,
            server_settings={"application_name": "palaver", "timezone": "UTC"},
            **options,
        )
    except (*DRIVER_ERRORS, ValueError) as error:
        raise to_problem(error) from error
    return cast("Pool", made)


def to_problem(error: BaseException) -> Internal:
    """The driver's error as a ``Problem``: ``Unstorable`` if the values caused it, else ``Internal``."""
    kind = Unstorable if _is_value_error(error) else Internal
    return kind(reason="database", detail=f"{type(error).__name__}: {error}".rstrip(": "))


_CLASSES_UNRELATED_TO_VALUES = frozenset(("08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58"))
"""SQLSTATE classes that do not concern the values: connection, resources, privileges, syntax, rollback, …"""


def _is_value_error(error: BaseException) -> bool:
    """Whether PostgreSQL rejected the values of a statement, or the driver could not encode them."""
    if isinstance(error, DRIVER_ERRORS[0]):
        return str(getattr(error, "sqlstate", None) or "08")[:2] not in _CLASSES_UNRELATED_TO_VALUES
    return isinstance(error, DRIVER_ERRORS[1]) and isinstance(error, ValueError)


# Lost connections ---------------------------------------------------------------------------------------------------


def is_connection_lost(error: BaseException) -> bool:
    """Whether ``error`` means that the connection was lost or could not be made."""
    return isinstance(error, _CONNECTION_LOST_ERRORS) or type(error) in _CLIENT_ERRORS


def is_rolled_back(error: BaseException) -> bool:
    """Whether the statement certainly had no effect when the connection was lost.

    The driver sends nothing on a connection that it knows to be closed. A message that could not be written completely
    lacks the final Sync, at which PostgreSQL commits. And PostgreSQL sends an error only for what it rolls back: after
    a commit it closes the connection without one.
    """
    if type(error) in _CLIENT_ERRORS:
        return True
    without_commit = (*_SHUTDOWN_ERRORS, BrokenPipeError)
    return isinstance(error, without_commit) or isinstance(error.__cause__, without_commit)


async def is_usable(connection: Connection) -> bool:
    """Whether ``connection`` is still open, after reading what PostgreSQL has sent on it while it was idle."""
    try:
        if connection.is_closed():
            return False
        transport = cast("Any", connection)._transport  # noqa: SLF001  no public API tells whether data is waiting
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        for _ in range(3):  # the error message, then the end of the stream
            if not poll.poll(0):
                break
            await asyncio.sleep(0)
        return not connection.is_closed()
    except _asyncpg.InterfaceError:  # already released to the pool
        return False


# Poolers ------------------------------------------------------------------------------------------------------------


async def is_transaction_pooler(url: str, connection: Connection, *, timeout: float) -> bool:
    """Whether ``connection``, opened to ``url``, goes through a pooler that assigns a session per transaction.

    A pooler reports a made-up server process id to its clients. If it does, a second client tests whether both get the
    same session, or one of them gets several.
    """
    mine: int = await connection.fetchval("SELECT pg_backend_pid()", timeout=timeout)
    if mine == connection.get_server_pid():
        return False
    async with connection_to(url, timeout=timeout) as other:
        for _ in range(5):
            async with other.transaction():
                theirs: int = await other.fetchval("SELECT pg_backend_pid()", timeout=timeout)
                if theirs == mine or mine != await connection.fetchval("SELECT pg_backend_pid()", timeout=timeout):
                    return True
    return False
