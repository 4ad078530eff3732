"""An empty database is set up by whoever comes first; an older one is migrated by who is to, under a lock."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Generator
from pathlib import Path

import pytest
from support.commands import Palaver
from support.databases import Databases
from support.kit import product, run
from support.survey import SOURCE, python, tree

import palaver
from palaver.core.problems import Internal
from palaver.store import migrate as module
from palaver.store.database import Database
from palaver.store.driver import connect, connection_to
from palaver.store.migrate import MIGRATION_LOCK, find_incompatibility, migrate, migrations

SHIPPED = [name for _, name, _ in migrations()]


@pytest.fixture
def empty_url(cluster: Databases) -> Generator[str]:
    name, url = run(cluster.create(""))
    yield url
    run(cluster.drop(name))


async def with_all_but_the_last(url: str) -> None:
    """What the palaver before this one would have left."""
    async with connection_to(url, timeout=10) as connection:
        await connection.execute("CREATE TABLE migration (number integer PRIMARY KEY, name text NOT NULL)")
        for number, name, sql in migrations()[:-1]:
            await connection.execute(sql)
            await connection.execute("INSERT INTO migration VALUES ($1, $2)", number, name)


async def numbers(url: str) -> list[int]:
    async with connection_to(url, timeout=10) as connection:
        return [row["number"] for row in await connection.fetch("SELECT number FROM migration ORDER BY number")]


def command(tmp_path: Path, url: str) -> Palaver:
    return Palaver(tmp_path, url, PALAVER_DEMO="false")


# Who migrates what --------------------------------------------------------------------------------------------------


async def test_migrations_are_applied_once_also_by_several_at_a_time(empty_url: str) -> None:
    done = await asyncio.gather(*(migrate(empty_url, upgrade=False) for _ in range(5)))
    assert sorted(done, key=len) == [[], [], [], [], SHIPPED]
    assert await migrate(empty_url) == []


async def test_an_empty_database_is_set_up_by_whatever_comes_first(empty_url: str, tmp_path: Path) -> None:
    async with product(empty_url, tmp_path) as core:
        assert await core.store.applications.list_all() == []
    assert await numbers(empty_url) == [number for number, _, _ in migrations()]


def test_an_older_database_is_left_alone_by_commands_which_say_what_to_do(empty_url: str, tmp_path: Path) -> None:
    run(with_all_but_the_last(empty_url))
    before = run(numbers(empty_url))
    palaver_ = command(tmp_path, empty_url)
    for words in (["app", "list"], ["key", "list"], ["chat", "nobody", "-m", "hi"], ["demo"]):
        line = palaver_.refused(*words)
        assert f"({palaver.__version__}) and lacks {SHIPPED[-1]}" in line
        assert "'palaver migrate'" in line
    findings = {
        finding["subject"]: finding for finding in json.loads(palaver_.run("doctor", "--json").stdout)["findings"]
    }
    assert SHIPPED[-1] in findings["migrations"]["says"]
    assert "palaver migrate" in findings["migrations"]["remedy"]
    assert run(numbers(empty_url)) == before


def test_the_command_migrates_an_older_database_and_says_what_it_did(empty_url: str, tmp_path: Path) -> None:
    run(with_all_but_the_last(empty_url))
    palaver_ = command(tmp_path, empty_url)
    assert palaver_.json("migrate") == {"applied": SHIPPED[-1:]}
    assert palaver_.says("migrate") == "The database is up to date.\n"
    assert palaver_.says("app", "list") == ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_migrates_an_older_database(empty_url: str, tmp_path: Path, workers: str) -> None:
    run(with_all_but_the_last(empty_url))
    with command(tmp_path, empty_url).serving("--workers", workers):
        assert run(numbers(empty_url)) == [number for number, _, _ in migrations()]


def test_nothing_but_a_server_and_the_command_upgrades() -> None:
    """In the code: whatever else opens the product does it as every command does."""
    upgrading = {
        (path.relative_to(SOURCE).as_posix(), function.name)
        for path in python(SOURCE)
        for function in ast.walk(tree(path))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and (
            (isinstance(call.func, ast.Name) and call.func.id == "migrate")
            or any(keyword.arg == "upgrade" and ast.unparse(keyword.value) == "True" for keyword in call.keywords)
        )
    }
    assert upgrading == {
        ("app.py", "open_core"),  # hands on what it was asked for
        ("installation.py", "migrate_database"),
        ("server.py", "serve"),
        ("store/dump.py", "restore"),  # what it has just put there
        ("server.py", "_serve_with_workers"),
    }


async def test_a_database_of_a_newer_palaver_is_refused_with_its_version(database_url: str) -> None:
    async with connection_to(database_url, timeout=10) as connection:
        await connection.execute("INSERT INTO migration (number, name) VALUES (9999, 'future')")
        await connection.execute("UPDATE meta SET value = '9.9.9' WHERE name = 'palaver_version'")
    for upgrade in (True, False):
        with pytest.raises(Internal, match=r"9999.*palaver 9\.9\.9 did that.*install a newer one"):
            await migrate(database_url, upgrade=upgrade)


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = migrations()[0], (2, "0002_bad.sql", "CREATE TABLE half_way (); SELECT 1/0")
    monkeypatch.setattr(module, "migrations", lambda: [good, bad])

    with pytest.raises(Internal, match="division by zero"):
        await migrate(empty_url)
    async with connection_to(empty_url, timeout=10) as connection:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


# The lock -----------------------------------------------------------------------------------------------------------


async def test_who_waits_for_another_says_so_and_goes_on_when_that_one_is_done(
    empty_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with connection_to(empty_url, timeout=10) as other:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
            waiting = asyncio.create_task(migrate(empty_url))
            async with asyncio.timeout(10):
                while "waiting for another process that migrates" not in capfd.readouterr().out:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert not waiting.done()
        assert await waiting == SHIPPED


async def test_a_lock_that_was_left_behind_is_an_error_that_names_it(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a pooler left it that took a session away from who had locked it."""
    monkeypatch.setattr(module, "ABANDONED_AFTER_S", 0.2)

    left = await connect(empty_url, timeout=10)
    await left.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
    pid = left.get_server_pid()
    with pytest.raises(Internal, match=rf"process {pid} .* idle .*pg_terminate_backend\({pid}\)"):
        await migrate(empty_url)
    monkeypatch.setattr(module, "ABANDONED_AFTER_S", 60)
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.3)
    with pytest.raises(Internal, match=f"process {pid}"):
        await migrate(empty_url)
    report = json.loads((await asyncio.to_thread(command(tmp_path, empty_url).run, "doctor", "--json")).stdout)
    found = {finding["subject"]: finding for finding in report["findings"]}
    assert f"process {pid}" in found["migration lock"]["says"]
    left.terminate()


