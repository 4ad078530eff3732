"""Credentials on a server: the specification's tokens, and what becomes of those that are not good."""

from __future__ import annotations

import time
from typing import Any

import pytest
from dialects.snail.client import FAR, SECRET, USER, Caller, done, error_frame, frames, jwt, refused
from dialects.snail.test_auth import J1, J2, J3, J4, J5, J6
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent, ApiKey
from palaver.dialects.snail import requirements

WRONG = "Token 验证失败"
EXPIRED = "登录已过期，请重新登录"
NOTHING = "缺少认证信息，请提供 Snail-Ai-Auth"


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("yes")


@pytest.fixture(scope="module")
def key(served: Served) -> ApiKey:
    """The specification's credential."""
    return served.key("snail", id="app-1", secret=SECRET)


@pytest.fixture
def bearer(served: Served, key: ApiKey) -> Caller:
    """Somebody who has it, and sends what the test says."""
    return Caller(served, key)


def sends(caller: Caller, token: str | None) -> Caller:
    caller.auth = token
    return caller


@pytest.mark.parametrize("token", [J1, f"Bearer {J1}", SECRET, f"Bearer {SECRET}", f"bearer {SECRET}"])
@shows(requirements.j1, requirements.j7, requirements.bearer_is_allowed, requirements.samples_use_a_bare_token)
def test_j1_and_j7_are_let_in_for_any_user(bearer: Caller, agent: Agent, token: str) -> None:
    for user in (USER, "somebody-else"):
        assert done(sends(bearer, token).say(agent, user=user))["fullText"] == "yes"


@shows(requirements.j2, requirements.token_may_bind_a_user, requirements.foreign_open_id)
def test_j2_is_let_in_for_its_user_and_nobody_else(bearer: Caller, agent: Agent) -> None:
    sends(bearer, J2)
    assert done(bearer.say(agent, user="external-user-001"))["fullText"] == "yes"
    for user in ("external-user-002", "external-user-001 ", "EXTERNAL-USER-001", "用户"):
        refused(bearer.say(agent, user=user), f"OpenId 无效: {user}", status=5001)


@shows(requirements.foreign_open_id, requirements.token_may_bind_a_user)
def test_a_claim_with_nul_is_the_same_text_as_a_body_with_it(bearer: Caller, agent: Agent) -> None:
    sends(bearer, jwt({"appId": "app-1", "exp": FAR, "openId": "a\x00b"}))
    assert done(bearer.say(agent, user="a\x00b"))["fullText"] == "yes"


@pytest.mark.parametrize(("token", "words"), [(J3, EXPIRED), (J4, WRONG), (J5, WRONG), (J6, WRONG)])
@shows(
    requirements.j3,
    requirements.j4,
    requirements.j5,
    requirements.j6,
    requirements.expired_token,
    requirements.wrong_token,
)
def test_j3_to_j6_are_refused(bearer: Caller, agent: Agent, token: str, words: str) -> None:
    refused(sends(bearer, token).say(agent), words, status=5001)


@pytest.mark.parametrize("token", [None, "", " \t "])
@shows(requirements.no_header)
def test_without_a_token_nobody_is_let_in(bearer: Caller, agent: Agent, token: str | None) -> None:
    refused(sends(bearer, token).say(agent), NOTHING, status=5001)


@pytest.mark.parametrize(
    "token",
    [
        jwt({"appId": "nobody", "exp": FAR}),
        jwt({"appId": "app-1\x00", "exp": FAR}),
        jwt({"appId": "APP-1", "exp": FAR}),
        jwt({"appId": "x" * 2000, "exp": FAR}),
        jwt({"appId": "', 'app-1", "exp": FAR}),
        "SAI_ffffffffffffffffffffffffffffffff",
        SECRET.upper(),
        "Bearer Bearer " + SECRET,
        "Basic " + SECRET,
        "密钥",
        "x" * 5000,
    ],
)
@shows(requirements.unknown_application, requirements.wrong_token)
def test_a_stranger_is_not_let_in(bearer: Caller, agent: Agent, token: str) -> None:
    refused(sends(bearer, token).say(agent), WRONG, status=5001)


@shows(requirements.key_is_the_secret)
def test_one_credential_does_not_sign_for_another(served: Served, bearer: Caller, agent: Agent) -> None:
    other = served.key("snail")
    token = jwt({"appId": "app-1", "exp": FAR}, other.secret)
    refused(sends(bearer, token).say(agent), WRONG, status=5001)
    token = jwt({"appId": other.id, "exp": FAR}, other.secret)
    assert done(sends(bearer, token).say(agent))["fullText"] == "yes"


@shows(requirements.several_secrets)
def test_each_credential_of_an_application_is_good(served: Served, agent: Agent) -> None:
    for key in (served.key("snail"), served.key("snail")):
        assert done(Caller(served, key).say(agent))["fullText"] == "yes"


@shows(requirements.disabled_application, requirements.auth_errors_are_in_order)
def test_a_disabled_credential_is_refused_within_a_second_and_good_again_when_enabled(
    served: Served, agent: Agent
) -> None:
    key = served.key("snail")
    tokens = [key.secret, *(jwt({"appId": key.id, "exp": exp}, by) for exp in (FAR, 0) for by in (key.secret, "x"))]
    caller = Caller(served, key)
    assert done(caller.say(agent))["fullText"] == "yes"
    served.do(served.core.store.keys.set_enabled(key.id, enabled=False))
    begun = time.monotonic()
    while b'"status":5001' not in caller.say(agent).body:
        assert time.monotonic() < begun + 1
    for token in tokens:
        refused(sends(caller, token).say(agent), f"应用已禁用: {key.id}", status=5001)
    served.do(served.core.store.keys.set_enabled(key.id, enabled=True))
    sends(caller, key.secret)
    while b'"status":5001' in caller.say(agent).body:
        assert time.monotonic() < begun + 2


@pytest.mark.parametrize(
    ("token", "words"),
    [(None, NOTHING), (J3, EXPIRED), (J4, WRONG), (J2, "OpenId 无效: 另一个用户")],
)
@shows(requirements.events_refusal, requirements.no_header, requirements.expired_token, requirements.foreign_open_id)
def test_where_events_are_asked_for_the_refusal_is_one(
    bearer: Caller, agent: Agent, token: str | None, words: str
) -> None:
    answer = sends(bearer, token).say(agent, user="另一个用户", headers={"Accept": "text/event-stream"})
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/event-stream;charset=UTF-8"
    assert frames(answer.body) == error_frame(words, status=5001)
    assert answer.complete


@pytest.mark.parametrize("token", [J1, J4, SECRET])
@shows(requirements.garbage_is_a_wrong_token)
def test_the_last_of_two_headers_counts(served: Served, bearer: Caller, agent: Agent, token: str) -> None:
    ask = sends(bearer, "nonsense").request(bearer.members(agent))
    both: list[tuple[str, Any]] = [*ask.headers, ("snail-ai-auth", token)]
    answer = served.ask(type(ask)(path=ask.path, headers=both, body=ask.body))
    assert answer.body.startswith(b'{"type":"text"') == (token != J4)
