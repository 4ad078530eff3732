"""PgBouncer: session mode works, transaction mode works with a direct URL, and is refused without one."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.commands import Palaver
from support.databases import Databases
from support.kit import run
from support.pgbouncer import PROGRAM, pooled
from support.server_process import heard, lines
from support.tcp_proxies import Neighbours, neighbours

from palaver.store.driver import connection_to
from palaver.store.migrate import migrate, migrations

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROGRAM is None and not os.environ.get("CI"), reason="pgbouncer is not installed"),
]


@pytest.fixture
def pair(cluster: Databases) -> Generator[Neighbours]:
    """Two servers that do not run yet."""
    with neighbours(cluster) as two:
        yield two


def locks(url: str) -> int:
    """Advisory locks that anybody holds in that database."""

    async def count() -> int:
        async with connection_to(url, timeout=10) as connection:
            held: int = await connection.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            return held

    return run(count())


def findings(pair: Neighbours, **environment: str) -> dict[str, tuple[str, str, str]]:
    """What ``palaver doctor`` says."""
    program = Palaver(pair.first.folder, None, **{**pair.first.environment, "PALAVER_PORT": "0", **environment})
    report = json.loads(program.run("doctor", "--json").stdout)
    return {found["subject"]: (found["level"], found["says"], found["remedy"]) for found in report["findings"]}


def behave(pair: Neighbours) -> None:
    """Forty conversations at a time over both servers, and what one process does for another one."""
    for server in pair.servers:
        server.start()
    key, agent, slow = pair.key(), pair.agent("said"), pair.agent("begun", {"wait": 60})

    def talk(number: int) -> str:
        server = pair.servers[number % 2]
        events = [list(lines(server.chat(key.secret, agent.id, conversationId=f"c{number % 40}"))) for _ in range(3)]
        return events[-1][-1]["fullText"]

    with ThreadPoolExecutor(max_workers=40) as threads:
        assert set(threads.map(talk, range(80))) == {"said"}
    assert len(pair.said("c7")) == 12
    repeated = {"Idempotency-Key": "once"}
    stream = lines(pair.first.chat(key.secret, slow.id, conversationId="slow", headers=repeated))
    assert next(stream)["content"] == "begun"
    followed = lines(pair.second.chat(key.secret, slow.id, conversationId="slow", headers=repeated))
    assert next(followed)["content"] == "begun"
    assert pair.first.server is not None
    pair.first.server.kill()
    assert heard(stream)[1]
    assert [event["type"] for event in heard(followed)[0]][-1] == "error", "the other one ended what it left behind"
    pair.second.stop()
    pair.first.server.wait(10)
    for server in pair.servers:
        assert '"level": "error"' not in server.log.read_text()
        assert "statement failed" not in server.log.read_text()


def test_in_session_mode_everything_is_as_without_it(pair: Neighbours) -> None:
    with pooled(pair.url, "session", sessions=40) as address:
        for server in pair.servers:
            server.environment["PALAVER_DATABASE_URL"] = address
        assert [subject for subject, (level, _, _) in findings(pair).items() if level == "wrong"] == []
        behave(pair)
        assert locks(pair.url) == 0


def test_in_transaction_mode_with_a_direct_address_everything_works_on_few_sessions(pair: Neighbours) -> None:
    with pooled(pair.url, "transaction", sessions=3) as address:
        for server in pair.servers:
            server.environment["PALAVER_DATABASE_URL"] = address
            server.environment["PALAVER_DATABASE_DIRECT_URL"] = pair.url
        assert [subject for subject, (level, _, _) in findings(pair).items() if level == "wrong"] == []
        behave(pair)
        assert locks(pair.url) == 0


def test_in_transaction_mode_alone_it_is_refused_at_once_and_nothing_is_left_behind(pair: Neighbours) -> None:
    with pooled(pair.url, "transaction", sessions=3) as address:
        program = Palaver(pair.first.folder, address)
        for words in (["serve", "--port", "0"], ["app", "list"], ["serve", "--port", "0", "--workers", "2"]):
            assert "PALAVER_DATABASE_DIRECT_URL" in program.refused(*words)
        level, says, remedy = findings(pair, PALAVER_DATABASE_URL=address)["sessions"]
        assert level == "wrong"
        assert "transaction mode" in says
        assert "PALAVER_DATABASE_DIRECT_URL" in remedy
        through = {"PALAVER_DATABASE_URL": address, "PALAVER_DATABASE_DIRECT_URL": address}
        assert findings(pair, **through)["sessions"][0] == "wrong"
        assert locks(pair.url) == 0


def test_a_direct_address_of_another_database_is_refused(pair: Neighbours, cluster: Databases) -> None:
    with pooled(pair.url, "transaction", sessions=3) as address:
        program = Palaver(pair.first.folder, address, PALAVER_DATABASE_DIRECT_URL=cluster.at("template"))
        assert "leads to another database" in program.refused("app", "list")


def test_the_lock_of_migrations_ends_with_them_in_transaction_mode(cluster: Databases) -> None:
    name, url = run(cluster.create(""))
    shipped = [name for _, name, _ in migrations()]
    try:
        with pooled(url, "transaction", sessions=3) as address, ThreadPoolExecutor() as threads:
            done = [threads.submit(lambda: run(migrate(address))) for _ in range(4)]
            assert sorted((one.result() for one in done), key=len) == [[], [], [], shipped]
            assert locks(url) == 0
    finally:
        run(cluster.drop(name))
