"""User tokens: consent, and what is exchanged for them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from dialects.wps.client import Caller, data
from dialects.wps.limits import LIMITS
from support.http_clients import Answer, Ask
from support.limits import assert_refused
from support.live_server import Served
from support.requirements import shows

from palaver.core.problems import Invalid
from palaver.core.types import ApiKey
from palaver.dialects.wps import DIALECT, requirements
from palaver.dialects.wps.auth import SCOPES
from palaver.store.quotas import QuotaKind
from palaver.wire.settings import read_settings

BACK = "http://127.0.0.1:9/callback?app=1"
SCOPE = "kso.devhub_chat.readwrite,kso.devhub_session.readwrite"


@pytest.fixture(scope="module")
def key(served: Served) -> ApiKey:
    return served.key("wps", redirect_uris=[BACK], auto_approve_user="ann", default_user="shop")


def exchange(served: Served, key: ApiKey, **fields: str) -> Answer:
    form = urlencode({"client_id": key.id, "client_secret": key.secret, **fields}).encode()
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    return served.ask(Ask(path="/oauth2/token", headers=headers, body=form))


def consent(served: Served, key: ApiKey, **changes: str) -> Answer:
    query = {"client_id": key.id, "response_type": "code", "redirect_uri": BACK, "scope": SCOPE, "state": "s 1&"}
    return served.ask(Ask(method="GET", path="/oauth2/auth", query=urlencode({**query, **changes})))


def led_back(answer: Answer) -> dict[str, str]:
    """What a redirect adds to the registered address."""
    assert answer.status == 302
    location = str(answer.header("Location"))
    assert location.startswith(f"{BACK}&")
    fields = dict(parse_qsl(urlsplit(location).query, keep_blank_values=True))
    assert fields.pop("app") == "1"
    assert fields.pop("state") == "s 1&"
    return fields


def code(served: Served, key: ApiKey) -> str:
    fields = led_back(consent(served, key))
    assert list(fields) == ["code"]
    return fields["code"]


def granted(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Content-Type") == "application/json"
    return answer.json()


def failed(answer: Answer, error: str, http: int = 400) -> None:
    body = answer.json()
    assert list(body) == ["code", "msg", "debug", "error", "error_description"]
    assert (answer.status, body["error"], body["msg"]) == (http, error, error)
    assert body["code"] > 0
    assert body["error_description"] == body["debug"]["desc"] != ""


@shows(requirements.grants, requirements.consent_redirects, requirements.token_answers_are_not_kept)
def test_a_code_becomes_tokens_that_work(served: Served, key: ApiKey) -> None:
    body = granted(exchange(served, key, grant_type="authorization_code", code=code(served, key), redirect_uri=BACK))
    assert list(body) == ["access_token", "expires_in", "refresh_token", "refresh_expires_in", "token_type"]
    assert (body["expires_in"], body["refresh_expires_in"], body["token_type"]) == (7200, 2_592_000, "bearer")
    assert body["refresh_token"].startswith("kso_rt_")
    assert " " not in body["access_token"]
    agent = served.agent("x")
    session = data(Caller(served, key, token=body["access_token"]).say(agent))["session_id"]
    assert served.history(key, "ann", session)
    narrow = Caller(served, key, token=body["access_token"]).get(f"/v7/devhub/app/{agent.uid}/detail")
    assert narrow.status == 403


@shows(requirements.refresh_token_stays, requirements.grants)
def test_a_refresh_gives_a_new_access_token_and_the_same_refresh_token(served: Served, key: ApiKey) -> None:
    first = granted(exchange(served, key, grant_type="authorization_code", code=code(served, key), redirect_uri=BACK))
    again = granted(exchange(served, key, grant_type="refresh_token", refresh_token=first["refresh_token"]))
    assert list(again) == list(first)
    assert again["refresh_token"] == first["refresh_token"]
    assert 0 < again["refresh_expires_in"] <= 2_592_000
    assert again["access_token"] != first["access_token"]
    agent = served.agent("x")
    for body in (first, again):
        data(Caller(served, key, token=body["access_token"]).say(agent))


@shows(requirements.grants, requirements.token_answers_are_not_kept)
def test_the_credential_itself_becomes_a_token_of_its_default_user(served: Served, key: ApiKey) -> None:
    body = granted(exchange(served, key, grant_type="client_credentials", app_ticket="x", company_id="y"))
    assert list(body) == ["access_token", "expires_in", "token_type"]
    caller, agent = Caller(served, key, token=body["access_token"]), served.agent("x")
    session = data(caller.say(agent))["session_id"]
    assert served.history(key, "shop", session)
    assert data(caller.get(f"/v7/devhub/app/{agent.uid}/detail"))
    assert data(caller.get(f"/v7/devhub/session/{session}/name"))


@shows(requirements.token_ttls)
def test_a_credential_can_set_the_ttls_of_its_tokens(served: Served) -> None:
    key = served.key(
        "wps",
        redirect_uris=[BACK],
        auto_approve_user="ann",
        token_ttl_s=60,
        refresh_token_ttl_s=600,
        code_ttl_s=10,
    )
    secret = code(served, key)
    assert ttl(served, secret, "code") == pytest.approx(10, abs=5)
    body = granted(exchange(served, key, grant_type="authorization_code", code=secret, redirect_uri=BACK))
    assert (body["expires_in"], body["refresh_expires_in"]) == (60, 600)
    assert ttl(served, body["access_token"], "access") == pytest.approx(60, abs=5)
    assert ttl(served, body["refresh_token"], "refresh") == pytest.approx(600, abs=5)


def ttl(served: Served, secret: str, kind: str) -> float:
    """How long a stored token is still valid, in seconds."""
    token = served.do(served.core.store.tokens.find(secret, kind))
    assert token is not None
    return token.expires.timestamp() - time.time()


@pytest.mark.parametrize(
    ("name", "minimum", "maximum"),
    [("token_ttl_s", 60, 2_592_000), ("refresh_token_ttl_s", 60, 31_536_000), ("code_ttl_s", 10, 3600)],
)
@shows(requirements.token_ttls)
def test_ttls_have_bounds(name: str, minimum: int, maximum: int) -> None:
    for value in (minimum, maximum):
        assert read_settings({name: value}, DIALECT.settings) == {name: value}
    for wrong in (minimum - 1, maximum + 1, float(minimum), str(minimum), True, None):
        with pytest.raises(Invalid) as problem:
            read_settings({name: wrong}, DIALECT.settings)
        assert problem.value.detail.endswith(f"it takes a whole number of seconds from {minimum} to {maximum}")


@shows(requirements.codes_are_used_once)
def test_a_code_is_good_once_for_its_address_and_its_credential(served: Served, key: ApiKey) -> None:
    fields = {"grant_type": "authorization_code", "code": code(served, key), "redirect_uri": BACK}
    body = granted(exchange(served, key, **fields))
    data(Caller(served, key, token=body["access_token"]).say(served.agent("x")))
    failed(exchange(served, key, **fields), "invalid_grant")
    fields["code"] = code(served, key)
    failed(exchange(served, key, **{**fields, "redirect_uri": "http://127.0.0.1:9/other"}), "invalid_grant")
    fields["code"] = code(served, key)
    failed(exchange(served, served.key("wps"), **fields), "invalid_grant")


@shows(requirements.reuse_revokes)
def test_who_uses_a_code_again_revokes_all_that_came_from_it(served: Served, key: ApiKey) -> None:
    agent = served.agent("x")
    fields = {"grant_type": "authorization_code", "code": code(served, key), "redirect_uri": BACK}
    body = granted(exchange(served, key, **fields))
    refresh = {"grant_type": "refresh_token", "refresh_token": body["refresh_token"]}
    more = granted(exchange(served, key, **refresh))
    other = granted(exchange(served, key, **{**fields, "code": code(served, key)}))
    failed(exchange(served, key, **fields), "invalid_grant")
    for token in (body["access_token"], more["access_token"]):
        assert Caller(served, key, token=token).say(agent).json()["code"] == 400001001
    failed(exchange(served, key, **refresh), "invalid_grant")
    data(Caller(served, key, token=other["access_token"]).say(agent))
    failed(exchange(served, key, **fields), "invalid_grant")


@shows(requirements.reuse_revokes)
def test_a_code_used_by_many_at_once_leaves_nobody_a_token(served: Served, key: ApiKey) -> None:
    agent = served.agent("x")
    for _ in range(5):
        fields = {"grant_type": "authorization_code", "code": code(served, key), "redirect_uri": BACK}
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(exchange, served, key, **fields) for _ in range(8)]
            answers = [call.result() for call in calls]
        tokens = [answer.json()["access_token"] for answer in answers if answer.status == 200]
        assert len(tokens) <= 1
        for token in tokens:
            assert Caller(served, key, token=token).say(agent).json()["code"] == 400001001


@shows(requirements.token_failures)
def test_failures_say_which_in_both_forms(served: Served, key: ApiKey) -> None:
    failed(exchange(served, key), "invalid_request")
    failed(exchange(served, key, grant_type="password"), "unsupported_grant_type")
    failed(exchange(served, key, grant_type="client_credentials", client_id=""), "invalid_request")
    failed(exchange(served, key, grant_type="client_credentials", client_secret="x"), "invalid_client", 401)
    failed(exchange(served, key, grant_type="client_credentials", client_id="x\0é"), "invalid_client", 401)
    off = served.key("wps")
    served.do(served.core.store.keys.set_enabled(off.id, enabled=False))
    failed(exchange(served, off, grant_type="client_credentials"), "invalid_client", 401)
    failed(exchange(served, key, grant_type="authorization_code", redirect_uri=BACK), "invalid_request")
    failed(exchange(served, key, grant_type="authorization_code", code="x"), "invalid_request")
    failed(exchange(served, key, grant_type="authorization_code", code="x", redirect_uri=BACK), "invalid_grant")
    failed(exchange(served, key, grant_type="refresh_token"), "invalid_request")
    failed(exchange(served, key, grant_type="refresh_token", refresh_token="x"), "invalid_grant")
    for body in (b"\xff\xfe", b"&=&%", b"a&" * 2000, b"{}"):
        failed(served.ask(Ask(path="/oauth2/token", body=body)), "invalid_request")
    access = granted(exchange(served, key, grant_type="client_credentials"))["access_token"]
    failed(exchange(served, key, grant_type="refresh_token", refresh_token=access), "invalid_grant")


@pytest.mark.parametrize(
    "changes", [{"client_id": "x"}, {"client_id": ""}, {"redirect_uri": ""}, {"redirect_uri": BACK + "2"}]
)
@shows(requirements.consent_without_redirect)
def test_nobody_is_led_to_an_address_that_is_not_registered(
    served: Served, key: ApiKey, changes: dict[str, str]
) -> None:
    answer = consent(served, key, **changes)
    failed(answer, "invalid_request")
    assert answer.header("Location") is None


@shows(requirements.consent_without_redirect)
def test_a_credential_without_addresses_leads_nowhere(served: Served) -> None:
    failed(consent(served, served.key("wps", auto_approve_user="ann")), "invalid_request")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "kso.other"}, "invalid_scope"),
        ({"scope": f"{SCOPE},x"}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": ""}, "unsupported_response_type"),
    ],
)
@shows(requirements.consent_errors_redirect)
def test_any_other_fault_is_told_to_the_application(
    served: Served, key: ApiKey, changes: dict[str, str], error: str
) -> None:
    fields = led_back(consent(served, key, **changes))
    assert list(fields) == ["error", "error_description"]
    assert fields["error"] == error


@pytest.mark.parametrize("scope", [",".join(SCOPES), " ".join(SCOPES), f"{SCOPES[0]}, {SCOPES[0]},"])
@shows(requirements.consent_redirects)
def test_scopes_are_separated_by_commas_or_spaces(served: Served, key: ApiKey, scope: str) -> None:
    assert list(led_back(consent(served, key, scope=scope))) == ["code"]


@shows(requirements.consent_redirects)
def test_an_address_that_does_not_go_into_a_header_is_encoded(served: Served) -> None:
    odd = "http://127.0.0.1:9/回来#x y"
    key = served.key("wps", redirect_uris=[odd], auto_approve_user="ann")
    location = str(consent(served, key, redirect_uri=odd).header("Location"))
    assert location.startswith("http://127.0.0.1:9/%E5%9B%9E%E6%9D%A5?code=")
    assert location.endswith("&state=s+1%26#x%20y")


@shows(requirements.consent_without_user)
def test_without_a_user_to_consent_a_page_says_what_to_do(served: Served) -> None:
    key = served.key("wps", redirect_uris=[BACK])
    answer = consent(served, key, state="<script>")
    assert answer.status == 403
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    assert b"auto_approve_user" in answer.body
    assert b"<script" not in answer.body
    assert "default-src 'none'" in str(answer.header("Content-Security-Policy"))
    assert answer.header("Location") is None


@pytest.mark.parametrize("kind", ["codes", "tokens"])
@shows(requirements.full)
def test_codes_and_tokens_beyond_their_quota_are_refused(served: Served, key: ApiKey, kind: QuotaKind) -> None:
    with served.full(kind):
        answer = consent(served, key) if kind == "codes" else exchange(served, key, grant_type="client_credentials")
    assert_refused(answer, LIMITS.refusals.full)
