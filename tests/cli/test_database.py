"""``palaver database``: out of one installation and into another, whatever runs meanwhile."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

import pytest
from support.commands import Palaver
from support.databases import Databases
from support.kit import run

from palaver.store.driver import connection_to
from palaver.store.dump import without_password
from palaver.store.embedded import wheel_bin_folder
from palaver.store.migrate import migrations


@pytest.fixture
def target_url(cluster: Databases) -> Generator[str]:
    """An empty database."""
    name, url = run(cluster.create(""))
    yield url
    run(cluster.drop(name))


@pytest.fixture
def target(target_url: str, tmp_path: Path) -> Palaver:
    (tmp_path / "target").mkdir()
    return Palaver(tmp_path / "target", target_url, PALAVER_DEMO="false")


def rows(url: str) -> dict[str, list[str]]:
    """Every row of every table, as text, in order."""

    async def read() -> dict[str, list[str]]:
        async with connection_to(url, timeout=10) as connection:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            found: dict[str, list[str]] = {}
            for (table,) in tables:
                lines = await connection.fetch(f"SELECT t::text AS line FROM {table} t ORDER BY 1")
                found[table] = [row["line"] for row in lines]
            return found

    return run(read())


def filled(palaver: Palaver) -> str:
    """Something in every kind of table; the credential's secret."""
    palaver.agent("---\nname: echo\nmodel: scripted\n---\n")
    secret = palaver.key().secret
    folder = palaver.folder / "pages"
    folder.mkdir()
    (folder / "a.md").write_text("# 标题\n\n制表符\t反斜线\\ 引号' \"\n\n\\.\n")
    palaver.says("knowledge", "add", "pages", str(folder))
    assert palaver.says("chat", "echo", "-m", "it's \\. 好") == "You said: it's \\. 好\n"
    return secret


def test_a_dump_restored_into_an_empty_database_is_the_same_to_the_last_row(
    palaver: Palaver, target: Palaver, target_url: str, tmp_path: Path
) -> None:
    filled(palaver)
    before = rows(palaver.environment["PALAVER_DATABASE_URL"])
    file = tmp_path / "all.dump"
    said = palaver.json("database", "dump", str(file))
    assert said == {"file": str(file), "bytes": file.stat().st_size}
    assert file.stat().st_mode & 0o777 == 0o600
    assert target.json("database", "restore", str(file)) == {"file": str(file), "applied": []}
    assert rows(target_url) == before
    assert target.says("key", "list") == palaver.says("key", "list")
    assert target.says("chat", "echo", "-m", "and on") == "You said: and on\n", "numbers go on where they were"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_dump_is_made_while_a_server_works_and_is_of_one_moment(
    palaver: Palaver, target: Palaver, target_url: str, tmp_path: Path
) -> None:
    agent = palaver.agent("---\nname: echo\nmodel: scripted\n---\n")
    secret = palaver.key().secret
    file = tmp_path / "live.dump"
    with palaver.serving(PALAVER_DEMO="false") as server, ThreadPoolExecutor() as threads:
        dumping = threads.submit(palaver.says, "database", "dump", str(file))
        turns = 0
        while not dumping.done() or turns < 3:
            assert server.chat(secret, agent)[-1]["type"] == "done"
            turns += 1
        dumping.result()
    target.says("database", "restore", str(file))

    async def unanswered() -> int:
        async with connection_to(target_url, timeout=10) as connection:
            lost = "SELECT count(*) FROM message m WHERE role = 'assistant' AND NOT EXISTS (SELECT FROM message q"
            return await connection.fetchval(f"{lost} WHERE q.conversation = m.conversation AND q.id = m.id - 1)")

    assert run(unanswered()) == 0


def test_what_is_not_empty_is_replaced_with_force_alone(
    palaver: Palaver, target: Palaver, target_url: str, tmp_path: Path
) -> None:
    filled(palaver)
    file = tmp_path / "a.dump"
    palaver.says("database", "dump", str(file))
    assert "already exists; overwrite it with --force" in palaver.refused("database", "dump", str(file))
    palaver.says("database", "dump", str(file), "--force")
    target.says("app", "create", "other")
    before = rows(target_url)
    assert "is not empty (applications: 1); --force" in target.refused("database", "restore", str(file))
    assert rows(target_url) == before
    target.says("database", "restore", str(file), "--force")
    assert rows(target_url) == rows(palaver.environment["PALAVER_DATABASE_URL"])


def test_a_damaged_dump_changes_nothing(palaver: Palaver, target: Palaver, target_url: str, tmp_path: Path) -> None:
    filled(palaver)
    file = tmp_path / "a.dump"
    palaver.says("database", "dump", str(file))
    target.says("app", "create", "other")
    before = rows(target_url)
    whole = file.read_bytes()
    for content in (*(whole[: int(len(whole) * share)] for share in (0.2, 0.6, 0.95)), b"no dump at all"):
        file.write_bytes(content)
        target.refused("database", "restore", str(file), "--force")
        assert rows(target_url) == before


