"""Who calls, for whom, and what is refused before anything is looked for."""

from __future__ import annotations

import re
from typing import Any

import pytest
from dialects.native.client import ROOT, Caller, good, problem
from support.http_clients import Ask
from support.live_server import Served
from support.requests import call
from support.requirements import shows

from palaver.core.problems import Upstream
from palaver.dialects.native import DIALECT, requirements
from palaver.dialects.native.auth import claim, new_credential

SETTINGS = {"max_body_bytes": 2000}


@shows(requirements.bearer)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer \t"])
def test_the_secret_stands_behind_bearer(scheme: str) -> None:
    assert claim(call({"Authorization": f"{scheme} pv-secret"})).secret == "pv-secret"


@shows(requirements.secret_has_a_form)
def test_a_new_secret_has_its_form() -> None:
    name, secret = new_credential(bytes(range(32)))
    assert name == "key-0001020304050607"
    assert re.fullmatch(r"pv-[0-9a-f]{32}", secret)


@shows(requirements.no_credential)
@pytest.mark.parametrize("header", [None, "", "pv-secret", "Basic eDp5", "Bearer"])
def test_without_a_credential_a_call_is_refused(served: Served, header: str | None) -> None:
    headers = [] if header is None else [("Authorization", header)]
    answer = served.ask(Ask(method="GET", path=f"{ROOT}/agents", headers=headers))
    problem(answer, 401, "unauthenticated")
    assert answer.header("WWW-Authenticate") == 'Bearer realm="palaver"'


@shows(requirements.no_credential)
def test_an_unknown_or_disabled_credential_is_refused(served: Served, caller: Caller) -> None:
    disabled = Caller(served)
    served.do(served.core.store.keys.set_enabled(disabled.key.id, enabled=False, dialect="native"))
    odd = ({"Authorization": f"Bearer {key}"} for key in ("pv-" + "0" * 32, "two words", "' or 1=1 --"))
    for other in (*odd, disabled.headers()):
        answer = caller.ask("GET", "agents", headers=other)
        problem(answer, 401, "unauthenticated")
        assert answer.header("WWW-Authenticate") == 'Bearer realm="palaver", error="invalid_token"'


@shows(requirements.user_is_named)
def test_the_end_user_is_named_as_it_is_or_percent_encoded(served: Served, caller: Caller) -> None:
    agent = served.agent("hello")
    names: list[str | bytes] = ["用户 🙂".encode(), "%E7%94%A8%E6%88%B7%20%F0%9F%99%82"]
    made = [
        good(caller.ask("POST", "conversations", {"agent": agent.id}, headers={"X-User-ID": name}), 201)["uid"]
        for name in names
    ]
    for name in names:
        answer = caller.ask("GET", "conversations", headers={"X-User-ID": name})
        assert {one["uid"] for one in good(answer)["conversations"]} == set(made)
    problem(caller.get(f"conversations/{made[0]}"), 404, "not_found", noun="conversation")


@shows(requirements.user_is_needed, requirements.default_user)
def test_a_call_without_an_end_user_is_the_default_users_or_refused(served: Served) -> None:
    agent = served.agent("hello")
    nobody = Caller(served, user=None)
    document = problem(nobody.get("conversations"), 400, "invalid", field="X-User-ID", rule="required")
    assert document["detail"].startswith("X-User-ID is missing")
    good(nobody.get("agents"))
    good(nobody.get(f"agents/{agent.id}"))
    default = Caller(served, user=None, default_user="dora")
    made = good(default.ask("POST", "conversations", {"agent": agent.id}), 201)
    assert good(Caller(served, user="dora").get(f"conversations/{made['uid']}")) == made


@shows(requirements.user_is_checked)
@pytest.mark.parametrize(("name", "rule"), [(b"\xff\xfe", "type"), ("%FF", "type"), ("x" * 256, "length")])
def test_a_name_that_cannot_be_one_is_refused(caller: Caller, name: str | bytes, rule: str) -> None:
    problem(caller.ask("GET", "agents", headers={"X-User-ID": name}), 400, "invalid", field="X-User-ID", rule=rule)


@shows(requirements.agents_of_a_credential)
def test_a_credential_for_one_agent_sees_nothing_of_others(served: Served, caller: Caller) -> None:
    mine, other = served.agent("mine"), served.agent("other")
    here, there = caller.begin(mine), caller.begin(other)
    narrow = Caller(served, agents=[str(mine.uid)])
    assert [one["id"] for one in good(narrow.get("agents"))["agents"]] == [mine.id]
    seen = good(narrow.get("conversations", "limit=100"))["conversations"]
    assert {one["agent"]["id"] for one in seen} == {mine.id}
    assert narrow.run(here["answer"]["uid"])["text"] == "mine"
    place, run = there["conversation"]["uid"], there["answer"]["uid"]
    for method, path, noun in (
        ("GET", f"conversations/{place}", "conversation"),
        ("DELETE", f"conversations/{place}", "conversation"),
        ("GET", f"conversations/{place}/messages", "conversation"),
        ("GET", f"runs/{run}", "run"),
        ("GET", f"runs/{run}/events", "run"),
        ("POST", f"runs/{run}/stop", "run"),
        ("GET", f"agents/{other.id}", "agent"),
    ):
        problem(narrow.ask(method, path), 404, "not_found", noun=noun)


