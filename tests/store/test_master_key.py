"""The master key is changed while processes run: every secret and token stays good, and the old key opens nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Generator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest
from support.commands import Palaver
from support.kit import SeededApp, seed_app, store_on, until
from support.survey import SOURCE, python

from palaver.core.problems import Conflict, Internal
from palaver.core.types import Token, new_uid
from palaver.store.driver import connection_to
from palaver.store.postgres import PostgresStore
from palaver.store.secrets import SecretBox

OLD, NEW, NEWEST = bytes(32), b"\x01" * 32, b"\x02" * 32


async def stores(stack: AsyncExitStack, url: str, count: int, master: bytes = OLD) -> list[PostgresStore]:
    return [await stack.enter_async_context(store_on(url, master)) for _ in range(count)]


async def some_keys(c: SeededApp, count: int) -> None:
    for number in range(count):
        await c.store.keys.create(c.app, "snail", f"more-{number}", f"secret-{number}", {})


async def identity(store: PostgresStore) -> str | None:
    return await store.get_meta("master_key")


async def takes_over(store: PostgresStore, master: bytes) -> None:
    """Wait until that process knows the key."""

    async def known() -> bool:
        return store.master_key.key_id == SecretBox(master).key_id

    await until(known, answer=True)


async def test_processes_that_run_go_on_with_keys_old_secrets_and_tokens(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        one, two, three = await stores(stack, database_url, 3)
        c = await seed_app(one)
        await some_keys(c, 5)
        (first,) = await one.keys.list_by_id("more-0")
        await one.keys.rotate(first, "changed", overlap_s=600)
        token = Token(
            app=c.app.id, credential=c.who.key.number, generation=c.who.key.generation, family=new_uid(),
            kind="access", user="ann", scopes=(), redirect=None, expires=datetime.now(UTC) + timedelta(hours=1),
        )  # fmt: skip
        await one.tokens.issue(token, "a token")
        for master in (NEW, NEWEST):
            assert await three.rotate_master_key(master) == 6
            for store in (one, two):
                await takes_over(store, master)
                assert [key.secret for _, key in await store.keys.list_all()][1:] == [
                    "changed",
                    *(f"secret-{n}" for n in range(1, 5)),
                ]
                found = await store.keys.get_by_secret("snail", "secret-3")
                assert found is not None
                assert found.id == "more-3"
                old = await store.keys.get_by_secret("snail", "secret-0")
                assert old is not None
                assert old.previous_secret == "secret-0"
                assert await store.tokens.find("a token", "access") == token
    async with store_on(database_url, NEWEST) as store:
        assert await store.tokens.find("a token", "access") == token
        assert (await store.keys.list_by_id("more-4"))[0].secret == "secret-4"
        assert await store.keys.get_by_secret("snail", "secret-4") is not None
    for master in (OLD, NEW):
        with pytest.raises(Internal, match="another master key"):
            async with store_on(database_url, master):
                pass


async def test_nothing_stored_opens_with_the_old_key(database_url: str) -> None:
    async with store_on(database_url, OLD) as store:
        await some_keys(await seed_app(store), 3)
        (key,) = await store.keys.list_by_id("more-0")
        await store.keys.rotate(key, "changed", overlap_s=600)
        await store.rotate_master_key(NEW)
    old, opened = SecretBox(OLD), 0
    async with connection_to(database_url, timeout=10) as connection:
        for row in await connection.fetch("SELECT dialect, id, secret, previous_secret FROM credential"):
            for sealed in filter(None, (row["secret"], row["previous_secret"])):
                opened += 1
                with pytest.raises(Internal):
                    old.open(sealed, context=f"{row['dialect']}/{row['id']}")
        meta = [row["value"] for row in await connection.fetch("SELECT value FROM meta")]
    assert opened == 5
    assert not [value for value in meta if NEW.hex() in value or OLD.hex() in value]


def test_whatever_is_sealed_is_sealed_anew() -> None:
    """In the code: a module that seals is one that the change of the master key knows of."""
    sealing = {path.stem for path in python(SOURCE) if ".seal(" in path.read_text()}
    assert sealing == {"api_keys", "master_key"}


async def test_no_look_up_fails_while_the_key_is_changed_again_and_again(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        one, two = await stores(stack, database_url, 2)
        await some_keys(await seed_app(one), 50)
        done = asyncio.Event()

        async def look_up() -> int:
            count = 0
            while not done.is_set():
                (key,) = await one.keys.list_by_id(f"more-{count % 50}")
                assert key.secret == f"secret-{count % 50}"
                count += 1
            return count

        looking = [asyncio.create_task(look_up()) for _ in range(4)]
        for number in range(10):
            await two.rotate_master_key(bytes([number + 1]) * 32)
            await takes_over(one, bytes([number + 1]) * 32)
        done.set()
        assert min(await asyncio.gather(*looking)) > 10


async def test_a_secret_sealed_with_the_old_key_is_not_stored_after_the_change(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        one, two = await stores(stack, database_url, 2)
        c = await seed_app(one)
        async with connection_to(database_url, timeout=10) as connection, connection.transaction():
            await connection.execute("LOCK TABLE credential IN EXCLUSIVE MODE")
            late = asyncio.create_task(one.keys.create(c.app, "snail", "late", "late", {}))
            changed = asyncio.create_task(one.keys.rotate(c.who.key, "late too"))
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'credential'::regclass"
            await until(lambda: connection.fetchval(query), 2)
            await connection.execute("UPDATE meta SET value = 'another' WHERE name = 'master_key'")
        for task in (late, changed):
            with pytest.raises(Conflict, match="try again"):
                await task
        assert await two.keys.list_by_id("late") == []
        with pytest.raises(Conflict, match="try again"):
            await two.rotate_master_key(NEW)


async def test_who_missed_the_notice_says_so(database_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with store_on(database_url) as store, connection_to(database_url, timeout=10) as connection:
        await connection.execute("UPDATE meta SET value = 'another' WHERE name = 'master_key'")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'palaver presence' AND datname = current_database()"
        )
        async with asyncio.timeout(5):
            while "restart this process with the new one" not in capfd.readouterr().out:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await connection.execute("SELECT pg_notify('palaver', 'master not-a-key')")
        await connection.execute(
            "SELECT pg_notify('palaver', 'master ' || encode('nor this one at all'::bytea, 'base64'))"
        )
        await asyncio.sleep(0.1)
        assert store.master_key.key_id == SecretBox(OLD).key_id


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Generator[Path]:
    path = Path(mkdtemp(prefix="palaver-master-"))
    yield path
    shutil.rmtree(path)


@pytest.mark.e2e
def test_a_key_file_is_replaced_and_servers_go_on_also_those_that_come_after(database_url: str, folder: Path) -> None:
    palaver = Palaver(folder, database_url, PALAVER_DEMO="false")
    del palaver.environment["PALAVER_MASTER_KEY"]
    key = palaver.json("key", "create", "--app", "demo", "--dialect", "snail")
    palaver.says("agent", "apply", "-", "--app", "demo", stdin="---\nname: echo\nmodel: scripted\n---\n")
    agent = palaver.json("agent", "list")[0]["id"]
    file = folder / "data" / "master.key"
    before = file.read_text()
    with palaver.serving("--workers", "2") as server:
        assert server.chat(key["secret"], agent)[-1]["type"] == "done"
        assert palaver.json("key", "rotate-master") == {"master_key_file": str(file)}
        assert file.read_text() != before
        assert file.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in file.parent.iterdir()] == ["master.key"]
        another = palaver.json("key", "create", "--app", "demo", "--dialect", "snail")
        for secret in (key["secret"], another["secret"]):
            for _ in range(4):
                assert server.chat(secret, agent)[-1]["type"] == "done"
        worker = psutil.Process(server.process.pid).children()[0]
        worker.kill()
        worker.wait(10)
        for _ in range(8):
            assert server.chat(another["secret"], agent)[-1]["type"] == "done"
    with palaver.serving() as server:
        assert server.chat(key["secret"], agent)[-1]["type"] == "done"


def test_a_key_of_the_environment_is_printed_before_it_is_used(database_url: str, tmp_path: Path) -> None:
    palaver = Palaver(tmp_path, database_url)
    palaver.key()
    new = palaver.json("key", "rotate-master")["master_key"]
    assert "another master key" in palaver.refused("key", "list")
    palaver.environment["PALAVER_MASTER_KEY"] = new
    assert json.loads(palaver.says("key", "list", "--json"))[0]["id"] == "my-app"
    (tmp_path / "next").write_text("33" * 32)
    palaver.says("key", "rotate-master", "--new-key-file", str(tmp_path / "next"))
    palaver.environment["PALAVER_MASTER_KEY"] = "33" * 32
    assert json.loads(palaver.says("key", "list", "--json"))[0]["id"] == "my-app"
    (tmp_path / "next").write_text("short")
    assert "--new-key-file" in palaver.refused("key", "rotate-master", "--new-key-file", str(tmp_path / "next"))
