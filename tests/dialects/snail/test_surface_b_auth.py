"""Surface B's credentials, envelopes and limits."""

from __future__ import annotations

import pytest
from dialects.snail import client
from dialects.snail.client import frames
from dialects.snail.client_b import CHAT, CONVERSATIONS, EVENTS, SYNC, B, Caller, good, refused_on_b
from support.live_server import Served
from support.requirements import shows

from palaver.app import all_dialects
from palaver.dialects.snail import requirements_b

NOTHING = "缺少认证信息，请提供 Snail-Ai-App-Id 和 Snail-Ai-Token"
WRONG = "Token 验证失败"
ROUTES = [
    pytest.param(route.method, route.path, id=f"{route.method} {route.path.removeprefix(B)}")
    for dialect in all_dialects()
    if dialect.name == "snail"
    for route in dialect.routes
    if route.path.startswith(B)
]


@pytest.fixture(scope="module")
def program(served: Served) -> Caller:
    return Caller(served)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@shows(requirements_b.b_header_absent, requirements_b.b_unknown_application, requirements_b.b_wrong_token)
def test_every_call_wants_id_and_token(served: Served, method: str, path: str) -> None:
    program = Caller(served)
    app, token = program.auth.values()
    for auth, message in (
        ({}, NOTHING),
        ({"Snail-Ai-App-Id": app}, NOTHING),
        ({"Snail-Ai-Token": token}, NOTHING),
        ({"Snail-Ai-App-Id": app, "Snail-Ai-Token": " "}, NOTHING),
        ({"Snail-Ai-Auth": token}, NOTHING),
        ({"Snail-Ai-App-Id": "app-nobody", "Snail-Ai-Token": token}, "应用认证失败: app-nobody"),
        ({"Snail-Ai-App-Id": app, "Snail-Ai-Token": token[:-1]}, WRONG),
        ({"Snail-Ai-App-Id": app, "Snail-Ai-Token": f"{token} x"}, WRONG),
        ({"Snail-Ai-App-Id": app, "Snail-Ai-Token": "用户"}, WRONG),
    ):
        program.auth = auth
        refused_on_b(program.ask(method, path), message, status=5001)


@shows(requirements_b.b_disabled_application, requirements_b.b_auth_in_order)
def test_a_disabled_application_is_told_so_before_its_token_is_looked_at(served: Served) -> None:
    program = Caller(served)
    served.sql("UPDATE credential SET enabled = false WHERE id = $1", program.key.id)
    served.sql("SELECT pg_notify('palaver', 'keys')")
    program.auth["Snail-Ai-Token"] = "wrong"
    refused_on_b(program.get(f"{B}/agents"), f"应用已禁用: {program.key.id}", status=5001)


@shows(requirements_b.b_id_and_token, requirements_b.b_same_secret)
def test_one_credential_serves_both_surfaces(served: Served, program: Caller) -> None:
    agent = served.agent("yes")
    on_a = client.Caller(served, program.key)
    assert client.done(on_a.say(agent))["fullText"] == "yes"
    assert good(program.get(f"{B}/agent", agentId=agent.id))["name"] == agent.name
    on_a.auth = client.jwt({"appId": program.key.id, "exp": client.FAR}, program.key.secret)
    assert client.done(on_a.say(agent))["fullText"] == "yes"


@shows(requirements_b.b_unknown_path, requirements_b.b_envelope, requirements_b.b_refusal_envelopes)
def test_unknown_paths_and_methods_are_refused_in_bs_form(program: Caller) -> None:
    for path in (f"{B}/nothing", f"{B}/agent/chat/stop", f"{B}/"):
        refused_on_b(program.ask("GET", path, headers=EVENTS), "接口不存在", http=404)
    for method, path in (("DELETE", CHAT), ("GET", SYNC), ("POST", f"{B}/agents"), ("PUT", CONVERSATIONS)):
        refused_on_b(program.ask(method, path, headers=EVENTS), "请求方法不支持", http=405)


@pytest.mark.parametrize("body", [b"", b" \n", b"[]", b"null", b"{", b'{"a":"\\ud800"}', b"\xff{}", b"agentId=1"])
@shows(requirements_b.b_no_json)
def test_a_body_that_is_no_json_object_is_refused(program: Caller, body: bytes) -> None:
    for path in (CHAT, SYNC, CONVERSATIONS, f"{B}/user/register", f"{B}/user/agent", f"{B}/embed-token"):
        refused_on_b(program.ask("POST", path, body), "请求体不是合法的 JSON")


@shows(requirements_b.b_no_json, requirements_b.b_refusal_envelopes)
def test_a_body_that_is_too_large_is_refused_even_where_events_are_asked_for(program: Caller) -> None:
    refused_on_b(program.ask("POST", CHAT, b" " * 1_048_577, headers=EVENTS), "请求体过大", http=413)


@shows(requirements_b.b_limits, requirements_b.b_refusal_frames)
def test_limits_are_429_and_a_frame_where_events_are_asked_for(served: Served) -> None:
    program = Caller(served, rpm=1)
    good(program.get(f"{B}/agents"))
    answer = program.get(f"{B}/agents")
    refused_on_b(answer, "请求过于频繁，请稍后再试", http=429)
    assert 1 <= int(answer.header("Retry-After") or 0) <= 60
    framed = program.ask("POST", CHAT, {}, headers=EVENTS)
    assert framed.status == 200
    assert [(name, data["message"], data["status"]) for name, data in frames(framed.body)] == [
        ("error", "请求过于频繁，请稍后再试", 0)
    ]
