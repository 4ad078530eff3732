"""Authentication: the forms of the header, and the resulting principal."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from dialects.xspace.client import NOW, Caller, call, data, refused
from support.live_server import Served
from support.requirements import shows

from palaver.core.problems import Invalid, Unauthenticated
from palaver.core.types import ApiKey
from palaver.dialects.xspace import DIALECT, requirements
from palaver.dialects.xspace.auth import claim, new_credential, user_number, verify
from palaver.wire.settings import read_settings

K = "ak-d1f2129c4ba24629b8448af3354f9dd0"


def key(*, enabled: bool = True, **settings: Any) -> ApiKey:
    return ApiKey(app=1, number=1, dialect="xspace", id="key-1", secret=K, enabled=enabled, settings=settings)


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer {K}",
        K,
        f"  {K}  ",
        f"Basic {K}",
        f"bearer   {K}",
        f"BEARER\t{K} ",
        f"Bearer{K}",
    ],
)
@shows(requirements.bearer_key, requirements.schemes)
def test_a_key_is_found_behind_any_scheme_or_none(header: str) -> None:
    request = call({"Authorization": header})
    assert claim(request).secret == K
    assert verify(request, key()).user == "default"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "x", "Bearer x", f"Token {K}", "AK-1", f"x{K}"])
@shows(requirements.key_prefixes)
def test_a_value_without_the_key_prefix_counts_as_no_key(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        claim(call({} if header is None else {"Authorization": header}))
    assert caught.value.reason == "missing"


@shows(requirements.key_prefixes, requirements.schemes)
def test_what_follows_the_prefix_is_opaque() -> None:
    for secret in ("ck-1", "ak-xxxxeyJhbGciOiJIUzI1NiJ9", "ak-é"):
        assert claim(call({"Authorization": f"Bearer {secret}".encode("latin-1")})).secret == secret


@shows(requirements.new_keys)
def test_a_new_key_has_the_documented_form() -> None:
    _, secret = new_credential(bytes(range(32)))
    assert re.fullmatch(r"ak-[0-9a-f]{32}", secret)


@shows(requirements.key_states, requirements.expire_setting)
def test_a_key_is_unknown_disabled_wrong_or_expired() -> None:
    request = call({"Authorization": K})
    cases: list[tuple[ApiKey | None, str]] = [
        (None, "unknown"),
        (key(enabled=False), "disabled"),
        (key(enabled=False, expire="2000-01-01T00:00:00Z"), "disabled"),
        (key(expire="2026-04-13T13:07:53Z"), "expired"),
    ]
    for stored, reason in cases:
        with pytest.raises(Unauthenticated) as caught:
            verify(request, stored)
        assert caught.value.reason == reason
    with pytest.raises(Unauthenticated):
        verify(call({"Authorization": "ak-x"}), key())
    assert verify(request, key(expire="2026-04-13T13:07:54Z")).key.id == "key-1"
    assert round(NOW) == 1_776_085_674


@shows(requirements.expire_setting, requirements.key_kinds)
def test_settings_are_parsed() -> None:
    settings = {"kind": "agent", "agent": 7, "expire": "2026-12-31T00:00:00Z", "rpd": 5, "act_for_users": True}
    assert read_settings(settings, DIALECT.settings) == {**settings, "agent": "7"}
    wrong = [
        ("kind", "x"),
        ("expire", "2026-12-31"),
        ("expire", "2026-12-31T00:00:00+08:00"),
        ("expire", 5),
        ("rpd", 0),
    ]
    for name, value in wrong:
        with pytest.raises(Invalid):
            read_settings({name: value}, DIALECT.settings)
    assert read_settings({"expire": None}, DIALECT.settings) == {"expire": None}


@pytest.mark.parametrize(
    ("headers", "user"),
    [
        ({}, "me"),
        ({"nuwax-user-uid": "ann"}, "ann"),
        ({"nuwax-user-uid": "ann", "nuwax-user-id": "7"}, "ann"),
        ({"nuwax-user-uid": "%E7%94%A8%E6%88%B7"}, "用户"),
        ({"nuwax-user-uid": "用户"}, "用户"),
        ({"nuwax-user-uid": ""}, "me"),
        ({"nuwax-user-uid": "%20"}, "me"),
        ({"nuwax-user-id": "7"}, None),
    ],
)
@shows(requirements.act_for_users)
def test_act_for_users_enables_the_user_headers(headers: dict[str, str], user: str | None) -> None:
    request = call({"Authorization": K, **headers})
    may, may_not = key(act_for_users=True, default_user="me"), key(default_user="me")
    assert verify(request, may).user == user
    assert verify(request, may_not).user == "me"
    assert user_number(request, may_not) is None
    assert user_number(request, may) == (7 if "nuwax-user-id" in headers else None)


@shows(requirements.act_for_users)
def test_invalid_user_headers_are_rejected() -> None:
    for headers in ({"nuwax-user-id": "x"}, {"nuwax-user-uid": "x" * 256}):
        with pytest.raises(Invalid):
            verify(call({"Authorization": K, **headers}), key(act_for_users=True))


@shows(requirements.users_are_utf8)
@pytest.mark.parametrize("header", ["nuwax-user-uid", "X-User-ID"])
def test_a_user_name_that_is_not_utf_8_is_rejected(served: Served, header: str) -> None:
    caller = Caller(served, act_for_users=True, user_header=True)
    answer = caller.get("/api/v1/chat/conversation/1", headers={header: "%FF"})
    refused(answer, "4000", f"{header} is not UTF-8")


# Served -------------------------------------------------------------------------------------------------------------


@shows(requirements.key_states, requirements.languages, requirements.status_200)
def test_x9_key_errors_in_both_languages(served: Served) -> None:
    caller = Caller(served)
    disabled = served.key("xspace")
    served.sql("UPDATE credential SET enabled = false WHERE id = $1", disabled.id)
    expired = served.key("xspace", expire="2020-01-01T00:00:00Z")
    rows: list[tuple[str | None, str, str, str]] = [
        (None, "4030", "Missing API Key.", "缺少 API Key"),
        ("Bearer ak-bad", "4000", "Invalid API Key.", "无效的 API Key"),
        ("Bearer ck-1", "4000", "Invalid API Key.", "无效的 API Key"),
        (disabled.secret, "4000", "Invalid API Key.", "无效的 API Key"),
        (expired.secret, "4030", "API Key expired.", "API Key 已过期"),
    ]
    for auth, code, english, chinese in rows:
        caller.auth = auth
        path = "/api/v1/chat/conversation/1"
        refused(caller.get(path), code, english)
        refused(caller.get(path, headers={"Accept-Language": "zh-CN,zh;q=0.9"}), code, chinese)
        refused(caller.get(path, headers={"Accept-Language": "en", "Cookie": "a=b; lang=zh-CN"}), code, chinese)
        refused(caller.get(path, headers={"Accept-Language": "zh-CN", "Cookie": "lang=en-US"}), code, english)
        refused(caller.get(path, headers={"Accept-Language": "fr"}), code, english)


@shows(requirements.languages)
def test_the_default_language_is_the_servers() -> None:
    for headers, message in (({}, "缺少 API Key"), ({"Accept-Language": "en"}, "Missing API Key.")):
        reply = DIALECT.refuse(Unauthenticated(reason="missing"), replace(call(headers), language="zh-CN"), None)
        assert json.loads(reply.body)["message"] == message


@shows(requirements.act_for_users, requirements.conversation_owners)
def test_conversations_belong_to_the_end_user_of_the_request(served: Served) -> None:
    agent = served.agent("yes")
    caller = Caller(served, act_for_users=True)
    ann = {"nuwax-user-uid": "ann"}
    conversation = data(caller.post("/api/v1/chat/conversation/add", {"agentId": agent.id}, headers=ann))
    path = f"/api/v1/chat/conversation/{conversation}"
    number = data(caller.get(path, headers=ann))["userId"]
    assert data(caller.get(path, headers={"nuwax-user-id": str(number)}))["id"] == conversation
    refused(caller.get(path), "0001", "Invalid conversationId")
    refused(caller.get(path, headers={"nuwax-user-uid": "bob"}), "0001", "Invalid conversationId")
    refused(caller.get(path, headers={"nuwax-user-id": "999999"}), "4000", "User does not exist.")
    plain = Caller(served)
    refused(plain.get(path, headers=ann), "0001", "Invalid conversationId")
