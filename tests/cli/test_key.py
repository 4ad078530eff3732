"""``palaver key``: the forms that scripts stand on, and that a change is in force in a running server."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from support.commands import Palaver, Terminal

from palaver.app import all_dialects

ECHO = "---\nname: echo\nalias: parrot\nmodel: scripted\n---\n"


def test_a_key_is_made_with_its_application_and_its_settings(palaver: Palaver) -> None:
    agents = 'agents=["parrot", 7]'
    made = palaver.run(
        *("key", "create", "--app", "shop", "--dialect", "snail"),
        *("--set", "rpm=5", "--set", agents, "--set", "default_user=ann", "--set", "enabled=false", "--json"),
    )
    assert (made.returncode, made.stdout.count("\n")) == (0, 1)
    assert "'shop' has no agent 'parrot' yet" in made.stderr
    (listed,) = palaver.json("key", "list", "--app", "shop", "--secrets")
    assert listed["secret"].startswith("SAI_")
    assert listed == {
        "dialect": "snail",
        "app": "shop",
        "id": listed["id"],
        "secret": listed["secret"],
        "settings": {"rpm": 5, "agents": ["parrot", "7"], "default_user": "ann", "enabled": False},
        "enabled": False,
        "label": "",
        "created": listed["created"],
        "calls": 0,
        "last_used": None,
    }
    assert all(f'"{name}":' in made.stdout for name in ("dialect", "app", "id", "secret", "settings"))
    assert listed["secret"] not in palaver.says("key", "list")


def test_a_credential_that_exists_elsewhere_is_kept(palaver: Palaver) -> None:
    create = ("key", "create", "--dialect", "snail", "--id", "my-app")
    made = palaver.json(*create, "--secret", "-", stdin="my secret\n")
    assert made == {"dialect": "snail", "app": "demo", "id": "my-app", "secret": "my secret", "settings": {}}
    assert "has a credential of the id 'my-app'" in palaver.refused(*create)


def test_what_a_key_cannot_be_is_refused_with_what_it_can(palaver: Palaver) -> None:
    create = ("key", "create", "--dialect", "snail")
    there_are = (
        "available: abandoned, agents, auto_register, default_user, enabled, max_runs, open_sessions, rpm, total"
    )
    assert there_are in palaver.refused(*create, "--set", "frob=1")
    assert "a whole number of at least 1" in palaver.refused(*create, "--set", "rpm=0")


def test_an_id_a_secret_or_a_label_that_is_not_allowed_is_an_error_of_its_option(palaver: Palaver) -> None:
    create = ("key", "create", "--dialect", "snail")
    for option, value in (("--id", " "), ("--secret", "line\nbreak"), ("--label", "x" * 256)):
        assert f"Invalid value for {option}: must be" in palaver.refused(*create, option, value, code=2)


def test_a_change_is_in_force_in_a_running_server_within_a_second(palaver: Palaver) -> None:
    agent, key = palaver.agent(ECHO, app="shop"), palaver.key(app="shop")
    old = key.secret
    with palaver.serving("--host", "127.0.0.1", PALAVER_DEMO="false") as server:
        assert server.text(old, agent) == "You said: hello"

        def within_a_second(secret: str, wanted: str) -> bool:
            ends = time.monotonic() + 1
            while wanted not in (said := server.text(secret, agent)):
                assert time.monotonic() < ends, said
            return True

        disabled = palaver.json("key", "disable", key.id)
        assert disabled == {"dialect": "snail", "app": "shop", "id": key.id, "settings": {"enabled": False}}
        assert within_a_second(old, "应用已禁用")
        assert palaver.json("key", "enable", key.id)["settings"] == {}
        assert within_a_second(old, "You said: hello")
        new = palaver.json("key", "rotate", key.id)
        assert (new["id"], new["app"], new["settings"]) == (key.id, "shop", {})
        assert within_a_second(old, "Token 验证失败")
        assert within_a_second(new["secret"], "You said: hello")
        assert palaver.json("key", "delete", "my-app")["deleted"] is True
        assert within_a_second(new["secret"], "Token 验证失败")
        assert palaver.json("app", "delete", "shop") == {"name": "shop", "deleted": True}


def test_an_old_secret_stays_good_while_a_rotation_overlaps_and_not_longer(palaver: Palaver) -> None:
    agent, key = palaver.agent(ECHO, app="shop"), palaver.key(app="shop")
    with palaver.serving("--host", "127.0.0.1", PALAVER_DEMO="false") as server:
        new = palaver.json("key", "rotate", key.id, "--overlap", "4s")
        ends = datetime.fromisoformat(new["old_secret_until"])
        assert server.text(key.secret, agent) == "You said: hello"
        assert server.text(new["secret"], agent) == "You said: hello"
        while datetime.now(UTC) <= ends + timedelta(seconds=1):
            time.sleep(0.1)
        assert "Token 验证失败" in server.text(key.secret, agent)
        assert server.text(new["secret"], agent) == "You said: hello"
        newer = palaver.json("key", "rotate", key.id, "--overlap", "1h")
        assert server.text(new["secret"], agent) == "You said: hello"
        assert "old_secret_until" not in palaver.json("key", "rotate", key.id)
        for old in (new, newer):
            assert "Token 验证失败" in server.text(old["secret"], agent)
    assert "not a duration from 1s to 30d" in palaver.refused("key", "rotate", key.id, "--overlap", "soon", code=2)


def test_settings_are_changed_one_by_one_and_the_others_stay(palaver: Palaver) -> None:
    agent, key = palaver.agent(ECHO, app="shop"), palaver.key(app="shop")
    with palaver.serving("--host", "127.0.0.1", PALAVER_DEMO="false") as server:
        changed = palaver.json("key", "set", key.id, "rpm=5", "default_user=ann", "--label", "Shop & Co")
        assert changed["settings"] == {"rpm": 5, "default_user": "ann"}
        assert changed["label"] == "Shop & Co"
        changed = palaver.json("key", "set", key.id, "enabled=false", "--unset", "rpm")
        assert changed["settings"] == {"default_user": "ann", "enabled": False}
        assert "应用已禁用" in server.text(key.secret, agent)
        assert palaver.json("key", "set", key.id, "--unset", "enabled")["settings"] == {"default_user": "ann"}
        assert server.text(key.secret, agent) == "You said: hello"
    assert "unknown setting" in palaver.refused("key", "set", key.id, "frob=1")
    assert "unknown setting" in palaver.refused("key", "set", key.id, "--unset", "frob")


def test_whether_a_credential_is_enabled_is_said_in_one_place(palaver: Palaver) -> None:
    key = palaver.key(app="shop")

    def state(**told: object) -> dict[str, object]:
        (listed,) = palaver.json("key", "list")
        return {"enabled": listed["enabled"], "settings": listed["settings"], **told}

    palaver.json("key", "set", key.id, "enabled=false")
    assert state() == {"enabled": False, "settings": {"enabled": False}}
    assert "enabled=false" in palaver.says("key", "set", key.id, "--label", "x")
    assert palaver.json("key", "set", key.id, "rpm=5")["settings"] == {"rpm": 5, "enabled": False}
    palaver.json("key", "enable", key.id)
    palaver.json("key", "set", key.id, "rpm=6")
    assert state() == {"enabled": True, "settings": {"rpm": 6}}
    palaver.json("key", "set", key.id, "enabled=true")
    palaver.json("key", "disable", key.id)
    palaver.json("key", "set", key.id, "rpm=7")
    assert state() == {"enabled": False, "settings": {"rpm": 7, "enabled": False}}
    first = palaver.json("audit")[0]
    assert (first["action"], first["arguments"]["settings"]) == ("key set", {"enabled": False})


def test_a_list_says_when_a_credential_was_made_and_used_and_how_often(palaver: Palaver) -> None:
    agent, key = palaver.agent(ECHO, app="shop"), palaver.key(app="shop")
    (listed,) = palaver.json("key", "list")
    assert (listed["calls"], listed["last_used"], listed["label"]) == (0, None, "")
    with palaver.serving("--host", "127.0.0.1", PALAVER_DEMO="false") as server:
        for _ in range(3):
            assert server.text(key.secret, agent) == "You said: hello"
        assert "Token 验证失败" in server.text("wrong", agent)
    (listed,) = palaver.json("key", "list")
    assert listed["calls"] == 3
    assert datetime.fromisoformat(listed["created"]) < datetime.fromisoformat(listed["last_used"])


@pytest.mark.parametrize("columns", [20, 80])
def test_a_list_on_a_narrow_terminal_truncates_nothing(palaver: Palaver, columns: int) -> None:
    for dialect in all_dialects():
        palaver.says("key", "create", "--app", "shop", "--dialect", dialect.name, "--label", "x" * 60)
    terminal = Terminal(palaver, "key", "list", columns=columns)
    ids = [key["id"] for key in palaver.json("key", "list")]
    shown = "".join(map(terminal.until, ids))  # each whole, in the order of the list
    assert terminal.ended() == 0
    terminal.close()
    for word in ("APP", "DIALECT", "LAST USED", "native", "never"):
        assert word in shown
    assert shown.count("x") >= 60 * (len(ids) - 1)


def test_help_names_the_dialects_and_every_setting(palaver: Palaver) -> None:
    told = " ".join(palaver.says("key", "create", "--help").split())
    for dialect in all_dialects():
        assert dialect.name in told
        meanings = {one["name"]: one["meaning"] for one in palaver.json("key", "settings", dialect.name)}
        assert meanings == {one.name: one.meaning for one in dialect.settings}
        assert [name for name in meanings if name not in told] == []


def test_a_key_whose_signature_covers_little_is_called_weak_when_it_is_made(palaver: Palaver) -> None:
    made = palaver.run("key", "create", "--dialect", "sonaops", "--json")
    assert "covers only the body" in made.stderr
    assert "signature=hmac-sha256" in made.stderr
    made = palaver.run("key", "create", "--dialect", "sonaops", "--set", "signature=hmac-sha256", "--json")
    assert (made.returncode, made.stderr) == (0, "")