@shows(requirements.limits)
def test_the_credentials_limits_are_told_with_the_time_to_wait(served: Served) -> None:
    for setting in ("rpm", "rpd"):
        allowed: dict[str, Any] = {setting: 1}
        caller = Caller(served, **allowed)
        good(caller.get("agents"))
        answer = caller.get("agents")
        document = problem(answer, 429, "rate_limited")
        assert 1 <= document["retry_after"] <= 86_400
        assert answer.header("Retry-After") == str(document["retry_after"])
    caller = Caller(served, total=1)
    good(caller.get("agents"))
    answer = caller.get("agents")
    assert "retry_after" not in problem(answer, 429, "used_up")
    assert answer.header("Retry-After") is None


# Problems -----------------------------------------------------------------------------------------------------------


@shows(requirements.problem_document, requirements.not_found)
def test_a_problem_has_these_members_and_no_others(caller: Caller) -> None:
    document = problem(caller.get("conversations/999999"), 404, "not_found")
    assert list(document) == ["type", "title", "status", "detail", "code", "noun", "trace"]
    assert document["detail"] == "there is no such conversation"


@shows(requirements.codes)
def test_every_code_can_be_read_without_a_credential(served: Served) -> None:
    listed = good(served.ask(Ask(method="GET", path=f"{ROOT}/problems")))["problems"]
    assert len(listed) == len({one["code"] for one in listed})
    assert {"busy", "invalid", "not_found"} <= {one["code"] for one in listed}
    assert list(listed[0]) == ["code", "status", "title", "meaning"]


@shows(requirements.unknown_path)
def test_an_unknown_path_and_another_method(caller: Caller) -> None:
    problem(caller.get("nothing"), 404, "no_such_path")
    answer = caller.ask("PATCH", "conversations/1")
    problem(answer, 405, "method_not_allowed")
    assert answer.header("Allow") == "DELETE, GET, HEAD, OPTIONS"


@shows(requirements.malformed)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"agent": "\\ud83d"}'])
def test_a_body_that_is_no_object_is_malformed(caller: Caller, body: bytes) -> None:
    for path in ("messages", "conversations", "conversations/1/messages"):
        problem(caller.ask("POST", path, body), 400, "malformed")
    problem(caller.ask("PUT", "conversations/1/title", body), 400, "malformed")


@shows(requirements.malformed)
def test_a_body_that_is_too_large_is_refused(caller: Caller) -> None:
    problem(caller.ask("POST", "messages", {"agent": 1, "content": "x" * 2000}), 413, "too_large")


@shows(requirements.invalid)
@pytest.mark.parametrize(
    ("members", "field", "rule"),
    [
        ({}, "content", "required"),
        ({"content": " \n"}, "content", "required"),
        ({"content": None, "files": []}, "content", "required"),
        ({"content": "hi"}, "agent", "required"),
        ({"content": "hi", "agent": ""}, "agent", "required"),
        ({"content": "hi", "agent": True}, "agent", "type"),
        ({"content": 1, "agent": 1}, "content", "type"),
        ({"content": "hi", "agent": 1, "files": "x"}, "files", "type"),
        ({"content": "hi", "agent": 1, "files": [""]}, "files", "length"),
        ({"content": "hi", "agent": 1, "files": ["x"] * 21}, "files", "length"),
        ({"content": "hi", "agent": 1, "variables": []}, "variables", "type"),
        ({"content": "hi", "agent": 1, "stream": "yes"}, "stream", "type"),
    ],
)
def test_a_field_that_breaks_a_rule_is_named(caller: Caller, members: dict[str, object], field: str, rule: str) -> None:
    document = problem(caller.ask("POST", "messages", members), 400, "invalid", field=field, rule=rule)
    assert document["detail"].startswith(field)


@shows(requirements.problem_is_not_told)
def test_what_the_endpoint_said_is_not_told() -> None:
    reply = DIALECT.refuse(Upstream(reason="rejected", status=500, detail="sk-secret at 10.0.0.1"), call(), None)
    assert b"sk-secret" not in reply.body
    assert reply.status == 502


@shows(requirements.full)
def test_a_quota_that_is_used_up_is_told_without_a_time(served: Served) -> None:
    agent, caller = served.agent("so be it"), Caller(served)
    with served.full("conversations"):
        answer = caller.ask("POST", "messages", {"agent": agent.uid.hex, "content": "hi"})
    assert "retry_after" not in problem(answer, 429, "full")
    assert answer.header("Retry-After") is None