def test_a_database_that_is_in_use_is_left_alone(palaver: Palaver, tmp_path: Path) -> None:
    palaver.says("app", "create", "shop")
    file = tmp_path / "a.dump"
    palaver.says("database", "dump", str(file))
    with palaver.serving(PALAVER_DEMO="false"):
        assert "1 processes use this database" in palaver.refused("database", "restore", str(file), "--force")
    palaver.says("database", "restore", str(file), "--force")


def test_secrets_of_another_master_key_are_refused_before_anything_is_done(
    palaver: Palaver, target: Palaver, target_url: str, tmp_path: Path
) -> None:
    filled(palaver)
    file = tmp_path / "a.dump"
    palaver.says("database", "dump", str(file))
    target.environment["PALAVER_MASTER_KEY"] = "11" * 32
    assert "another master key" in target.refused("database", "restore", str(file))
    del target.environment["PALAVER_MASTER_KEY"]
    assert "another master key" in target.refused("database", "restore", str(file))
    assert not (target.folder / "data" / "master.key").exists(), "no key of its own, which would have to go"
    assert rows(target_url) == {}
    assert bytes(32).hex().encode() not in file.read_bytes()


def test_an_older_dump_is_brought_up_to_date_and_a_newer_one_refused(
    palaver: Palaver, database_url: str, target: Palaver, target_url: str, tmp_path: Path, cluster: Databases
) -> None:
    palaver.says("app", "create", "shop")
    newer = tmp_path / "newer.dump"

    async def age(sql: str) -> None:
        async with connection_to(database_url, timeout=10) as connection:
            await connection.execute(sql)

    run(age("INSERT INTO migration (number, name) VALUES (9999, 'future')"))
    palaver.says("database", "dump", str(newer))
    assert "migration 9999, which this palaver does not know" in target.refused("database", "restore", str(newer))
    name, url = run(cluster.create(""))
    older = tmp_path / "older.dump"

    async def before_the_last() -> None:
        async with connection_to(url, timeout=10) as connection:
            await connection.execute("CREATE TABLE migration (number integer PRIMARY KEY, name text NOT NULL)")
            for number, shipped, sql in migrations()[:-1]:
                await connection.execute(sql)
                await connection.execute("INSERT INTO migration VALUES ($1, $2)", number, shipped)

    run(before_the_last())
    Palaver(tmp_path, url).says("database", "dump", str(older))
    run(cluster.drop(name))
    assert target.json("database", "restore", str(older))["applied"] == [migrations()[-1][1]]
    assert target.says("migrate") == "The database is up to date.\n"


@pytest.fixture
def folder() -> Generator[Path]:
    """One that PostgreSQL's user may pass."""
    path = Path(mkdtemp(prefix="palaver-database-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.e2e
def test_from_the_embedded_to_one_s_own_and_back(target_url: str, folder: Path, tmp_path: Path) -> None:
    """As the documentation says it."""
    home, moved = Palaver(folder / "one", None), Palaver(folder / "two", None)
    for place in (home, moved):
        place.folder.mkdir()
        del place.environment["PALAVER_MASTER_KEY"]
    home.says("app", "create", "shop")
    home.says("key", "create", "--app", "shop", "--dialect", "snail")
    file = tmp_path / "a.dump"
    home.says("database", "dump", str(file))
    own = ("--database", target_url)
    home.says("database", "restore", str(file), *own)
    assert home.says("key", "list", *own) == home.says("key", "list")
    home.says("database", "dump", str(file), "--force", *own)
    (moved.folder / "data").mkdir()
    shutil.copy2(home.folder / "data" / "master.key", moved.folder / "data" / "master.key")
    moved.says("database", "restore", str(file))
    assert moved.says("key", "list") == home.says("key", "list")


def test_the_address_is_what_psql_takes(palaver: Palaver) -> None:
    folder = wheel_bin_folder()
    assert folder is not None
    words = [str(folder / "psql"), palaver.says("database", "url").strip(), "-Atc", "SELECT 1"]
    assert subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout == "1\n"


def test_a_password_is_not_among_a_program_s_words() -> None:
    url = "postgresql://me:p%40ss%3Aword@one.example,two.example:5433/db?sslmode=require"
    assert without_password(url) == (
        "postgresql://me@one.example,two.example:5433/db?sslmode=require",
        "p@ss:word",
    )
    assert without_password("postgresql://me@/db?host=%2Ftmp") == ("postgresql://me@/db?host=%2Ftmp", None)
