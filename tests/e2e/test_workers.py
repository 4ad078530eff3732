"""``palaver serve --workers``: several processes behind one port, started and shut down together."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import psutil
import pytest
import requests
from support.databases import Databases
from support.kit import run
from support.server_process import Installation, heard, installed, lines
from support.tcp_proxies import Neighbours, neighbours

from palaver.http.merged_metrics import merge_metrics, without_gauges
from palaver.http.uvicorn_server import bind_socket
from palaver.store.driver import connect
from palaver.supervisor import SharedPort

pytestmark = pytest.mark.e2e

WORKERS = 2


def workers_of(server: Installation) -> list[psutil.Process]:
    assert server.server is not None
    return [child for child in psutil.Process(server.server.pid).children() if child.cmdline()[-1:] == ["worker"]]


def eventually(ask: Callable[[], bool], *, within: float = 10.0) -> None:
    until = time.monotonic() + within
    while not ask():
        assert time.monotonic() < until, f"not within {within} s"


def logged(server: Installation, event: str) -> int:
    """How often the log has that event."""
    return server.log.read_text().count(f'"event": "{event}"')


def all_up(server: Installation) -> None:
    eventually(lambda: logged(server, "worker ready") >= WORKERS)


@contextmanager
def crew(cluster: Databases, **environment: str) -> Generator[Neighbours]:
    """One server with its workers, on a database of its own."""
    with neighbours(cluster, 1, **environment) as one:
        one.first.start("--workers", str(WORKERS))
        all_up(one.first)
        yield one


@pytest.fixture(scope="module")
def standing(cluster: Databases) -> Generator[Neighbours]:
    """One that serves all tests which leave it as it was."""
    with crew(cluster) as one:
        yield one
        one.first.stop()


def test_workers_come_back_and_end_together_and_leave_nothing() -> None:
    with installed() as place:
        place.start("--workers", str(WORKERS))
        all_up(place)
        eventually(lambda: "'palaver demo' shows" in place.log.read_text())
        printed = place.log.read_text()
        assert printed.count(f"address  {place.url}\n") == 1, "one welcome for all"
        assert printed.count("'palaver demo' shows") == 1
        before = workers_of(place)
        assert len(before) == WORKERS
        before[0].kill()
        psutil.wait_procs(before[:1], timeout=5)
        for _ in range(10):  # on new connections: the other one has them all
            assert requests.get(f"{place.url}/readyz", timeout=5).ok
        eventually(lambda: logged(place, "worker ready") == WORKERS + 1)
        after = workers_of(place)
        assert before[0].pid not in {worker.pid for worker in after}
        assert len(after) == WORKERS
        assert place.stop() < 10
        assert place.server is not None
        assert place.server.returncode == 0
        assert place.left() == [], "PostgreSQL is stopped as well"
        assert [worker for worker in after if worker.is_running()] == []
        assert place.log.read_text().count("Traceback") == 0


def test_whoever_is_asked_for_figures_tells_the_sum_and_no_sum_falls(standing: Neighbours) -> None:
    place = standing.first

    def served() -> int:
        """Requests that found no route, as ``/metrics`` counts them."""
        text = requests.get(f"{place.url}/metrics", timeout=5).text
        return sum(int(float(value)) for value in re.findall(r'palaver_requests_total\{.*status="404"\} (\S+)', text))

    for _ in range(40):
        requests.get(f"{place.url}/nowhere", timeout=5)
    assert [served() for _ in range(10)] == [40] * 10
    both = set(re.findall(r'"event": "request".*"worker": (\d)', place.log.read_text()))
    assert len(both) == WORKERS, "they share the work, and the log says who did what"
    doomed = workers_of(place)[:1]
    doomed[0].kill()
    psutil.wait_procs(doomed, timeout=5)
    eventually(lambda: logged(place, "worker exited") == 1)
    assert served() == 40
    eventually(lambda: logged(place, "worker ready") == WORKERS + 1)


def test_a_port_that_others_share_is_taken_for_anybody_else(standing: Neighbours) -> None:
    with pytest.raises(OSError, match="in use"):
        SharedPort("127.0.0.1", standing.first.port)
    with SharedPort("127.0.0.1", 0) as port, port.worker_socket() as one, port.worker_socket() as other:
        assert {one.getsockname()[1], other.getsockname()[1]} == {port.number}
        one.listen()
        other.listen()
        with pytest.raises(OSError, match="in use"):
            bind_socket("127.0.0.1", port.number)


def test_ctrl_c_reaches_each_worker_once_and_saves_what_does_not_end_in_time(cluster: Databases) -> None:
    """A terminal sends it to a whole group of processes; a worker that hears it twice lets no turn end."""
    with crew(cluster, PALAVER_DRAIN_S="1.5") as one:
        key, short, long = one.key(), one.agent("begun", {"wait": 0.3}, " and done"), one.agent("begun", {"wait": 60})
        agents = [short, long] * 3
        streams = [
            lines(one.first.chat(key.secret, agent.id, conversationId=f"c{number}"))
            for number, agent in enumerate(agents)
        ]
        assert [next(stream)["content"] for stream in streams] == ["begun"] * 6
        workers = workers_of(one.first)
        assert one.first.server is not None
        assert os.getpgid(one.first.server.pid) not in {os.getpgid(worker.pid) for worker in workers}
        assert one.first.stop(signal.SIGINT) < 10
        assert [worker for worker in workers if worker.is_running()] == []
        assert [heard(stream)[1] for stream in streams] == [False, True] * 3
        ends = [("assistant", "begun and done", "complete"), ("assistant", "begun", "interrupted")]
        assert [one.said(f"c{number}")[-1] for number in range(6)] == ends * 3


def test_workers_whose_parent_was_killed_end_in_order(cluster: Databases) -> None:
    with crew(cluster) as one:
        key, agent = one.key(), one.agent("begun", {"wait": 60})
        stream = lines(one.first.chat(key.secret, agent.id, conversationId="c"))
        assert next(stream)["content"] == "begun"
        workers = workers_of(one.first)
        one.first.stop(signal.SIGKILL)
        assert psutil.wait_procs(workers, timeout=10)[1] == []
        assert heard(stream)[1]
        assert one.said("c")[-1] == ("assistant", "begun", "interrupted")
        assert logged(one.first, "parent process exited") == WORKERS


def test_workers_that_cannot_start_are_one_line_and_the_end(cluster: Databases) -> None:
    role = f"few_{os.getpid()}"

    async def limit() -> None:
        connection = await connect(one.url, timeout=5)
        try:
            await connection.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 2")
            await connection.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
            for kind in ("TABLES", "SEQUENCES"):
                await connection.execute(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {role}")
        finally:
            await connection.close()

    with neighbours(cluster, 1) as one:
        run(limit())
        one.first.environment["PALAVER_DATABASE_URL"] = one.url.replace("palaver@", f"{role}@")
        with pytest.raises(AssertionError, match=r"worker \d did not start"):
            one.first.palaver("serve", "--workers", str(WORKERS))


FIRST = b"""# HELP runs_total Runs
# TYPE runs_total counter
runs_total{status="complete"} 2.0
runs_total{status="failed"} 1.0
# HELP live Live runs
# TYPE live gauge
live 3.0
"""
SECOND = b"""# HELP runs_total Runs
# TYPE runs_total counter
runs_total{status="complete"} 40.0
runs_total{status="stopped"} 0.5
# HELP live Live runs
# TYPE live gauge
live 4.0
"""


def test_figures_are_added_up_by_name_and_labels() -> None:
    assert merge_metrics([FIRST, SECOND, b""]) == (
        b"# HELP runs_total Runs\n"
        b"# TYPE runs_total counter\n"
        b'runs_total{status="complete"} 42.0\n'
        b'runs_total{status="failed"} 1.0\n'
        b'runs_total{status="stopped"} 0.5\n'
        b"# HELP live Live runs\n"
        b"# TYPE live gauge\n"
        b"live 7.0\n"
    )


def test_of_a_process_that_is_gone_only_what_it_counted_stays() -> None:
    assert b"live" not in without_gauges(FIRST)
    assert merge_metrics([without_gauges(FIRST), SECOND]).endswith(b"live 4.0\n")
