"""``palaver key``: the forms that scripts stand on, and that a change is in force in a running server."""

from __future__ import annotations

import time

from cli.commands import Palaver

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
    there_are = "there are: abandoned, agents, auto_register, default_user, enabled, rpm, total"
    assert there_are in palaver.refused(*create, "--set", "frob=1")
    assert "a whole number of at least 1" in palaver.refused(*create, "--set", "rpm=0")


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
