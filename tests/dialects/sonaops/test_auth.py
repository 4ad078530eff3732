"""Signatures of both generations, without a server: calls and keys made by hand."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from dialects.sonaops.client import NOW, USER, call, canonical, stringified
from hypothesis import given
from hypothesis import strategies as st
from support.requirements import shows

from palaver.core.problems import AnyProblem, Internal, Invalid, NotFound, Problem, Unauthenticated
from palaver.core.types import ApiKey, Principal
from palaver.dialects.sonaops import DIALECT, requirements
from palaver.dialects.sonaops.auth import hmac_signature, signature
from palaver.dialects.sonaops.canonical import BLANK, canonical_body, canonical_query
from palaver.wire.contract import CredentialClaim, Request, request_id

SECRET = "test-secret"
CONVERSATION = "/v1/chat/conversation"


def key(*, enabled: bool = True, **settings: Any) -> ApiKey:
    return ApiKey(app=1, number=1, dialect="sonaops", id="k1", secret=SECRET, enabled=enabled, settings=settings)


SEED, LATER = key(), key(signature="hmac-sha256")
S1 = b'{"agentId":"agent-uuid"}'
S1_DIGEST = "7d0efd6e324cb803ee5ef85c3260adc3efa80fcf483920ac2a502707a602d9bb"
S4 = '{"agentId":"agent-uuid","conversationId":"conv-uuid","text":"你好"}'
S7 = '{"text":"cat","language":"zh","metadata":{},"conversationId":"conv-uuid","agentId":"agent-uuid"}'
H2_DIGEST = "9890e886528412f2a1922d02067a13ac2c0019b0644047fa8cd979bba509b4af"
SEEDS = [
    pytest.param(body, text, digest, id=f"S{number}")
    for number, (body, text, digest) in enumerate(
        [
            (S1.decode(), "agentId=agent-uuid", S1_DIGEST),
            (
                '{"messageId":"msg-uuid","processedText":"Hello, welcome.","voiceTimbreId":"English_radiant_girl"}',
                "messageId=msg-uuid&processedText=Hello, welcome.&voiceTimbreId=English_radiant_girl",
                "d0c110151dcbe20f28834c7513b8430462963336c11756695266403315bcbc72",
            ),
            (
                '{"messageId":"msg-uuid","processedText":"Hello, welcome."}',
                "messageId=msg-uuid&processedText=Hello, welcome.",
                "a051d305999e1b106df55e27519fbe3e09b07d0d47af8b8f9d21ad5497f96590",
            ),
            (
                S4,
                "agentId=agent-uuid&conversationId=conv-uuid&text=你好",
                "ffef508dd454c5de825dd5d4a734ca88ffb278a310bd1db976efc5393c52508a",
            ),
            ("", "", "9caf06bb4436cdbfa20af9121a626bc1093c4f54b31c0fa937957856135345b6"),
            (
                '{ "note": null, "lang": "   ", "agentId": "  agent-uuid  " }',
                "agentId=agent-uuid",
                S1_DIGEST,
            ),
            (
                S7,
                "agentId=agent-uuid&conversationId=conv-uuid&language=zh&metadata={}&text=cat",
                "8a8724968102386c408fa381bc2461adb0f9c36bde0eceaf926a2844d66449bf",
            ),
            (
                '{"ok":true,"n":1.0,"metadata":{"b":1,"a":"你好"},"agentId":"agent-uuid"}',
                'agentId=agent-uuid&metadata={"b":1,"a":"你好"}&n=1.0&ok=true',
                "103625690f08054d6bfc8207b9b9751b61b982418d53d4f1d954856b11e62721",
            ),
        ],
        1,
    )
]
LATERS = [
    pytest.param("POST", "/v1/chat/stream", "", S4, "f3c9058d58c5a9425388f37607d1ecd40eb99532eeef9e5ea909b9ced4e3e595"),
    pytest.param("POST", CONVERSATION, "", S1.decode(), H2_DIGEST),
    pytest.param("POST", "/v1/agent/list", "", "", "b4f936667dcd1247b7883d6d94b86e68879f6fbed103ed3096dac59791762978"),
    pytest.param(
        "GET",
        "/v1/agent/list",
        "pageNum=1&pageSize=20",
        "",
        "c667e7d4f14d2584cf65647084f225709a45f08b4512289e3fee67c86dd299c0",
    ),
    pytest.param("POST", "/v1/chat/image", "", S7, "f0d3efe859049a16c3ba1a47740fadc96577a7beeebec43600808c8bb968f2d0"),
]


def headers(digest: str = S1_DIGEST, **more: str | None) -> dict[str, str]:
    """The later generation's headers, a ``None`` left out; ``_`` is the hyphen."""
    named = {
        "Authorization": "Bearer k1",
        "X-Signature": digest,
        "X-Timestamp": str(int(NOW)),
        "X-User-ID": USER,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return {name: value for name, value in named.items() if value is not None}


def verified(sent: dict[str, str], body: bytes = S1, key: ApiKey | None = SEED, **how: Any) -> Principal:
    request = call(sent, body, **how)
    assert DIALECT.claim(request) == CredentialClaim(id="k1")
    return DIALECT.verify(request, key, None)


def _let_in(request: Request, key: ApiKey | None) -> None:
    DIALECT.claim(request)
    DIALECT.verify(request, key, None)


def said(sent: dict[str, str], body: bytes = S1, key: ApiKey | None = SEED, **how: Any) -> tuple[int, int, str]:
    """HTTP status, code and message of the refusal."""
    request = call(sent, body, **how)
    with pytest.raises(Problem) as refusal:
        _let_in(request, key)
    reply = DIALECT.refuse(cast("AnyProblem", refusal.value), request, key)
    envelope = json.loads(reply.body)
    return reply.status, envelope["code"], envelope["message"]


# The specification's digests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "text", "digest"), SEEDS)
@shows(
    requirements.vectors_sha256, requirements.sha256_rule, requirements.signed_example, requirements.no_body_is_empty
)
@shows(requirements.signature_case)
def test_the_seeds_digests(body: str, text: str, digest: str) -> None:
    assert canonical_body(body.encode()) == text
    assert verified(headers(digest), body.encode()).user == USER
    assert verified(headers(digest.upper()), body.encode()).user == USER


@pytest.mark.parametrize(("method", "path", "query", "body", "digest"), LATERS)
@shows(requirements.vectors_hmac, requirements.hmac_rule, requirements.setting_signature)
def test_the_later_generations_digests(method: str, path: str, query: str, body: str, digest: str) -> None:
    who = verified(headers(digest), body.encode(), LATER, method=method, path=path, query=query)
    assert who == Principal(key=LATER, user=USER)


@shows(requirements.vectors_refused, requirements.e_bad_signature)
def test_a_digest_is_good_for_what_it_was_made_for_alone() -> None:
    wrong = (401, 10401, "Invalid signature")
    assert said(headers(), b'{"agentId":"agent-uuid2"}') == wrong
    assert said(headers(), key=LATER) == wrong
    assert said(headers(H2_DIGEST), key=LATER, path="/v1/chat/stream") == wrong
    assert said(headers(H2_DIGEST, X_User_ID="user-124"), key=LATER) == wrong
    assert said(headers(H2_DIGEST)) == wrong
    for digest in ("x", "0" * 64, S1_DIGEST[:-1], S1_DIGEST + "0", "é"):
        assert said(headers(digest)) == wrong


# The canonical body -------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(members=st.dictionaries(texts, json_values, max_size=5), indent=st.sampled_from([None, 1]))
@shows(requirements.values_are_compact, requirements.sorted_by_name, requirements.empty_containers_count)
def test_a_body_is_signed_as_json_stringify_writes_it_however_it_is_spaced(members: Any, indent: int | None) -> None:
    plain = {name: value.strip(BLANK) if isinstance(value, str) else value for name, value in members.items()}
    kept = {name: value for name, value in plain.items() if value is not None and value != ""}
    expected = "&".join(
        f"{name}={kept[name] if isinstance(kept[name], str) else stringified(kept[name])}" for name in sorted(kept)
    )
    for written in (stringified(members), json.dumps(members, indent=indent)):
        assert canonical_body(written.encode()) == expected


@given(body=st.binary(max_size=60) | st.text(max_size=40).map(str.encode) | st.sampled_from([b'{"a":1e999}', b'{"a"']))
@shows(requirements.e_bad_body)
def test_whatever_is_sent_is_signed_or_an_invalid_body(body: bytes) -> None:
    try:
        assert isinstance(canonical_body(body), str)
    except Invalid as problem:
        refusals = [problem]
    else:
        refusals = []
    assert all((problem.field, problem.rule) == ("body", "json") for problem in refusals)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"a":[1.50,-0,1E5,12345678901234567890123,0.1e-7]}', "a=[1.50,-0,1E5,12345678901234567890123,0.1e-7]"),
        ('{"n":-0.0,"m":1e2}', "m=1e2&n=-0.0"),
        ('{"a":{"x":1,"y":2,"x":3}}', 'a={"x":3,"y":2}'),
        ('{"a":1,"b":2,"a":3}', "a=3&b=2"),
        ('{"a":{},"b":[],"c":{"d":null,"e":" "}}', 'a={}&b=[]&c={"d":null,"e":" "}'),
        ('{"a":["\\u4f60\\u0001\\/\\u007f\\"\\\\\\b\\f\\u2028"]}', 'a=["你\\u0001/\x7f\\"\\\\\\b\\f\u2028"]'),
        ('{"b":"x&y=z","B":" % "}', "B=%&b=x&y=z"),
        ('{"\U0001f642":1,"\uffee":2}', "\uffee=2&\U0001f642=1"),
        ('{"a":false,"b":0}', "a=false&b=0"),
    ],
)
@shows(requirements.values_are_compact, requirements.repeated_members, requirements.empty_containers_count)
def test_literals_places_and_escapes(body: str, text: str) -> None:
    assert canonical_body(body.encode()) == text


