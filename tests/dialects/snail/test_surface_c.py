"""Surface C: what the gateway of the vendor's chat page promises."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from dialects.snail import client_b
from dialects.snail.client import error_frame, frames, jwt
from dialects.snail.client_b import B, Caller, good, page_of, refused_on_b, spoken
from dialects.snail.client_c import COMPLETIONS, CONVERSATIONS, SESSION, Browser, C, token
from support.kit import wait_until
from support.live_server import Served
from support.requirements import shows

from palaver.app import all_dialects
from palaver.core.types import Agent
from palaver.dialects.snail import requirements_b, requirements_c

WRONG, EXPIRED = "Token 验证失败", "登录已过期，请重新登录"
SIGNED_IN = [
    pytest.param(route.method, route.path, id=f"{route.method} {route.path.removeprefix(C)}")
    for dialect in all_dialects()
    if dialect.name == "snail"
    for route in dialect.routes
    if route.path.startswith(C) and not route.public
]


@pytest.fixture(scope="module")
def program(served: Served) -> Caller:
    return Caller(served)


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"think": "look it up"}, "Turn ${turn}: ${content}")


@pytest.fixture
def ann(served: Served, program: Caller) -> Browser:
    """The page of a user whom no other test knows."""
    name = served.new_name("ann")
    program.register(name, nickname="Ann")
    return Browser(served, token(program.key, name))


def refused(browser: Browser, method: str, path: str, message: str, *, status: int = 5001) -> None:
    """Asserts that the call is refused so, in the form of its route."""
    answer = browser.ask(method, path)
    if path == COMPLETIONS:
        assert answer.status == 200
        assert answer.header("Content-Type") == "text/event-stream;charset=UTF-8"
        assert frames(answer.body) == error_frame(message, status)
    else:
        refused_on_b(answer, message, status=status)


# Signing in ---------------------------------------------------------------------------------------------------------


@shows(requirements_c.c_config, requirements_c.c_envelope)
def test_anybody_gets_the_configuration(served: Served) -> None:
    expected = {"gatewayPath": C, "pageTitle": "Chat", "logo": "", "resourceBaseUrl": ""}
    stranger = Browser(served, None)
    assert good(stranger.get(f"{C}/config")) == expected
    assert list(good(stranger.get(f"{C}/config"))) == list(expected)
    assert good(stranger.ask("GET", f"{C}/config", headers={"Origin": "http://test"})) == expected


@shows(requirements_c.c_config_elsewhere)
def test_a_page_from_elsewhere_is_told_the_servers_name(served: Served) -> None:
    answer = Browser(served, None).ask("GET", f"{C}/config", headers={"Origin": "https://shop.example"})
    data = good(answer)
    assert (data["gatewayPath"], data["resourceBaseUrl"]) == (f"http://test{C}", "http://test")
    assert answer.header("Access-Control-Allow-Origin") == "https://shop.example"


@shows(requirements_c.c_session, requirements_c.c_session_proof, requirements_b.b_embed_token)
def test_an_embed_token_is_exchanged_for_a_session(served: Served, program: Caller, agent: Agent) -> None:
    user = program.register(served.new_name("ann"), nickname="Ann", avatarUrl="https://example.com/a.png")
    embed = good(program.post(f"{B}/embed-token", openId=user, ttlSeconds=86400))
    session = good(Browser(served, None).post(SESSION, openId=f" {user} ", trustedCredential=f" {embed['token']} "))
    assert list(session) == list(embed)
    assert (session["tokenType"], session["authHeader"], session["ttlSeconds"]) == (
        "Snail-Ai-Auth",
        "Snail-Ai-Auth",
        3600,
    )
    assert (session["openId"], session["nickname"], session["avatarUrl"]) == (user, "Ann", "https://example.com/a.png")
    ends = datetime.strptime(session["expiresAt"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    assert abs(ends - time.time() - 3600) < 30
    browser = Browser(served, session["token"])
    assert spoken(browser.post(COMPLETIONS, agentId=agent.id, content="hi"))[-1][1]["fullText"] == "Turn 1: hi"


@shows(requirements_c.c_session_proof)
def test_a_session_ends_no_later_than_what_it_was_given_for(served: Served, program: Caller, ann: Browser) -> None:
    name = served.new_name("bob")
    program.register(name)
    soon = int(time.time()) + 120
    session = good(ann.post(SESSION, openId=name, trustedCredential=token(program.key, name, exp=soon)))
    assert 60 < session["ttlSeconds"] <= 120
    again = good(ann.post(SESSION, openId=name, trustedCredential=session["token"]))
    assert again["expiresAt"] == session["expiresAt"]
    for past in (int(time.time()) - 3600, int(time.time()) - 30):  # the second one would still do for a call
        answer = ann.post(SESSION, openId=name, trustedCredential=token(program.key, name, exp=past))
        refused_on_b(answer, EXPIRED, status=5001)


@shows(requirements_c.c_session_proof)
def test_a_session_is_for_the_tokens_user_alone(served: Served, program: Caller) -> None:
    ann, bob = served.new_name("ann"), served.new_name("bob")
    program.register(ann)
    program.register(bob)
    disabled = served.key("snail", enabled=False)
    served.sql("UPDATE credential SET enabled = false WHERE id = $1", disabled.id)
    served.sql("SELECT pg_notify('palaver', 'keys')")
    nobody = Caller(served).key
    for proof, message in (
        (token(program.key, bob), f"OpenId 无效: {ann}"),
        (token(program.key, None), f"OpenId 无效: {ann}"),
        (jwt({"appId": program.key.id, "openId": ann, "exp": 4e9}, "SAI_other"), WRONG),
        (jwt({"appId": "app-nobody", "openId": ann, "exp": 4e9}, program.key.secret), WRONG),
        (jwt({"appId": program.key.id, "openId": ann}, program.key.secret), WRONG),
        (program.key.secret, WRONG),
        ("x", WRONG),
        (token(disabled, ann), f"应用已禁用: {disabled.id}"),
    ):
        answer = Browser(served, None).post(SESSION, openId=ann, trustedCredential=proof)
        refused_on_b(answer, message, status=5001)
    answer = Browser(served, None).post(SESSION, openId="nobody", trustedCredential=token(nobody, "nobody"))
    refused_on_b(answer, "OpenId 无效: nobody", status=5001)
    refused_on_b(Browser(served, None).post(SESSION, openId=" "), "openId openId is required")


@shows(requirements_c.c_session_proof)
def test_a_token_of_before_a_rotation_is_good_for_a_session_while_the_old_secret_is(
    served: Served, program: Caller
) -> None:
    key, user, new = served.key("snail"), served.new_name("ann"), "SAI_" + "1" * 32
    program.register(user)
    served.do(served.core.store.keys.rotate(key, new, overlap_s=60))
    session = good(Browser(served, None).post(SESSION, openId=user, trustedCredential=token(key, user)))
    payload = session["token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert session["token"] == jwt(claims, key.secret), "what it comes from ends with the old secret, and so does it"


@shows(requirements_c.c_session_proof, requirements_b.b_auto_register)
def test_who_proves_a_new_user_is_registered_where_the_credential_says_so(served: Served) -> None:
    key, user = served.key("snail", auto_register=True), served.new_name("new")
    session = good(Browser(served, None).post(SESSION, openId=user, trustedCredential=token(key, user)))
    assert good(Browser(served, session["token"]).get(f"{C}/my-agents")) == []


@shows(requirements_c.c_open_session)
def test_anybody_is_signed_in_only_where_one_credential_says_so(served: Served, agent: Agent) -> None:
    stranger, missing = Browser(served, None), "缺少认证信息，请提供 trustedCredential"
    user = served.new_name("ann")
    client_b.Caller(served).register(user)
    refused_on_b(stranger.post(SESSION, openId=user), missing, status=5001)
    key = served.key("snail", open_sessions=True, auto_register=True)
    try:
        session = good(stranger.post(SESSION, openId=user, trustedCredential=" "))
        assert session["ttlSeconds"] == 3600
        assert good(Browser(served, session["token"]).get(f"{C}/agent", agentId=agent.id))["id"] == agent.id
        unknown = served.new_name("nobody")
        refused_on_b(stranger.post(SESSION, openId=unknown), f"OpenId 无效: {unknown}", status=5001)
        served.key("snail", open_sessions=True)
        refused_on_b(stranger.post(SESSION, openId=user), missing, status=5001)
    finally:
        served.sql("UPDATE credential SET enabled = false WHERE settings ? 'open_sessions'")
        served.sql("SELECT pg_notify('palaver', 'keys')")
    refused_on_b(stranger.post(SESSION, openId=user), missing, status=5001)
    assert key.enabled


@pytest.mark.parametrize(("method", "path"), SIGNED_IN)
@shows(
    requirements_c.c_token_refused,
    requirements_c.c_token_only,
    requirements_c.c_refusal_frames,
    requirements_c.c_envelope,
)
def test_every_call_wants_a_users_token(served: Served, program: Caller, method: str, path: str) -> None:
    key = program.key
    for auth, message in (
        (None, "缺少认证信息，请提供 Snail-Ai-Auth"),
        ("Bearer", WRONG),
        (key.secret, WRONG),
        (token(key, None), "Token 缺少 openId"),
        (token(key, " "), "Token 缺少 openId"),
        (token(key, "ann")[:-2], WRONG),
        (jwt({"appId": "app-nobody", "openId": "ann", "exp": 4e9}, key.secret), WRONG),
        (token(key, "ann", exp=1_700_000_000), EXPIRED),
    ):
        refused(Browser(served, auth), method, path, message)


@shows(requirements_c.c_token_refused)
def test_a_disabled_credentials_tokens_are_worth_nothing(served: Served) -> None:
    key = served.key("snail")
    served.sql("UPDATE credential SET enabled = false WHERE id = $1", key.id)
    served.sql("SELECT pg_notify('palaver', 'keys')")
    refused(Browser(served, token(key, "ann")), "GET", f"{C}/agents", f"应用已禁用: {key.id}")


@shows(requirements_c.c_token)
def test_bearer_may_stand_before_the_token(served: Served, ann: Browser, agent: Agent) -> None:
    assert good(Browser(served, f"Bearer {ann.auth}").get(f"{C}/agent", agentId=agent.id))["id"] == agent.id


@shows(requirements_c.c_refusal_frames)
def test_limits_are_a_frame_on_completions_and_429_elsewhere(served: Served) -> None:
    key = served.key("snail", rpm=1)
    browser = Browser(served, token(key, "ann"))
    good(browser.get(f"{C}/agents"))
    answer = browser.get(f"{C}/agents")
    refused_on_b(answer, "请求过于频繁，请稍后再试", http=429)
    assert answer.header("Retry-After")
    refused(browser, "POST", COMPLETIONS, "请求过于频繁，请稍后再试", status=0)


@shows(requirements_c.c_refusal_frames, requirements_c.c_envelope)
def test_what_the_page_sees_by_the_status_stays_an_envelope(served: Served, ann: Browser) -> None:
    refused_on_b(ann.get(f"{C}/nothing"), "接口不存在", http=404)
    refused_on_b(ann.get(COMPLETIONS), "请求方法不支持", http=405)
    refused_on_b(ann.post(COMPLETIONS, content="x" * 1_048_576), "请求体过大", http=413)


# Agents -------------------------------------------------------------------------------------------------------------


@shows(requirements_c.c_agents, requirements_c.c_subscribe)
def test_agents_say_whether_the_user_has_them(served: Served, program: Caller, ann: Browser) -> None:
    one = served.agent("x")

    def subscribed() -> tuple[bool, bool, list[int]]:
        listed = {each["id"]: each["subscribed"] for each in good(ann.get(f"{C}/agents", page=1, size=200))}
        mine = [each["id"] for each in good(ann.get(f"{C}/my-agents"))]
        return listed[one.id], good(ann.get(f"{C}/agent", agentId=one.id))["subscribed"], mine

    assert subscribed() == (False, False, [])
    assert good(ann.ask("POST", f"{C}/agent/subscribe", {"agentId": one.id})) is None  # the page's own form: no body
    assert subscribed() == (True, True, [one.id])
    assert good(ann.delete(f"{C}/agent/subscribe", agentId=one.id)) is None
    assert subscribed() == (False, False, [])
    assert good(ann.post(f"{C}/agent/subscribe", agentId=one.id)) is None
    assert subscribed() == (True, True, [one.id])
    of_b = good(program.get(f"{B}/agent", agentId=one.id))
    assert good(ann.get(f"{C}/agent", agentId=one.id)) == {**of_b, "subscribed": True}
    assert page_of(ann.get(f"{C}/agents", page=1, size=1))[:2] == (1, 1)


@shows(requirements_c.c_agents, requirements_c.c_subscribe)
def test_agents_there_are_not_are_told_as_on_b(ann: Browser) -> None:
    refused_on_b(ann.get(f"{C}/agent", agentId=999_999), "Agent 不存在: 999999")
    refused_on_b(ann.get(f"{C}/agent"), "agentId agentId is required")
    refused_on_b(ann.ask("POST", f"{C}/agent/subscribe", {"agentId": 999_999}), "Agent 不存在或不可用: 999999")
    refused_on_b(ann.ask("POST", f"{C}/agent/subscribe"), "agentId agentId is required")
    assert good(ann.delete(f"{C}/agent/subscribe", agentId=999_999)) is None


@shows(requirements_c.c_agents)
def test_a_user_whom_nobody_registered_sees_agents_and_has_none(served: Served, program: Caller, agent: Agent) -> None:
    stranger = Browser(served, token(program.key, "never-registered"))
    assert {each["subscribed"] for each in good(stranger.get(f"{C}/agents"))} == {False}
    refused_on_b(stranger.get(f"{C}/my-agents"), "用户不存在: never-registered")
    refused(stranger, "POST", COMPLETIONS, "agentId agentId is required", status=0)
    answer = stranger.post(COMPLETIONS, agentId=agent.id, content="hi")
    assert frames(answer.body) == error_frame("OpenId 无效: never-registered", 5001)


# Conversations and chat ---------------------------------------------------------------------------------------------


@shows(requirements_c.c_conversations, requirements_c.c_messages, requirements_c.c_completions, requirements_b.b_shared)
def test_a_conversation_from_its_beginning_to_its_end(program: Caller, ann: Browser, agent: Agent) -> None:
    made = good(ann.post(CONVERSATIONS, agentId=agent.id, title="年度 报告"))
    place: dict[str, Any] = {"agentId": agent.id, "conversationId": made["conversationId"]}
    run_events = spoken(ann.post(COMPLETIONS, **place, content="你好", webSearchEnabled=True, timeout=300_000))
    assert [name for name, _ in run_events] == ["thinking", "text", "done"]
    assert run_events[-1][1] == {"conversationId": made["conversationId"], "fullText": "Turn 1: 你好"}
    (listed,) = good(ann.get(CONVERSATIONS, agentId=agent.id))
    assert (listed["conversationId"], listed["title"]) == (made["conversationId"], "年度 报告")
    assert page_of(ann.get(CONVERSATIONS, agentId=agent.id)) == (1, 50, 1)
    messages = good(ann.get(f"{C}/messages", **place))
    assert [(one["role"], one["content"], one["status"]) for one in messages] == [
        ("user", "你好", 1),
        ("assistant", "Turn 1: 你好", 1),
    ]
    assert good(ann.get(f"{C}/conversations/messages", **place)) == messages
    assert good(ann.delete(CONVERSATIONS, **place)) is None
    assert good(ann.get(f"{C}/messages", **place)) == []
    spoken(ann.post(COMPLETIONS, agentId=agent.id, content="again"))
    assert good(ann.delete(CONVERSATIONS, agentId=agent.id)) is None
    assert good(ann.get(CONVERSATIONS, agentId=agent.id)) == []


@shows(requirements_c.c_token_replaces)
def test_the_tokens_user_acts_whoever_else_is_named(
    served: Served, program: Caller, ann: Browser, agent: Agent
) -> None:
    bob = served.new_name("bob")
    program.register(bob)
    spoken(ann.post(COMPLETIONS, agentId=agent.id, openId=bob, content="hi"))
    made = good(ann.post(CONVERSATIONS, agentId=agent.id, openId=bob, title="mine"))
    page = Browser(served, token(program.key, bob))
    assert good(page.get(CONVERSATIONS, agentId=agent.id)) == []
    assert made in good(ann.get(CONVERSATIONS, agentId=agent.id, openId=bob))
    assert good(page.delete(CONVERSATIONS, agentId=agent.id)) is None
    assert len(good(ann.get(CONVERSATIONS, agentId=agent.id))) == 2


@shows(requirements_c.c_refusal_frames, requirements_c.c_event_names)
def test_the_page_sees_every_failure(served: Served, ann: Browser, agent: Agent) -> None:
    for members, message in (
        ({"agentId": agent.id}, "content content is required"),
        ({"content": "hi"}, "agentId agentId is required"),
        ({"agentId": 999_999, "content": "hi"}, "智能体不存在或已被禁用"),
        ({"agentId": "x", "content": "hi"}, "参数格式错误: agentId"),
    ):
        assert frames(ann.post(COMPLETIONS, **members).body) == error_frame(message)
    broken = served.agent({"think": "hm"}, "so far", {"fail": "cut"})
    run_events = spoken(ann.post(COMPLETIONS, agentId=broken.id, content="hi"))
    assert [name for name, _ in run_events] == ["thinking", "text", "error"]


@shows(requirements_c.c_replay)
def test_a_repeated_call_is_answered_once(ann: Browser, agent: Agent) -> None:
    for path, members in (
        (CONVERSATIONS, {"agentId": agent.id, "title": "once"}),
        (COMPLETIONS, {"agentId": agent.id, "content": "once"}),
    ):
        key = {"Idempotency-Key": path}
        first, second = (ann.ask("POST", path, body=members, headers=key) for _ in range(2))
        assert first.body == second.body
        assert (first.header("Idempotency-Replayed"), second.header("Idempotency-Replayed")) == (None, "true")
    assert len(good(ann.get(CONVERSATIONS, agentId=agent.id))) == 2


@shows(requirements_b.b_embed_ends)
def test_an_embed_token_ends_for_good_and_a_token_of_the_secrets_owner_does_not(served: Served) -> None:
    program = Caller(served)
    user = program.register()
    issued = good(program.get(f"{B}/embed-token", openId=user))["token"]
    page, own = Browser(served, issued), Browser(served, token(program.key, user))
    assert good(page.get(f"{C}/agents")) == good(own.get(f"{C}/agents"))
    for enabled in (False, True):
        served.do(served.core.store.keys.set_enabled(program.key.id, enabled=enabled))
    wait_until(lambda: page.get(f"{C}/agents").json()["msg"] == WRONG)
    good(own.get(f"{C}/agents"))
