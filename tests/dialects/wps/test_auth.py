"""KSO-1 and user tokens, without a server: calls and keys made by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.requirements import shows

from palaver.core.problems import Forbidden, Unauthenticated
from palaver.core.types import ApiKey, Principal, Token
from palaver.dialects.wps import DIALECT, requirements
from palaver.dialects.wps.auth import APP, CHAT, SCOPES, SESSION, signature
from palaver.wire.contract import CredentialClaim, Headers, Request

APPID, APPKEY = "AK123456", "sk098765"
DATE = "Mon, 02 Jan 2006 15:04:05 GMT"
NOW = datetime(2006, 1, 2, 15, 4, 5, tzinfo=UTC).timestamp()
SAY = "/v7/devhub/app/app_1/chat/create"
BODY = '{"text":"你好","stream":true}'.encode()
LIST = "/v7/devhub/apps/app_1/sessions/list"

VECTORS: dict[str, tuple[dict[str, Any], str]] = {
    "K1": (
        {"method": "GET", "path": "/v7/test", "query": "key=value"},
        "ce8df66877175e5198c8ea1362ffddf82e4941c6f25a4ca205a1ad09d0faaf03",
    ),
    "K2": (
        {"path": "/v7/test/body", "body": b'{"key": "value"}'},
        "c46e6c988130818ecba2484d51ac685948fbbef6814602c7874d6bfc41dc17b3",
    ),
    "K3": (
        {"path": "/v7/test/body", "body": b'{"key":"value"}'},
        "ef1ebfebb7aa295ef94a24342b776cceb534500f81de5f849f44672becde72ce",
    ),
    "K4": ({"path": SAY, "body": BODY}, "591ea71dce7ac5d7aa540d653f5370e575c3a70415d5486a3f60d5537b4dc061"),
    "K5": (
        {"path": "/v7/devhub/apps/app_1/chats/create", "body": BODY},
        "79275a6165bd7a89fbac236fc20bbded7fdf5912625181b9f66e95b51699c1d8",
    ),
    "K6": (
        {"path": "/v7/sse/devhub/apps/app_1/chats/create", "body": BODY},
        "a21abf2e02b2066d72db61d3dc6a5bd322abc772d45eec0c9d1bc97faf1ad777",
    ),
    "K7": (
        {"path": SAY, "body": BODY, "date": "Mon, 02 Jan 2006 15:04:05 UTC"},
        "d4bd38bdf33b79841d422fa501de693cd191f69c4acda964f5a31bc0602f6117",
    ),
    "K8": (
        {"path": SAY, "body": BODY, "media_type": "application/json; charset=utf-8"},
        "dc9d64d08d84ad9c98565bdc4846fc17e9093203147ad29b3593c66805a33291",
    ),
    "K9": (
        {"path": "/v7/devhub/app/app_1/chat/c1/cancel"},
        "28020bb98a3b7c3268e365ec03a8fe5dfc0bd2efd7e2b8e840ccd9ea6272d073",
    ),
    "K10": (
        {"method": "GET", "path": LIST, "query": "page_size=20"},
        "4f0941cc51c87fc6aa951105cf99e4834da44e19aa604f8a075a47021a7243e7",
    ),
    "K11": (
        {"method": "GET", "path": LIST, "query": "page_size=20", "media_type": None},
        "f584385fb1b97c6abd39bea883904a56ad38200a95e67cdd6c95a9b36f3444b6",
    ),
}


def key(*, enabled: bool = True, number: int = 1, **settings: Any) -> ApiKey:
    return ApiKey(app=1, number=number, dialect="wps", id=APPID, secret=APPKEY, enabled=enabled, settings=settings)


def token(*scopes: str, number: int = 1) -> Token:
    return Token(
        app=1,
        credential=number,
        generation=1,
        family=UUID(int=1),
        kind="access",
        user="ann",
        scopes=scopes,
        redirect=None,
        expires=datetime.now(UTC),
    )


def call(
    *,
    method: str = "POST",
    path: str = SAY,
    query: str = "",
    body: bytes = b"",
    date: str | None = DATE,
    media_type: str | None = "application/json",
    authorization: str | None = None,
    bearer: str | None = None,
    route: str = SAY,
    now: float = NOW,
) -> Request:
    headers = {
        "X-Kso-Date": date,
        "Content-Type": media_type,
        "X-Kso-Authorization": authorization,
        "Authorization": None if bearer is None else f"Bearer {bearer}",
    }
    return Request(
        method=method,
        path=path,
        target=f"{path}?{query}" if query else path,
        headers=Headers([(name.encode(), value.encode()) for name, value in headers.items() if value is not None]),
        route=route,
        path_params={},
        body=body,
        now=now,
        trace="0" * 32,
    )


def signed(signature: str, **members: Any) -> Request:
    return call(authorization=f"KSO-1 {APPID}:{signature}", **members)


def good(**members: Any) -> Request:
    """A call that is signed as it should be."""
    return signed(signature(call(**members), APPKEY), **members)


def admitted(request: Request, stored_key: ApiKey | None = None, bearer: Token | None = None) -> Principal:
    """Who is let in when ``stored_key`` is the key that the call claims."""
    DIALECT.claim(request)
    return DIALECT.verify(request, stored_key or key(), bearer)


def reason(request: Request, stored_key: ApiKey | None = None, bearer: Token | None = None) -> tuple[str, str]:
    """Why a call is refused, and what about."""
    with pytest.raises(Unauthenticated) as refusal:
        admitted(request, stored_key, bearer)
    return refusal.value.reason, refusal.value.subject


def missing(request: Request) -> tuple[str, str]:
    """Why a call is refused whose key there is not."""

    def ask() -> None:
        DIALECT.claim(request)
        DIALECT.verify(request, None, None)

    with pytest.raises(Unauthenticated) as refusal:
        ask()
    return refusal.value.reason, refusal.value.subject


# The specification's vectors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS)
@shows(requirements.vectors, requirements.kso_1_signs, requirements.date_forms, requirements.any_media_type)
def test_a_vector_is_accepted_as_it_stands(name: str) -> None:
    members, expected = VECTORS[name]
    request = signed(expected, **members)
    assert DIALECT.claim(request) == CredentialClaim(id=APPID)
    assert admitted(request) == Principal(key=key(), user="default")


@pytest.mark.parametrize(
    ("signature", "members"),
    [
        ("cfa89786d68aae427026db48710bab375276dc15efe0c433b7c7ef2f28935063", VECTORS["K1"][0]),
        (VECTORS["K2"][1], VECTORS["K3"][0]),
        (VECTORS["K4"][1], VECTORS["K5"][0]),
        (VECTORS["K10"][1], {"method": "GET", "path": LIST, "query": "x=1&page_size=20"}),
    ],
)
@shows(requirements.must_be_refused, requirements.signature_mismatch)
def test_what_must_be_refused_is(signature: str, members: dict[str, Any]) -> None:
    assert reason(signed(signature, **members)) == ("wrong", "")


@shows(requirements.must_be_refused)
def test_a_query_is_signed_in_the_order_it_was_sent_in() -> None:
    sent: dict[str, Any] = {"method": "GET", "path": LIST, "query": "page_size=20&next_page_token=a%2Fb"}
    turned: dict[str, Any] = {**sent, "query": "next_page_token=a%2Fb&page_size=20"}
    right = signature(call(**sent), APPKEY)
    admitted(signed(right, **sent))
    assert reason(signed(right, **turned)) == ("wrong", "")
    assert reason(signed(right, **{**sent, "query": "page_size=20&next_page_token=a/b"})) == ("wrong", "")


@shows(requirements.hex_of_either_case)
def test_hex_may_be_upper_case() -> None:
    members, expected = VECTORS["K4"]
    admitted(signed(expected.upper(), **members))


# Headers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "KSO-1",
        f"KSO-1 {APPID}",
        f"KSO-1  {APPID}:00",
        f"KSO-2 {APPID}:00",
        f"KSO-1 {APPID}:00:11",
        "KSO-1 :00",
        "é",
    ],
)
@shows(requirements.header_form, requirements.invalid_access_key)
def test_a_header_of_another_form_names_no_key(authorization: str) -> None:
    assert missing(call(authorization=authorization)) == ("unknown", "")


@shows(requirements.invalid_access_key)
def test_an_unknown_or_disabled_key_comes_before_its_date_and_signature() -> None:
    assert missing(signed("00", date="never")) == ("unknown", "")
    assert reason(signed("00", date="never"), key(enabled=False)) == ("disabled", "")


@pytest.mark.parametrize("members", [{"authorization": None}, {"date": None}, {"date": None, "bearer": "x"}])
@shows(requirements.missing_signature)
def test_without_authorization_or_date_a_signature_is_missing(members: dict[str, Any]) -> None:
    headers: dict[str, Any] = {"authorization": f"KSO-1 {APPID}:00", **members}
    assert reason(call(**headers)) == ("missing", "")
    assert missing(call(**headers)) == ("missing", "")


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 02 Jan 2006 15:04:05 +0000",
        "Monday, 02-Jan-06 15:04:05 GMT",
        "2006-01-02T15:04:05Z",
        "Mon, 2 Jan 2006 15:04:05 GMT",
        "Mon, 32 Jan 2006 15:04:05 GMT",
        "Mon, 02 Foo 2006 15:04:05 GMT",
        "1136214245",
    ],
)
@shows(requirements.date_out_of_range)
def test_a_date_of_another_form_is_out_of_range(date: str) -> None:
    assert reason(good(date=date)) == ("expired", "")


@shows(requirements.date_window, requirements.date_out_of_range)
def test_a_date_may_be_off_by_the_window() -> None:
    for off in (-900, 900):
        admitted(good(now=NOW + off))
        admitted(good(now=NOW + off / 10), key(date_window_s=90))
    for off in (-901, 901, 960):
        assert reason(good(now=NOW + off)) == ("expired", "")
        admitted(good(now=NOW + off), key(date_window_s=10_000))
    assert reason(good(now=NOW + 91), key(date_window_s=90)) == ("expired", "")


@given(st.text(st.characters(exclude_characters="\0\r\n", max_codepoint=0xFF), max_size=40))
@shows(requirements.header_form, requirements.date_out_of_range)
def test_whatever_stands_in_the_headers_it_is_a_refusal(text: str) -> None:
    assert reason(good(date=text or "x"))[0] in {"expired", "missing"}
    assert missing(call(authorization=text))[0] in {"unknown", "missing"}
    assert reason(signed("x", date=DATE, media_type=text)) == ("wrong", "")


# User tokens --------------------------------------------------------------------------------------------------------


@shows(requirements.tokens_are_optional, requirements.token_names_the_user)
def test_the_end_user_is_the_token_s_or_the_credential_s() -> None:
    assert admitted(good()).user == "default"
    assert admitted(good(), key(default_user="shop")).user == "shop"
    assert DIALECT.claim(good(bearer="t")) == CredentialClaim(id=APPID, token="t")
    assert admitted(good(bearer="t"), key(default_user="shop"), token(CHAT)).user == "ann"


@shows(requirements.empty_token_is_none)
@pytest.mark.parametrize("sent", ["Bearer", "Bearer  ", "bearer \t"])
def test_a_token_that_got_lost_is_not_the_credential_s_own_user(sent: str) -> None:
    lost = replace(good(), headers=Headers([*_raw(good()), (b"authorization", sent.encode())]))
    assert DIALECT.claim(lost) == CredentialClaim(id=APPID)
    assert reason(lost) == ("missing", "token")
    assert admitted(replace(good(), headers=Headers([*_raw(good()), (b"authorization", b"Basic x")]))).user == "default"


def _raw(call: Request) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in call.headers.items()]


@shows(requirements.token_can_be_required)
def test_a_token_can_be_required() -> None:
    assert reason(good(), key(user_token="required")) == ("missing", "token")
    admitted(good(bearer="t"), key(user_token="required"), token(CHAT))
    assert reason(signed("00"), key(user_token="required")) == ("wrong", "")


@shows(requirements.token_must_be_good)
def test_a_token_that_is_sent_must_be_good() -> None:
    assert reason(good(bearer="t")) == ("expired", "token")
    assert reason(good(bearer="t"), key(), token(*SCOPES, number=2)) == ("expired", "token")


@pytest.mark.parametrize("route", [route for route in DIALECT.routes if not route.public])
@shows(requirements.token_needs_scope, requirements.needs_the_chat_scope)
def test_a_token_needs_the_scope_of_the_call(route: Any) -> None:
    scope = CHAT if "/chat" in route.path else SESSION if "/session" in route.path else APP
    request = good(bearer="t", method=route.method, route=route.path)
    admitted(request, key(), token(scope))
    with pytest.raises(Forbidden):
        admitted(request, key(), token(*(other for other in SCOPES if other != scope)))


@shows(requirements.token_without_signature, requirements.unknown_token_alone)
def test_a_token_alone_is_enough_where_no_signature_is_required() -> None:
    free = key(require_signature=False)
    alone = call(bearer="t", date=None)
    assert DIALECT.claim(alone) == CredentialClaim(token="t")
    good = token(CHAT)
    assert admitted(alone, free, good) == Principal(key=free, user="ann", expires_at=good.expires.timestamp())
    assert reason(alone, key(), token(CHAT)) == ("missing", "")
    assert missing(alone) == ("expired", "token")


@shows(requirements.token_without_signature)
def test_signature_headers_then_only_name_the_key() -> None:
    free = key(require_signature=False)
    named = call(authorization=f"KSO-1 {APPID}:nonsense", date="never", bearer="t")
    assert DIALECT.claim(named) == CredentialClaim(id=APPID, token="t")
    admitted(named, free, token(CHAT))
    assert reason(named, free) == ("expired", "token")
    assert reason(signed("nonsense", date=None), free) == ("missing", "token")


@shows(requirements.disabled_credential_s_token)
def test_a_disabled_credential_s_token_is_invalid() -> None:
    off = key(require_signature=False, enabled=False)
    assert reason(call(bearer="t", date=None), off, token(CHAT)) == ("expired", "token")
    assert reason(call(bearer="t", date=None), key(enabled=False), token(CHAT)) == ("missing", "")


@shows(requirements.new_credentials)
def test_a_new_credential_has_the_vendor_s_look() -> None:
    name, secret = DIALECT.new_credential(bytes(range(32)))
    assert (name, secret) == ("AK0001020304050607", "101112131415161718191a1b1c1d1e1f")