# Databases that will not do -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_CN"])
def test_a_database_that_cannot_have_every_character_is_refused(
    cluster: Databases, tmp_path: Path, encoding: str
) -> None:
    name, url = run(cluster.create(f"TEMPLATE template0 ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'"))
    try:
        palaver_ = command(tmp_path, url)
        for words in (["serve", "--port", "0"], ["app", "list"], ["migrate"]):
            line = palaver_.refused(*words)
            assert f"encoding is {encoding}" in line
            assert "ENCODING 'UTF8'" in line
        report = palaver_.run("doctor")
        assert report.returncode == 1
        assert f"WRONG database: its encoding is {encoding}" in report.stdout
    finally:
        run(cluster.drop(name))


def test_versions_that_will_do() -> None:
    assert find_incompatibility("14.11 (Debian)", "UTF8") == (
        "PostgreSQL 14.11 (Debian) is too old",
        "use version 15 or newer",
    )
    assert [find_incompatibility(version, "UTF8") for version in ("15.1", "18beta1", "18.0 (Debian 18.0-1)")] == [
        None
    ] * 3


def test_a_server_that_is_not_there_is_a_problem_with_a_reason() -> None:
    with pytest.raises(Internal, match="database"):
        run(migrate("postgresql://nobody@127.0.0.1:9/nothing"))
    with pytest.raises(Internal):
        run(Database("not an address").open())