@shows(requirements.strings_are_trimmed, requirements.blank_members_drop)
def test_strings_are_trimmed_as_javascript_trims() -> None:
    assert canonical_body(stringified({"a": BLANK, "b": f"{BLANK}x y{BLANK}", "c": None, "d": ""}).encode()) == "b=x y"
    kept = "\x1c\x1d\x1e\x1f\x85\u180e\u200b"
    assert canonical_body(stringified({"a": kept}).encode()) == f"a={kept}"


@shows(requirements.query_of_get, requirements.hmac_rule)
def test_a_query_is_signed_decoded_and_sorted_by_name_alone() -> None:
    assert canonical_query("b=2&a=%E4%BD%A0+x&a=1&c=&d=%20&e") == "a=你 x&a=1&b=2"
    seed = call(method="GET", path="/v1/agent/list", query="pageSize=20&pageNum=1", body=b"not looked at")
    assert signature(seed, SECRET) == signature(call(body=b'{"pageNum":1,"pageSize":20}'), SECRET)
    one, other = (call(S1 and headers(), S1, query=query) for query in ("", "a=1"))
    assert signature(one, SECRET) == signature(other, SECRET)
    assert hmac_signature(one, SECRET) != hmac_signature(other, SECRET)


@shows(requirements.multipart_body)
def test_a_multipart_body_is_no_json_object() -> None:
    empty = "9caf06bb4436cdbfa20af9121a626bc1093c4f54b31c0fa937957856135345b6"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert said({**headers(empty), **kind}, b"--x\r\n\r\n--x--") == (400, 10400, "Invalid request body")
    assert said({**headers(empty), **kind}, S1) == (401, 10401, "Invalid signature")


