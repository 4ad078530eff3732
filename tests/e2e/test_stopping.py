"""SIGTERM ends the server within ``drain_s + stop_s`` seconds, whatever state the database, the endpoint and the reader
are in."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psutil
import pytest
from support.kit import run
from support.model_endpoint import Act, chunk, endless, silence
from support.server_process import PALAVER, Installation, endpoint, free_port, installed, lines

from palaver.config import Settings
from palaver.store.driver import connect
from palaver.store.embedded import EmbeddedPostgres

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

DRAIN = 0.5
STOP = 4.0
"""Most tests wait for this instead of what holds where nobody says anything."""
SAID = Settings().stop_s
LEAVING = 0.5
"""Seconds that a process needs to leave, whatever it was given: a shortened time keeps too few of them."""
REMOTE = "---\nname: remote\nmodel: openai:m\n---\nSpeak.\n"
SCRIPTED = "---\nname: remote\nmodel: scripted\n---\n- repeat: {text: 'word ', times: 100000, every: 0.01}\n"


class Database(EmbeddedPostgres):
    """A PostgreSQL server of the test's own, which can be brought into every state."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.place = folder / "postgres"

    def processes(self) -> list[psutil.Process]:
        return postgres(self.place)

    def execute(self, *statements: str) -> None:
        async def work() -> None:
            connection = await connect(self._url(), timeout=10)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                connection.terminate()

        run(work())

    def address(self, user: str) -> str:
        return self._url().replace("//palaver@", f"//{user}@")


def postgres(place: Path) -> list[psutil.Process]:
    """The server that works in ``place``, and its children."""
    with suppress(FileNotFoundError, psutil.NoSuchProcess, IndexError):
        parent = psutil.Process(int((place / "postmaster.pid").read_text().split("\n")[0]))
        return [parent, *parent.children()]
    return []


def freeze(processes: list[psutil.Process], how: signal.Signals = signal.SIGSTOP) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)


@contextmanager
def as_it_is(_: Database) -> Generator[None]:
    yield


@contextmanager
def stopped(database: Database) -> Generator[None]:
    database.shut_down(signal.SIGINT)
    yield


@contextmanager
def killed(database: Database) -> Generator[None]:
    database.shut_down(signal.SIGQUIT)
    yield


@contextmanager
def hanging(database: Database) -> Generator[None]:
    freeze(database.processes())
    try:
        yield
    finally:
        freeze(database.processes(), signal.SIGCONT)


@contextmanager
def restarting(database: Database) -> Generator[None]:
    freeze(database.processes()[:1], signal.SIGINT)
    yield


@contextmanager
def full(database: Database) -> Generator[None]:
    database.execute(
        "ALTER ROLE limited CONNECTION LIMIT 0",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'limited'",
    )
    try:
        yield
    finally:
        database.execute("ALTER ROLE limited CONNECTION LIMIT -1")


