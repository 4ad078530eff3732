"""PostgreSQL ends connections while statements run on them: none is lost, none is done twice, no caller notices."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import uvloop
from support.adapters import STREAM_FORMS
from support.http_clients import Ask
from support.kit import run
from support.live_server import Served, serving
from support.stream_forms import StreamForm, said, split

from palaver.core.problems import Internal
from palaver.store.database import Database
from palaver.store.driver import DRIVER_ERRORS, connection_to, is_connection_lost, is_rolled_back

_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


class ConnectionKiller:
    """Ends every connection to the database every ``interval_s`` until ``stop``; ``ended`` counts them."""

    def __init__(self, url: str, *, interval_s: float) -> None:
        self._url = url
        self._interval_s = interval_s
        self._stopped = False
        self.ended = 0

    async def run(self) -> None:
        async with connection_to(self._url, timeout=10) as connection:
            while not self._stopped:
                self.ended += len(await connection.fetch(_OTHERS))
                await asyncio.sleep(self._interval_s)

    def stop(self) -> None:
        self._stopped = True


# Statements ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_statements_are_done_exactly_once_while_connections_are_ended(
    database_url: str, runs: Callable[[Any], None]
) -> None:
    async def scene() -> None:
        database = Database(database_url)
        await database.open()
        try:
            await database.execute("CREATE TABLE note (writer integer, number integer)")
            killer = ConnectionKiller(database_url, interval_s=0.1)
            killing = asyncio.create_task(killer.run())
            counts = await asyncio.gather(*(write(database, writer, killer) for writer in range(12)))
            killer.stop()
            await killing
            assert database.lost_connections > 20, "as the figures tell it"
            assert (database.usage.used, database.usage.waiting) == (0, 0)
            rows = await database.fetch("SELECT writer, number FROM note ORDER BY 1, 2")
            assert [(row["writer"], row["number"]) for row in rows] == [
                (writer, number) for writer, count in enumerate(counts) for number in range(count)
            ]
        finally:
            await database.close()

    runs(scene())


async def write(database: Database, writer: int, killer: ConnectionKiller) -> int:
    """One row after the other, in every way there is, until 100 connections were ended meanwhile; how many rows."""
    insert = "INSERT INTO note VALUES ($1, $2)"
    number = 0
    while number < 10 or killer.ended < 100:
        match number % 3:
            case 0:
                await database.execute(insert, writer, number)
            case 1:
                assert await database.fetchval(f"{insert} RETURNING number", writer, number) == number
            case _:
                await database.transaction([("SELECT 1", ()), (insert, (writer, number)), ("SELECT 2", ())])
        assert await database.fetchval("SELECT $1::integer", number) == number
        number += 1
    return number


class Relay:
    """Between a client and PostgreSQL; it can lose the answer of what it has handed on."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._tasks: list[asyncio.Task[None]] = []
        self.breaking = False
        self.broken = 0

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(self._place)
        self._tasks += [
            asyncio.create_task(self._hand_on(reader, ours)),
            asyncio.create_task(self._hand_on(theirs, writer, losing=True)),
        ]

    async def _hand_on(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, losing: bool = False) -> None:
        while data := await source.read(65536):
            if losing and self.breaking and b"INSERT 0 1" in data:
                self.breaking = False
                self.broken += 1
                break
            to.write(data)
        to.close()


