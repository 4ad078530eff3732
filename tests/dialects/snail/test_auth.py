"""``Snail-Ai-Auth``, without a server: calls and keys made by hand."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest
from dialects.snail.client import FAR, SECRET, jwt, segment
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from support.requests import NOW, call
from support.requirements import shows

from palaver.core.problems import Unauthenticated
from palaver.core.types import ApiKey, Principal
from palaver.dialects.snail import DIALECT, requirements
from palaver.wire.contract import CredentialClaim

KEY = ApiKey(app=1, number=1, dialect="snail", id="app-1", secret=SECRET, enabled=True, settings={})
DISABLED = ApiKey(app=1, number=1, dialect="snail", id="app-1", secret=SECRET, enabled=False, settings={})

J1 = "eyJhbGciOiJIUzI1NiJ9.eyJhcHBJZCI6ImFwcC0xIiwiZXhwIjo0MTAyNDQ0ODAwfQ.J0whfryHXQfNDNKxxZS-TXt3BFaRReGX8pNvmjouE-0"
J2 = (
    "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhcHAtMSIsIm9wZW5JZCI6ImV4dGVybmFsLXVzZXItMDAxIiwiZXhwIjo0MTAyNDQ0ODAwfQ"
    ".OlfiTxZMmaCB2Czq5x64wqzZK93Fi-1fx3K20jtNJ1I"
)
J3 = "eyJhbGciOiJIUzI1NiJ9.eyJhcHBJZCI6ImFwcC0xIiwiZXhwIjoxNzAwMDAwMDAwfQ.2DxosVMyZULrcQV2pPhnmNN8TdWgvarDkTF-9LqdZL0"
J4 = "eyJhbGciOiJIUzI1NiJ9.eyJhcHBJZCI6ImFwcC0xIiwiZXhwIjo0MTAyNDQ0ODAwfQ.2gy_nsZkEK0gwFej1VGpasJ-yPXR6KPqR8LB7r06JWo"
J5 = "eyJhbGciOiJub25lIn0.eyJhcHBJZCI6ImFwcC0xIiwiZXhwIjo0MTAyNDQ0ODAwfQ."
J6 = "eyJhbGciOiJIUzI1NiJ9.eyJhcHBJZCI6ImFwcC0xIn0.cCbQn8A70XKUP1MB2J-gpfP3n-pSGMslPcEXt_SLU00"

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def sent(token: str | bytes, *, key: ApiKey | None = KEY, now: float = NOW) -> Principal:
    """What comes of a call with that token, when ``key`` is what is found for its claim; until when is left out."""
    return replace(_sent(token, key, now), expires_at=math.inf)


def _sent(token: str | bytes, key: ApiKey | None, now: float) -> Principal:
    request = call({"Snail-Ai-Auth": token}, now=now)
    DIALECT.claim(request)
    return DIALECT.verify(request, key, None)


def reason(token: str | bytes, *, key: ApiKey | None = KEY, now: float = NOW) -> str:
    """Why a token is refused."""
    with pytest.raises(Unauthenticated) as refusal:
        sent(token, key=key, now=now)
    return refusal.value.reason


# The specification's tokens -----------------------------------------------------------------------------------------


@shows(requirements.j1, requirements.samples_use_a_bare_token)
def test_j1_is_accepted_for_any_user() -> None:
    assert DIALECT.claim(call({"Snail-Ai-Auth": J1})) == CredentialClaim(id="app-1")
    assert sent(J1) == Principal(key=KEY, user=None)


@shows(requirements.j2)
def test_j2_is_accepted_and_names_its_user() -> None:
    assert DIALECT.claim(call({"Snail-Ai-Auth": J2})) == CredentialClaim(id="app-1")
    assert sent(J2) == Principal(key=KEY, user="external-user-001")


@shows(requirements.j3)
def test_j3_is_expired() -> None:
    assert reason(J3) == "expired"


@pytest.mark.parametrize("token", [J4, J5, J6])
@shows(requirements.j4, requirements.j5, requirements.j6)
def test_j4_to_j6_are_wrong(token: str) -> None:
    assert reason(token) == "wrong"


@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer ", "BEARER   "])
@shows(requirements.j7, requirements.secret_is_a_token, requirements.bearer_is_allowed)
def test_j7_the_secret_itself_is_a_token(prefix: str) -> None:
    assert DIALECT.claim(call({"Snail-Ai-Auth": prefix + SECRET})) == CredentialClaim(secret=SECRET)
    assert sent(prefix + SECRET) == Principal(key=KEY)


@shows(requirements.bearer_is_allowed)
def test_a_jwt_may_come_with_bearer_too() -> None:
    assert sent(f"Bearer {J1}") == Principal(key=KEY)


# What a token must be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["none", "None", "hs256", "HS384", "HS512", "RS256", "ES256", "", None, 256, ["HS256"]])
@shows(requirements.token_is_hs256)
def test_no_other_algorithm_is_taken_though_the_signature_is_right(alg: Any) -> None:
    assert reason(jwt({"appId": "app-1", "exp": FAR}, header={"alg": alg})) == "wrong"


@pytest.mark.parametrize("header", [{}, {"typ": "JWT"}, [], "HS256", None, 1, b"", b"{", b"\xff"])
@shows(requirements.token_is_hs256)
def test_a_header_without_algorithm_is_wrong(header: Any) -> None:
    signed = jwt({"appId": "app-1", "exp": FAR}, header=b"null" if header is None else header)
    assert reason(signed) == "wrong"


@shows(requirements.token_is_hs256)
def test_other_members_of_the_header_are_passed_over() -> None:
    header = {"typ": "JWT", "alg": "HS256", "kid": "1"}
    assert sent(jwt({"appId": "app-1", "exp": FAR}, header=header)) == Principal(key=KEY)


@pytest.mark.parametrize("crit", [["exp"], ["b64"], [], None])
@shows(requirements.crit_is_refused)
def test_a_token_with_crit_is_wrong(crit: Any) -> None:
    assert reason(jwt({"appId": "app-1", "exp": FAR}, header={"alg": "HS256", "crit": crit})) == "wrong"


@pytest.mark.parametrize("key", ["", SECRET.lower(), SECRET[4:], SECRET + " ", "00112233445566778899aabbccddeeff"])
@shows(requirements.key_is_the_secret)
def test_only_the_whole_secret_signs(key: str) -> None:
    assert reason(jwt({"appId": "app-1", "exp": FAR}, key)) == "wrong"


@shows(requirements.key_is_the_secret)
def test_the_key_is_the_secret_as_utf_8() -> None:
    key = ApiKey(app=1, number=1, dialect="snail", id="app-1", secret="密钥🔑", enabled=True, settings={})
    assert sent(jwt({"appId": "app-1", "exp": FAR}, "密钥🔑"), key=key) == Principal(key=key)


@pytest.mark.parametrize("claims", [{"appId": "app-1"}, {"iss": "app-1"}, {"appId": "app-1", "iss": "app-1"}])
@shows(requirements.claims_name_the_credential)
def test_app_id_or_iss_or_both_name_the_credential(claims: dict[str, Any]) -> None:
    request = call({"Snail-Ai-Auth": jwt({**claims, "exp": FAR})})
    assert DIALECT.claim(request) == CredentialClaim(id="app-1")
    assert DIALECT.verify(request, KEY, None) == Principal(key=KEY, expires_at=FAR + 60)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"appId": "app-1", "iss": "app-2"},
        {"appId": "app-2", "iss": "app-1"},
        {"appId": "app-1", "iss": "APP-1"},
        {"appId": "app-1", "iss": ["app-1"]},
        {"appId": 1},
        {"appId": True, "iss": True},
        {"iss": ["app-1"]},
        {"appId": None, "iss": None},
        {"sub": "app-1"},
    ],
)
@shows(requirements.claims_name_the_credential, requirements.wrong_token)
def test_claims_that_name_no_credential_or_two_are_wrong(claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        DIALECT.claim(call({"Snail-Ai-Auth": jwt({**claims, "exp": FAR})}))
    assert refusal.value.reason == "wrong"


@pytest.mark.parametrize("claims", [[], "app-1", 1, b"", b"{}{}", b"\xff", b'{"appId":"\\ud800"}', b"[" * 100_000])
@shows(requirements.wrong_token)
def test_claims_that_are_no_object_are_wrong(claims: Any) -> None:
    assert reason(jwt(claims)) == "wrong"


# Time ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [-1000.0, 0.0, 59.9, 60.0])
@shows(requirements.exp_has_leeway)
def test_up_to_sixty_seconds_after_exp_the_token_is_good(late: float) -> None:
    assert sent(jwt({"appId": "app-1", "exp": NOW}), now=NOW + late) == Principal(key=KEY)


@pytest.mark.parametrize("late", [60.001, 61.0, 10**9])
@shows(requirements.exp_has_leeway, requirements.expired_token)
def test_more_than_sixty_seconds_after_exp_it_is_expired(late: float) -> None:
    assert reason(jwt({"appId": "app-1", "exp": NOW}), now=NOW + late) == "expired"


@pytest.mark.parametrize("ahead", [-1000.0, 0.0, 59.9, 60.0])
@shows(requirements.nbf_has_leeway)
def test_up_to_sixty_seconds_before_nbf_the_token_is_good(ahead: float) -> None:
    assert sent(jwt({"appId": "app-1", "exp": FAR, "nbf": NOW + ahead})) == Principal(key=KEY)


@pytest.mark.parametrize("ahead", [60.001, 61.0, 10**9])
@shows(requirements.nbf_has_leeway)
def test_more_than_sixty_seconds_before_nbf_it_is_wrong(ahead: float) -> None:
    assert reason(jwt({"appId": "app-1", "exp": FAR, "nbf": NOW + ahead})) == "wrong"


@pytest.mark.parametrize("exp", [None, "4102444800", True, False, [FAR], {"at": FAR}, ""])
@shows(requirements.exp_is_required, requirements.exp_is_a_number)
def test_an_exp_that_is_no_number_is_no_exp(exp: Any) -> None:
    assert reason(jwt({"appId": "app-1", "exp": exp})) == "wrong"


@pytest.mark.parametrize("nbf", ["0", True, False, [0], {}, ""])
@shows(requirements.exp_is_a_number)
def test_an_nbf_that_is_no_number_is_wrong(nbf: Any) -> None:
    assert reason(jwt({"appId": "app-1", "exp": FAR, "nbf": nbf})) == "wrong"


@pytest.mark.parametrize("exp", [FAR, FAR + 0.5, 10**18, 10**400, 1e308])
@shows(requirements.exp_is_a_number)
def test_any_number_is_a_time_however_large(exp: float) -> None:
    assert sent(jwt({"appId": "app-1", "exp": exp, "nbf": None})) == Principal(key=KEY)


@pytest.mark.parametrize(("exp", "until"), [(NOW, NOW + 60), (FAR + 0.5, FAR + 60.5), (10**400, 2**53), (1e308, 2**53)])
@shows(requirements.exp_has_leeway)
def test_what_is_answered_to_a_token_ends_when_a_call_with_it_would_be_refused(exp: float, until: float) -> None:
    assert _sent(jwt({"appId": "app-1", "exp": exp}), KEY, NOW).expires_at == until
    assert _sent(SECRET, KEY, NOW).expires_at == math.inf


@pytest.mark.parametrize("exp", [0, -1, -(10**400), -1e308])
@shows(requirements.expired_token)
def test_any_number_is_a_time_however_small(exp: float) -> None:
    assert reason(jwt({"appId": "app-1", "exp": exp})) == "expired"


@shows(requirements.expired_token, requirements.nbf_has_leeway)
def test_a_token_that_is_neither_begun_nor_still_good_is_wrong_before_it_is_expired() -> None:
    assert reason(jwt({"appId": "app-1", "exp": 0, "nbf": NOW + 61})) == "wrong"


# The user -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["u", " u ", "用户", "🙂"])
@shows(requirements.token_may_bind_a_user)
def test_an_open_id_claim_binds_the_token_to_a_user(user: str) -> None:
    assert sent(jwt({"appId": "app-1", "exp": FAR, "openId": user})).user == user


@shows(requirements.token_may_bind_a_user, requirements.nul)
def test_an_open_id_claim_is_written_as_a_bodys_open_id_is_read() -> None:
    assert sent(jwt({"appId": "app-1", "exp": FAR, "openId": "a\x00b"})).user == "a\ufffdb"


@shows(requirements.token_may_bind_a_user)
def test_a_null_open_id_claim_binds_to_nobody() -> None:
    assert sent(jwt({"appId": "app-1", "exp": FAR, "openId": None})).user is None


@shows(requirements.numeric_open_id_claim)
def test_an_open_id_claim_that_is_a_number_is_its_digits() -> None:
    assert sent(jwt({"appId": "app-1", "exp": FAR, "openId": 10**20})).user == "1" + "0" * 20


@pytest.mark.parametrize("user", [True, 1.5, ["u"], {}])
@shows(requirements.token_may_bind_a_user, requirements.wrong_token)
def test_an_open_id_claim_that_is_no_text_is_wrong(user: Any) -> None:
    assert reason(jwt({"appId": "app-1", "exp": FAR, "openId": user})) == "wrong"


@shows(requirements.issued_open_ids, requirements.other_claims_are_ignored)
def test_an_embed_token_is_a_token() -> None:
    user = "01a1fe0f042470ffa1ba07f2115477d1"
    claims = {"aud": f'{{"username":"{user}"}}', "exp": FAR, "appId": "app-1", "openId": user, "trustedCredential": "x"}
    assert sent(jwt(claims, header={"typ": "JWT", "alg": "HS256"})) == Principal(key=KEY, user=user)


@shows(requirements.other_claims_are_ignored)
def test_other_claims_are_ignored() -> None:
    claims: dict[str, Any] = {
        "appId": "app-1",
        "exp": FAR,
        "iat": "never",
        "sub": None,
        "aud": [1],
        "jti": {},
        "admin": True,
        "generation": 7,
    }
    assert sent(jwt(claims)) == Principal(key=KEY)


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Snail-Ai-Auth": ""}, {"Snail-Ai-Auth": "  \t "}, {"Authorization": J1}])
@shows(requirements.no_header)
def test_a_call_without_the_header_has_no_credential(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        DIALECT.claim(call(headers))
    assert refusal.value.reason == "missing"


@pytest.mark.parametrize("token", [J1, J3, J4, SECRET, "x"])
@shows(requirements.unknown_application, requirements.auth_errors_are_in_order)
def test_without_such_a_key_nothing_else_is_looked_at(token: str) -> None:
    assert reason(token, key=None) == "unknown"


@pytest.mark.parametrize("token", [J1, J3, J4, J5, J6, SECRET])
@shows(requirements.disabled_application, requirements.auth_errors_are_in_order)
def test_a_disabled_key_is_disabled_whatever_the_token_is_worth(token: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        sent(token, key=DISABLED)
    assert refusal.value == Unauthenticated(reason="disabled", subject="app-1")


@shows(requirements.auth_errors_are_in_order)
def test_a_wrong_signature_is_found_before_the_expiry() -> None:
    assert reason(jwt({"appId": "app-1", "exp": 0}, "another")) == "wrong"


@pytest.mark.parametrize("secret", [SECRET.upper(), SECRET[:-1], SECRET + "0", "SAI_" + "é" * 16])
@shows(requirements.wrong_token)
def test_an_opaque_token_that_is_not_the_secret_is_wrong(secret: str) -> None:
    assert reason(secret) == "wrong"


# One token, one text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("change", ["{}=", "{}==", "{} ", "{}\n", "={}", "{}+", "{}/", "{}!", "é{}", "{}A", "{}AAA"])
@shows(requirements.one_text_per_token, requirements.wrong_token)
def test_a_part_with_anything_more_in_it_is_wrong(part: int, change: str) -> None:
    parts: list[str] = list(J1.split("."))
    parts[part] = change.format(parts[part])
    token = ".".join(parts)
    if token.strip() != J1:
        assert reason(token) == "wrong"


@shows(requirements.one_text_per_token)
def test_a_signature_with_stray_bits_in_its_last_character_is_wrong() -> None:
    signature = base64.urlsafe_b64decode(J1.rsplit(".", 1)[1] + "=")
    strays = [J1[:-1] + last for last in "123" if base64.urlsafe_b64decode(J1[-43:-1] + last + "=") == signature]
    assert strays, "the last character has two bits that say nothing"
    assert {reason(token) for token in strays} == {"wrong"}


@pytest.mark.parametrize("token", [".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "..sig", ".e30.", "é.é.é", "SAI_.x.y"])
@shows(requirements.garbage_is_a_wrong_token)
def test_dots_alone_make_no_token(token: str) -> None:
    assert reason(token) == "wrong"


@given(st.binary(max_size=60).filter(lambda value: value.strip(b" \t") != SECRET.encode()))
@shows(requirements.garbage_is_a_wrong_token)
def test_any_bytes_in_the_header_are_refused_and_nothing_else(token: bytes) -> None:
    assert reason(token) in {"missing", "wrong"}


@given(json_values, json_values, st.binary(max_size=40))
@shows(requirements.garbage_is_a_wrong_token)
def test_any_three_parts_are_refused_and_nothing_else(header: Any, claims: Any, signature: bytes) -> None:
    assert reason(f"{segment(header)}.{segment(claims)}.{segment(signature)}") == "wrong"


@given(st.dictionaries(st.sampled_from(["appId", "iss", "exp", "nbf", "openId"]), json_values))
@shows(requirements.garbage_is_a_wrong_token)
def test_any_signed_claims_are_taken_or_refused_and_nothing_else(claims: dict[str, Any]) -> None:
    try:
        outcome = sent(jwt(claims)).key.id
    except Unauthenticated as refusal:
        outcome = refusal.reason
    assert outcome in {"app-1", "wrong", "expired"}


@given(st.integers(0, len(J1) - 1), st.characters(codec="latin-1"))
@shows(requirements.wrong_token)
def test_a_token_with_one_character_changed_is_refused(at: int, character: str) -> None:
    changed = J1[:at] + character + J1[at + 1 :]
    if changed != J1:
        assert reason(changed.encode("latin-1")) in {"missing", "wrong"}


@given(st.binary(min_size=32, max_size=32))
@shows(requirements.secret_has_a_form)
def test_a_new_secret_is_sai_and_32_hex_digits(random: bytes) -> None:
    app_id, secret = DIALECT.new_credential(random)
    assert app_id.isascii()
    assert secret[:4] == "SAI_"
    assert len(secret) == 36
    assert set(secret[4:]) <= set("0123456789abcdef")
