"""``palaver doctor``: what is wrong is found, and what to do is said."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from support.commands import Palaver
from support.kit import run

from palaver.config import Settings
from palaver.core.types import Agent, AgentSpec, ApiKey, new_uid
from palaver.doctor import Finding, clock, data_folder, examine, keys, master_key, port, unknown_variables

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def _found(environment: Mapping[str, str]) -> dict[str, Finding]:
    async def work() -> list[Finding]:
        return [finding async for finding in examine(environment, {})]

    return {finding.subject: finding for finding in run(work())}


def test_a_healthy_installation_has_nothing_wrong(palaver: Palaver) -> None:
    report = palaver.json("doctor", "--database", palaver.environment["PALAVER_DATABASE_URL"])
    assert report["ok"] is True
    looked_at = [finding["subject"] for finding in report["findings"]]
    assert looked_at == [
        "environment",
        "settings",
        "data folder",
        "master key",
        "database",
        "clock",
        "migrations",
        "default model",
        "knowledge",
        "keys",
        "port",
    ]


def test_a_wrong_variable_a_dead_endpoint_and_a_missing_agent_are_found(palaver: Palaver) -> None:
    palaver.agent("---\nname: a\nmodel: openai:gpt-5\nfallback_model: nonsense\nknowledge: none\n---\n")
    palaver.says("key", "create", "--dialect", "snail", "--id", "mine", "--set", "agents=[9]")
    done = palaver.run("doctor", PALAVER_PROT="80", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert done.returncode == 1
    wrong = [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
    assert [line.split(":")[0] for line in wrong] == [
        "WRONG environment",
        "WRONG model openai",
        "WRONG fallback model nonsense",
        "WRONG knowledge",
        "WRONG key mine",
    ]
    assert "did you mean PALAVER_PORT?" in wrong[0]
    assert "http://127.0.0.1:9/v1/models cannot be reached" in wrong[1]
    assert all("→" in line for line in wrong)


def test_a_database_that_is_away_is_found_and_the_rest_still_looked_at(tmp_path: Path) -> None:
    away = "postgresql://nobody@127.0.0.1:9/none"
    found = _found({"PALAVER_DATA": str(tmp_path), "PALAVER_DATABASE_URL": away, "PALAVER_MODEL": "gpt-5"})
    assert found["database"].level == "wrong"
    assert "PALAVER_DATABASE_URL" in found["database"].remedy
    assert found["default model"].level == "wrong"
    assert "port" in found


def test_an_installation_that_was_never_started_is_not_wrong_and_is_left_as_it_is(tmp_path: Path) -> None:
    found = _found({"PALAVER_DATA": str(tmp_path / "data"), "PALAVER_PORT": "0"})
    assert {subject for subject, finding in found.items() if finding.level != "good"} == {
        "data folder",
        "master key",
        "database",
    }
    assert [finding for finding in found.values() if finding.level == "wrong"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_cannot_be_is_found(tmp_path: Path) -> None:
    found = _found({"PALAVER_DATA": str(tmp_path), "PALAVER_PORT": "http"})
    assert found["settings"].level == "wrong"
    assert "'http' is not valid" in found["settings"].says


def test_variables_that_are_no_settings_are_named_with_the_nearest() -> None:
    fine = {"PALAVER_PORT": "1", "PALAVER_CONFIG": "x", "HOME": "/"}
    assert [finding.level for finding in unknown_variables(fine)] == ["good"]
    (one, two) = unknown_variables({**fine, "PALAVER_DATABSE_URL": "x", "PALAVER_ZZZ": "x"})
    assert one.remedy == "did you mean PALAVER_DATABASE_URL?"
    assert "palaver config" in two.remedy


def test_a_key_that_others_can_read_and_a_file_for_a_folder_are_found(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path))
    file = tmp_path / "master.key"
    file.write_text("00" * 32)
    file.chmod(0o644)
    assert f"chmod 600 {file}" in master_key(settings).says
    assert master_key(Settings(data=str(tmp_path), master_key="short")).level == "wrong"
    assert data_folder(Settings(data=str(file))).level == "wrong"
    assert data_folder(settings).level == "good"


def test_clocks_may_differ_by_two_seconds() -> None:
    assert clock(1.9).level == "good"
    assert "3 s behind" in clock(-3).says


def test_keys_that_name_no_agent_are_expired_or_disabled_are_found() -> None:
    def key(id: str, *, dialect: str = "d", enabled: bool = True, **settings: Any) -> tuple[str, ApiKey]:
        return "shop", ApiKey(app=1, number=1, dialect=dialect, id=id, secret="", enabled=enabled, settings=settings)

    agent = Agent(app=1, id=7, uid=new_uid(), spec=AgentSpec(name="a", alias=("b",)), created=NOW, modified=NOW)
    given = [
        key("fine", agents=["a", "b", "7", agent.uid.hex], expire="2026-12-01T00:00:00Z"),
        key("stranger", agents=["a", "nobody"]),
        key("single", agent="nobody"),
        key("late", expire="2026-11-20T00:00:00Z"),
        key("off", enabled=False),
        key("weak", dialect="sonaops"),
        key("strong", dialect="sonaops", signature="hmac-sha256"),
    ]
    found = {finding.subject: finding for finding in keys(given, [("shop", agent)], NOW)}
    assert {subject: finding.level for subject, finding in found.items()} == {
        "key stranger": "wrong",
        "key single": "wrong",
        "key late": "wrong",
        "key off": "note",
        "key weak": "note",
    }
    assert "nobody" in found["key stranger"].says
    assert "expired at 2026-11-20 00:00 UTC" in found["key late"].says


def test_a_port_that_another_program_has_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number: int = taken.getsockname()[1]
        assert run(port(Settings(port=number))).level == "wrong"
    assert run(port(Settings(port=number))).level == "good"


def test_a_palaver_that_serves_has_its_port_rightly_and_commands_work_beside_it(palaver: Palaver) -> None:
    palaver.agent("---\nname: echo\nmodel: scripted\n---\n")
    with palaver.serving(PALAVER_DEMO="false") as server:
        assert palaver.says("chat", "echo", "-m", "hi") == "You said: hi\n"
        number = int(server.url.rpartition(":")[2])
        finding = run(port(Settings(port=number)))
        assert (finding.level, finding.says) == ("good", f"palaver is running at {server.url}")


def test_the_settings_are_listed_with_their_origin_and_without_secrets(palaver: Palaver) -> None:
    (palaver.folder / "data").mkdir()
    (palaver.folder / "data" / "palaver.toml").write_text("drain_s = 1\n")
    done = palaver.run("config", "--json", PALAVER_DATABASE_URL="postgresql://me:secret@db/x", PALAVER_PORT="9000")
    assert "secret@" not in done.stdout
    rows = {row["name"]: (row["value"], row["from"]) for row in json.loads(done.stdout)}
    assert list(rows) == list(msgspec.structs.asdict(Settings()))
    assert rows["port"] == (9000, "environment")
    assert rows["drain_s"] == (1.0, "palaver.toml")
    assert rows["model"] == ("extract", "default")