@contextmanager
def locked(database: Database) -> Generator[None]:
    """Somebody holds what every statement of ours needs."""
    psql = database._bin / "psql"  # pyright: ignore[reportPrivateUsage]
    hold = "BEGIN; LOCK TABLE message, conversation IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)"
    holder = subprocess.Popen([psql, database.address("palaver"), "-c", hold], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield
    finally:
        holder.kill()
        holder.wait(5)
        holding = "query LIKE '%LOCK TABLE%' AND pid <> pg_backend_pid()"
        database.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {holding}")


@pytest.fixture(scope="module")
def database() -> Generator[Database]:
    folder = Path(mkdtemp(prefix="palaver-stopping-"))
    database = Database(folder)
    database.start()
    database.execute("CREATE ROLE limited LOGIN", "GRANT ALL ON SCHEMA public TO limited")
    try:
        yield database
    finally:
        freeze(database.processes(), signal.SIGCONT)
        database.ensure_running()
        database.release()
        shutil.rmtree(folder)


@contextmanager
def served(database: Database, *acts: Act, stop_s: float = STOP) -> Generator[tuple[Installation, str, int]]:
    """A server on ``database`` whose model is ``acts``; without any nobody listens at the model's address."""
    database.ensure_running()
    with ExitStack() as stack:
        url = stack.enter_context(endpoint(*acts)).url if acts else f"http://127.0.0.1:{free_port()}/v1"
        place = stack.enter_context(
            installed(
                PALAVER_DATABASE_URL=database.address("limited"),
                PALAVER_MASTER_KEY="00" * 32,
                PALAVER_DRAIN_S=str(DRAIN),
                PALAVER_STOP_S=str(stop_s),
                OPENAI_BASE_URL=url,
            )
        )
        place.start()
        yield place, place.key(app="a")["secret"], place.agent(REMOTE, app="a")["id"]


def stop(place: Installation) -> None:
    took = place.stop()
    stop_s = float(place.environment["PALAVER_STOP_S"])
    assert took < DRAIN + stop_s + (LEAVING if stop_s < SAID else 0), place.log.read_text()[-3000:]


@contextmanager
def reading(place: Installation, secret: str, agent: int, readers: int = 1) -> Generator[None]:
    """While so many readers follow an answer that has begun, each one of its own."""
    with ExitStack() as stack:
        for number in range(readers):
            response = stack.enter_context(place.chat(secret, agent, openId=str(number)))
            assert next(lines(response))["type"] == "text"
        yield


SILENT = silence(chunk({"content": "a"}))
DRIPPING = endless(chunk({"content": "word "}))


STATES = [as_it_is, stopped, killed, hanging, restarting, full, locked]


@pytest.mark.parametrize(
    ("state", "act"),
    [*((state, SILENT) for state in STATES), (as_it_is, DRIPPING), (hanging, DRIPPING), (full, DRIPPING)],
    ids=[*(f"{state.__name__} silent" for state in STATES), "as it is dripping", "hanging dripping", "full dripping"],
)
def test_in_every_state_of_the_database(database: Database, state: Callable[[Database], Any], act: Act) -> None:
    stops_in_order(database, state, act, STOP)


def test_when_nobody_says_how_long_a_stop_may_take(database: Database) -> None:
    assert SAID == 10
    stops_in_order(database, hanging, SILENT, SAID)


def stops_in_order(database: Database, state: Callable[[Database], Any], act: Act, stop_s: float) -> None:
    """It ends by itself, not by the last resort."""
    with served(database, act, stop_s=stop_s) as (place, secret, agent):
        with reading(place, secret, agent, 3), state(database):
            stop(place)
        assert place.server is not None
        assert place.server.returncode == 0


@pytest.mark.parametrize("state", [hanging, stopped])
def test_the_sooner_when_it_is_asked_twice(database: Database, state: Callable[[Database], Any]) -> None:
    with served(database, SILENT) as (place, secret, agent), reading(place, secret, agent), state(database):
        assert place.server is not None
        place.server.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        stop(place)


@pytest.mark.parametrize(("state", "seconds"), [(hanging, 7), (stopped, 2), (full, 2)])
def test_also_when_the_database_has_been_away_for_a_while(
    database: Database, state: Callable[[Database], Any], seconds: float
) -> None:
    with served(database, SILENT) as (place, secret, agent), reading(place, secret, agent), state(database):
        time.sleep(seconds)  # connections are being made anew; where nothing answers, statements have run out of time
        stop(place)


def test_whatever_the_endpoint_does_that_cannot_be_reached(database: Database) -> None:
    with served(database) as (place, secret, agent):
        response = place.chat(secret, agent)
        stop(place)
        response.close()


def unread(place: Installation, secret: str, agent: int) -> socket.socket:
    """A call whose answer nobody reads."""
    body = f'{{"agentId": {agent}, "openId": "ann", "content": "hi"}}'
    call = socket.socket()
    call.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    call.connect(("127.0.0.1", place.port))
    head = f"POST /snail-ai/open-api/chat HTTP/1.1\r\nHost: x\r\nSnail-Ai-Auth: {secret}\r\nContent-Length: {len(body)}"
    call.sendall(f"{head}\r\n\r\n{body}".encode())
    return call


@pytest.mark.parametrize("state", [as_it_is, hanging])
@pytest.mark.parametrize("reader", ["not reading", "gone", "waiting for the whole"])
def test_whatever_the_reader_does(database: Database, state: Callable[[Database], Any], reader: str) -> None:
    with (
        served(database, endless(chunk({"content": "word " * 20_000}))) as (place, secret, agent),
        ExitStack() as calls,
    ):
        for _ in range(3):
            assert calls.enter_context(unread(place, secret, agent)).recv(1)
        time.sleep(1)  # more has been said than fits into the sockets' buffers
        if reader == "gone":
            calls.close()
        with state(database):
            stop(place)


@pytest.mark.parametrize("state", ["stopped", "hanging", "killed"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_also_with_the_embedded_database(state: str, workers: str) -> None:
    said = {"PALAVER_DRAIN_S": str(DRAIN), "PALAVER_STOP_S": str(STOP), "PALAVER_WORKERS": workers}
    with installed(True, **said) as place:
        place.start()
        secret, agent = place.key()["secret"], place.agent(SCRIPTED)["id"]
        with reading(place, secret, agent):
            processes = postgres(place.folder / "data" / "postgres")
            assert processes
            how = {"stopped": signal.SIGINT, "hanging": signal.SIGSTOP, "killed": signal.SIGKILL}[state]
            freeze(processes if state == "hanging" else processes[:1], how)
            try:
                stop(place)
            finally:
                freeze(processes, signal.SIGCONT)


def test_while_it_starts_on_a_database_that_hangs(database: Database) -> None:
    database.ensure_running()
    with (
        installed(
            PALAVER_DATABASE_URL=database.address("limited"), PALAVER_DRAIN_S=str(DRAIN), PALAVER_STOP_S=str(STOP)
        ) as place,
        hanging(database),
        place.log.open("ab") as log,
    ):
        place.server = subprocess.Popen([PALAVER, "serve"], env=place.environment, stdout=log, stderr=log)
        time.sleep(3)  # it is about to connect
        stop(place)