async def test_a_write_whose_connection_breaks_without_a_word_is_not_repeated(database_url: str) -> None:
    """Here it was done. A read is harmless, and is tried again."""
    parts = urlsplit(database_url)
    place = parse_qs(parts.query)
    relay = Relay(f"{place['host'][0]}/.s.PGSQL.{place['port'][0]}")

    async with await asyncio.start_server(relay.meet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        database = Database(f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?sslmode=disable")
        await database.open()
        await database.execute("CREATE TABLE note (number integer)")
        relay.breaking = True
        with pytest.raises(Internal, match="database"):
            await database.execute("INSERT INTO note VALUES (1)")
        assert (relay.broken, await database.fetchval("SELECT count(*) FROM note")) == (1, 1)
        await database.execute(
            "CREATE FUNCTION put(integer) RETURNS integer LANGUAGE sql AS 'INSERT INTO note VALUES ($1) RETURNING 1'"
        )
        relay.breaking = True
        with pytest.raises(Internal, match="database"):
            await database.call("SELECT 'INSERT 0 1', put(2)")
        assert (relay.broken, await database.fetchval("SELECT count(*) FROM note")) == (2, 2)
        relay.breaking = True
        assert await database.fetchval("SELECT 'INSERT 0 1'") == "INSERT 0 1"
        assert relay.broken == 3
        await database.close()


# The driver's errors ------------------------------------------------------------------------------------------------


def _errors() -> list[type[Exception]]:
    module = importlib.import_module("asyncpg.exceptions")
    return [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, Exception) and not issubclass(value, Warning)
    ]


def test_every_error_of_the_driver_is_one_of_the_database_s() -> None:
    errors = _errors()
    assert len(errors) > 200
    assert [error for error in errors if not issubclass(error, DRIVER_ERRORS)] == []


def test_the_errors_that_mean_a_lost_connection() -> None:
    names = {error.__name__ for error in _errors() if is_connection_lost(error("x"))}
    assert names == {
        "AdminShutdownError",
        "CannotConnectNowError",
        "ClientCannotConnectError",
        "ConnectionDoesNotExistError",
        "ConnectionFailureError",
        "ConnectionRejectionError",
        "CrashShutdownError",
        "DatabaseDroppedError",
        "IdleInTransactionSessionTimeoutError",
        "IdleSessionTimeoutError",
        "InterfaceError",
        "InternalClientError",
        "PostgresConnectionError",
        "ProtocolViolationError",
        "TransactionResolutionUnknownError",
    }
    for error in (ConnectionResetError(), BrokenPipeError(), ConnectionRefusedError()):
        assert is_connection_lost(error)
    for error in (TimeoutError(), ValueError()):
        assert not is_connection_lost(error)


def test_a_connection_that_broke_is_no_proof_that_nothing_was_done() -> None:
    errors = {error.__name__: error for error in _errors()}
    broken, closing = errors["ConnectionDoesNotExistError"]("x"), errors["ConnectionDoesNotExistError"]("x")
    closing.__cause__ = errors["AdminShutdownError"]("terminating connection")
    assert (is_rolled_back(broken), is_rolled_back(ConnectionResetError()), is_rolled_back(closing)) == (
        False,
        False,
        True,
    )


# Callers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Generator[Served]:
    with serving(database_url, tmp_path) as server:
        yield server


@pytest.mark.e2e
def test_no_caller_of_any_dialect_notices_that_connections_are_ended(served: Served, database_url: str) -> None:
    agent = served.agent("quick")
    asks = [form.ask(served, agent) for form in STREAM_FORMS]

    killer = ConnectionKiller(database_url, interval_s=0.3)

    def talk(form: StreamForm, ask: Ask) -> None:
        """At least three calls, until 30 connections were ended meanwhile."""
        calls = 0
        while calls < 3 or killer.ended < 30:
            with served.connection() as connection:
                connection.send(ask)
                answer = connection.answer()
            assert answer.complete, (form.name, answer.body[-500:])
            assert answer.body.endswith(form.mark), (form.name, answer)  # a refusal does not, which is no stream
            assert "quick" in str(said(split([answer.body], form.mark))), (form.name, answer.body[-500:])
            calls += 1

    with ThreadPoolExecutor(max_workers=len(STREAM_FORMS) + 1) as threads:
        killing = threads.submit(lambda: run(killer.run()))
        try:
            list(threads.map(talk, STREAM_FORMS, asks))
        finally:
            killer.stop()
    killing.result()