@given(members=st.dictionaries(texts, json_values, max_size=4))
@shows(requirements.c_member_order, requirements.sorted_by_name)
def test_the_order_of_members_does_not_matter(members: dict[str, Any]) -> None:
    turned = dict(reversed(members.items()))
    assert canonical_body(stringified(members).encode()) == canonical_body(stringified(turned).encode())


# Headers and their order --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer k1", "bearer k1", "BEARER  k1"])
@shows(requirements.bearer_scheme)
def test_the_scheme_is_read_in_any_case(scheme: str) -> None:
    assert verified(headers(Authorization=scheme)).user == USER


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Basic k1", "k1", "Bearerk1"])
@shows(requirements.e_no_key, requirements.http_401, requirements.e_order)
def test_without_a_bearer_there_is_no_key(value: str | None) -> None:
    assert said(headers(Authorization=value, X_Signature=None), b"{") == (401, 10401, "Missing API key")


@pytest.mark.parametrize("key", ["' or 1=1 --", "a b", '"', "k1 k1", "k\tx", "\xa0", "键", ";", "k1;"])
@shows(requirements.any_key_is_a_key, requirements.e_unknown_key)
def test_an_odd_key_is_an_unknown_one(key: str) -> None:
    assert said(headers(Authorization=f"Bearer {key}"), b"{", None) == (200, 10401, "Invalid API key")


