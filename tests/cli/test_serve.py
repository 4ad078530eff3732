"""``palaver serve`` and ``palaver demo``."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

from cli.commands import Palaver
from kit import run

from palaver.agentfile import write
from palaver.app import all_dialects, opened
from palaver.config import load
from palaver.core.types import AgentSpec
from palaver.demo import Demo, ensure_demo


def test_a_server_makes_the_demo_and_prints_what_to_paste(palaver: Palaver) -> None:
    with palaver.serving() as server:
        printed = server.printed_on('"openId"')
        demo = palaver.json("demo")
        assert demo["base_url"] == server.url
        assert (demo["app"], demo["agent"]["name"]) == ("demo", "guide")
        assert set(demo["agent"]) == {"id", "uid", "name"}
        assert set(demo["credentials"]) == {dialect.name for dialect in all_dialects()}
        snail = demo["credentials"]["snail"]
        assert set(snail) == {"dialect", "app", "id", "secret", "settings"}
        assert snail["secret"] in printed
        assert f"{server.url}/snail-ai/open-api/chat" in printed
        assert server.chat(snail["secret"], demo["agent"]["id"])[-1]["type"] == "done"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
    with palaver.serving():
        assert palaver.json("demo")["credentials"] == demo["credentials"]


def test_a_port_that_is_taken_is_one_line_that_says_what_to_do(palaver: Palaver) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} of 127.0.0.1 is in use: --port" in palaver.refused("serve", "--port", port)


def test_a_setting_that_cannot_be_is_one_line(palaver: Palaver) -> None:
    done = palaver.run("serve", PALAVER_HEARTBEAT_S="soon")
    assert done.returncode == 1
    assert done.stderr.startswith("palaver: heartbeat_s: 'soon' cannot be")


def test_a_database_that_is_away_is_one_line(palaver: Palaver) -> None:
    away = palaver.refused("key", "list", "--database", "postgresql://nobody@127.0.0.1:9/none")
    assert away.startswith("palaver: the database: ConnectionRefusedError")


def _with_core(database: str, folder: Path, work: Any) -> Any:
    settings = load({}, {"database_url": database, "data": str(folder)})

    async def session() -> Any:
        async with opened(settings, {}) as core:
            return await work(core)

    return run(session())


def test_what_an_operator_changed_of_the_demo_stays_so(database_url: str, tmp_path: Path) -> None:
    async def work(core: Any) -> tuple[Demo, Demo, Demo]:
        first = await ensure_demo(core, all_dialects())
        assert first.app is not None
        await core.store.agents.apply(first.app, AgentSpec(name="guide", instructions="Mine."))
        second = await ensure_demo(core, all_dialects())
        await core.store.keys.delete(first.keys[0])
        third = await ensure_demo(core, all_dialects())
        return first, second, third

    first, second, third = _with_core(database_url, tmp_path, work)
    assert first.agent.spec.knowledge == ("palaver",)
    assert first.keys == second.keys
    assert second.agent.spec.instructions == "Mine."
    assert third.keys == second.keys[1:]


def test_a_removed_demo_stays_removed_until_it_is_asked_for(database_url: str, tmp_path: Path) -> None:
    async def work(core: Any) -> tuple[Demo, Demo]:
        await ensure_demo(core, all_dialects())
        await core.store.applications.delete("demo")
        return await ensure_demo(core, all_dialects()), await ensure_demo(core, all_dialects(), again=True)

    removed, again = _with_core(database_url, tmp_path, work)
    assert removed == Demo()
    assert (again.agent.name, len(again.keys)) == ("guide", len(all_dialects()))
    assert "knowledge:" in write(again.agent.spec)
