"""``palaver serve`` and ``palaver demo``."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
from support.commands import Palaver, Terminal
from support.kit import run

from palaver.agentfile import write
from palaver.app import all_dialects, open_core
from palaver.cli.serve import FIRST
from palaver.config import Settings, load
from palaver.core.types import AgentSpec
from palaver.demo import Demo, ensure_demo


def test_a_server_makes_the_demo_and_prints_what_to_paste(palaver: Palaver) -> None:
    with palaver.serving() as server:
        demo = palaver.json("demo")
        assert demo["base_url"] == server.url
        assert (demo["app"], demo["agent"]["name"]) == ("demo", "guide")
        assert set(demo["agent"]) == {"id", "uid", "name"}
        assert set(demo["credentials"]) == {dialect.name for dialect in all_dialects()}
        snail = demo["credentials"]["snail"]
        assert set(snail) == {"dialect", "app", "id", "secret", "settings"}
        assert server.chat(snail["secret"], demo["agent"]["id"])[-1]["type"] == "done"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
    with palaver.serving():
        assert palaver.json("demo")["credentials"] == demo["credentials"]


def test_secrets_go_to_a_terminal_and_into_no_pipe_file_or_journal(palaver: Palaver) -> None:
    with palaver.serving() as server:
        assert server.printed_on("palaver demo").endswith(
            "demo: 'palaver demo' shows its credentials and commands to paste\n"
        )
        secrets = [one["secret"] for one in palaver.json("demo")["credentials"].values()]
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert server.process.stdout is not None
        printed = server.printed + server.process.stdout.read()
    assert not [secret for secret in secrets if secret in printed]


def test_on_a_terminal_there_is_one_dialect_to_begin_with_whose_command_ends_in_an_answer(palaver: Palaver) -> None:
    terminal = Terminal(palaver, "serve", "--port", "0")
    try:
        shown = terminal.until("palaver demo --dialect ").replace("\r\n", "\n")
        credentials = palaver.json("demo")["credentials"]
        assert [name for name, one in credentials.items() if one["secret"] in shown] == [FIRST]
        command = shown[shown.index("curl -N") : shown.index("For another dialect")]
        answer = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True, timeout=20).stdout
        assert json.loads(answer.splitlines()[-1])["type"] == "done"
        others = terminal.until("\n").strip().split("|")
        assert sorted([*others, FIRST]) == sorted(credentials)
        for name in others:
            block = palaver.says("demo", "--dialect", name)
            assert [other for other, one in credentials.items() if one["secret"] in block] == [name]
            command = block.split("\n", 3)[3]
            done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True, timeout=20)
            assert "PALAVER_MODEL" in done.stdout, (name, done.stderr)
    finally:
        terminal.process.kill()
        terminal.process.wait()


def test_a_dialect_that_there_is_not_is_one_line_with_those_there_are(palaver: Palaver) -> None:
    line = palaver.refused("demo", "--dialect", "soanops", code=2)
    assert "'soanops'" in line
    assert all(dialect.name in line for dialect in all_dialects())


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_where_others_can_reach_it_there_is_no_demo_without_a_word_from_the_operator(
    palaver: Palaver, host: str
) -> None:
    with palaver.serving("--host", host) as server:
        assert requests.get(f"{server.url}/readyz", timeout=20).ok
        server.process.send_signal(signal.SIGTERM)
        output, _ = server.process.communicate(timeout=20)
    errors = server.log.read_text()
    assert "palaver demo" not in server.printed + output
    (word,) = [line for line in errors.splitlines() if "demo" in line]
    assert host in word
    assert "PALAVER_DEMO=true" in word
    assert "PALAVER_DEMO=false" in word
    assert palaver.json("app", "list") == []


def test_where_others_can_reach_it_a_demo_that_there_is_is_named_unless_the_operator_has_spoken(
    palaver: Palaver,
) -> None:
    host = "0.0.0.0"
    with palaver.serving("--host", host, PALAVER_DEMO="true") as server:
        server.printed_on("palaver demo")
    with palaver.serving("--host", host) as server:
        server.process.send_signal(signal.SIGTERM)
        server.process.communicate(timeout=20)
    assert "delete it with 'palaver app delete demo'" in server.log.read_text()
    with palaver.serving("--host", host, PALAVER_DEMO="false") as server:
        server.process.send_signal(signal.SIGTERM)
        server.process.communicate(timeout=20)
    assert "demo" not in server.log.read_text()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_this_machine_alone_there_is_a_demo(host: str) -> None:
    assert Settings(host=host).creates_demo
    assert not Settings(host=host, demo=False).creates_demo


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "example.com"])
def test_elsewhere_only_if_the_operator_says_so(host: str) -> None:
    assert not Settings(host=host).creates_demo
    assert Settings(host=host, demo=True).creates_demo


def test_a_port_that_is_taken_is_one_line_that_says_what_to_do(palaver: Palaver) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} of 127.0.0.1 is in use: choose another port with --port" in palaver.refused(
            "serve", "--port", port
        )


def test_a_setting_that_cannot_be_is_one_line(palaver: Palaver) -> None:
    done = palaver.run("serve", PALAVER_HEARTBEAT_S="soon")
    assert done.returncode == 1
    assert done.stderr.startswith("palaver: heartbeat_s: 'soon' is not valid")


def test_a_database_that_is_away_is_one_line(palaver: Palaver) -> None:
    away = palaver.refused("key", "list", "--database", "postgresql://nobody@127.0.0.1:9/none")
    assert away.startswith("palaver: the database: ConnectionRefusedError")


def _with_core(database: str, folder: Path, work: Any) -> Any:
    settings = load({}, {"database_url": database, "data": str(folder)})

    async def session() -> Any:
        async with open_core(settings, {}) as core:
            return await work(core)

    return run(session())


def test_what_an_operator_changed_of_the_demo_stays_so(database_url: str, tmp_path: Path) -> None:
    async def work(core: Any) -> tuple[Demo, Demo, Demo]:
        first = await ensure_demo(core, all_dialects())
        assert first.app is not None
        await core.store.agents.upsert(first.app, AgentSpec(name="guide", instructions="Mine."))
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