@shows(requirements.e_unknown_key, requirements.e_disabled_key, requirements.key_invalid, requirements.e_order)
def test_an_unknown_key_comes_before_everything_and_a_disabled_one_next() -> None:
    bare = headers(X_Signature=None)
    assert said(bare, b"{", None) == (200, 10401, "Invalid API key")
    assert said(bare, b"{", key(enabled=False)) == (200, 10401, "Invalid API key")
    assert said(bare, b"{", key(enabled=False, signature="hmac-sha256")) == (401, 10401, "Invalid API key")


@shows(requirements.e_no_signature, requirements.e_no_headers, requirements.e_order)
def test_signature_then_time_then_user_are_missed() -> None:
    nothing = headers(X_Signature=None, X_Timestamp=None, X_User_ID=None)
    for key in (SEED, LATER):
        assert said(nothing, b"{", key) == (401, 10401, "Missing signature")
    assert said(headers(X_Timestamp=None, X_User_ID=None), b"{", LATER) == (401, 10401, "Missing timestamp")
    assert said(headers(X_Timestamp="1", X_User_ID=None), b"{", LATER) == (401, 10401, "Missing user id")
    assert said(headers(X_Timestamp="1"), b"{", LATER) == (401, 10401, "Request expired")


@pytest.mark.parametrize("off", [-300, -1, 0, 300])
@shows(requirements.timestamp_window)
def test_up_to_300_seconds_off_are_taken(off: int) -> None:
    assert verified(headers(X_Timestamp=str(int(NOW) + off)), now=NOW + 0.9).user == USER


@pytest.mark.parametrize("stamp", ["1741999699", "1742000301", "0", "-1", "1742000000.0", "1742000000000", "now", "٣"])
@shows(requirements.e_expired, requirements.timestamp_window)
def test_another_time_or_none_at_all_is_expired_also_for_a_sha256_key(stamp: str) -> None:
    for key in (SEED, LATER):
        assert said(headers(X_Timestamp=stamp), b"{", key) == (401, 10401, "Request expired")


@shows(requirements.e_bad_body, requirements.e_order, requirements.http_400)
def test_the_body_is_looked_at_before_the_digest() -> None:
    deep = b'{"a":' * 65 + b"1" + b"}" * 65
    for body in (
        b"{",
        b"[]",
        b"1",
        b"null",
        b'"x"',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        deep,
    ):
        assert said(headers("0" * 64), body) == (400, 10400, "Invalid request body")
        assert said(headers("0" * 64), body, LATER) == (200, 10400, "Invalid request body")


@shows(requirements.many_members)
def test_a_body_of_too_many_members_is_refused_before_its_signature() -> None:
    few, many = (b'{"agentId":"a","more":[' + b"[]," * times + b"0]}" for times in (19_996, 20_001))
    assert said(headers("0" * 64), few) == (401, 10401, "Invalid signature")
    assert said(headers("0" * 64), many) == (400, 10400, "Invalid request body")


@shows(requirements.user_header, requirements.timestamp_window, requirements.r2)
def test_a_sha256_call_needs_neither_time_nor_user() -> None:
    bare = headers(X_Timestamp=None, X_User_ID=None)
    assert verified(bare).user == "default"
    assert verified(bare, key=key(default_user="clerk")).user == "clerk"


@shows(requirements.header_user_is_decoded, requirements.user_header)
def test_a_users_name_is_signed_as_sent_and_then_decoded() -> None:
    for sent, user in (("%E7%94%A8%E6%88%B7", "用户"), ("用户", "用户"), ("a%00b", "a\ufffdb")):
        request = call(headers(X_User_ID=sent), S1)
        signed = {**headers(hmac_signature(request, SECRET)), "X-User-ID": sent}
        assert verified(signed, key=LATER).user == user
    assert verified({**headers(), "X-User-ID": "%20"}).user == "default"


@shows(requirements.user_has_a_length)
def test_a_users_name_has_an_end() -> None:
    assert verified(headers(X_User_ID="x" * 255)).user == "x" * 255
    assert said(headers(X_User_ID="x" * 256)) == (400, 10400, "X-User-ID is too long")


@shows(requirements.user_is_utf8)
def test_a_users_name_that_is_not_utf_8_is_refused_behind_a_good_signature_alone() -> None:
    for sent in ("%FF", "Jos%E9"):
        assert said(headers(X_User_ID=sent)) == (400, 10400, "X-User-ID must be UTF-8")
        assert said(headers("0" * 64, X_User_ID=sent)) == (401, 10401, "Invalid signature")


@shows(requirements.repeated_request_id)
def test_a_request_id_is_handed_on_where_the_key_wants_it_once() -> None:
    sent = headers(X_Request_ID="r-1")
    assert verified(sent).nonce is None
    assert verified(sent, key=key(reject_repeated_request_id=True)).nonce == "r-1"
    assert verified(headers(), key=key(reject_repeated_request_id=True)).nonce is None
    problem = Unauthenticated(reason="repeated", subject="r-1")
    reply = DIALECT.refuse(problem, call(), SEED)
    assert (reply.status, json.loads(reply.body)["message"]) == (401, "Request repeated")


@shows(requirements.request_id_echoed)
def test_a_request_id_comes_back_as_it_was_sent() -> None:
    for sent, own in (("r" * 128, "r" * 128), ("r" * 129, None), ("", None), ("请求", "请求"), ("a\tb", None)):
        assert request_id(call({"X-Request-ID": sent}).headers) == own


@shows(requirements.e_internal, requirements.http_500)
def test_an_internal_failure_is_500_and_200_for_the_later_generation() -> None:
    problem = Internal(reason="unforeseen", detail="a secret")
    for key, status in ((None, 500), (SEED, 500), (LATER, 200)):
        reply = DIALECT.refuse(problem, call(), key)
        assert (reply.status, json.loads(reply.body)["code"]) == (status, 10500)
        assert b"secret" not in reply.body


@shows(requirements.trace_id_is_32_letters)
def test_a_trace_id_is_made_of_the_requests_own() -> None:
    ids = {
        json.loads(DIALECT.refuse(NotFound(noun="route"), call(trace=f"{n:032x}"), None).body)["traceId"]
        for n in range(200)
    }
    assert len(ids) == 200
    assert all(len(one) == 32 and one.isalnum() and one.isascii() for one in ids)


@shows(requirements.c_header_names)
def test_header_names_may_be_written_in_any_case() -> None:
    assert verified({name.title(): value for name, value in headers().items()}).user == USER


@shows(requirements.sha256_rule)
def test_the_documented_clients_text_is_ours() -> None:
    members = {"text": " 你好 ", "agentId": "a", "metadata": {"z": [1, None]}, "language": None}
    assert canonical(members) == canonical_body(stringified(members).encode())
