"""Surface B: end users, and the tokens of their browsers."""

from __future__ import annotations

import base64
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from dialects.snail import client
from dialects.snail.client_b import CONVERSATIONS, B, Caller, good, refused_on_b
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.snail import requirements_b

REGISTER, USER, TOKEN = f"{B}/user/register", f"{B}/user", f"{B}/embed-token"


@pytest.fixture(scope="module")
def program(served: Served) -> Caller:
    return Caller(served)


def claims(token: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


# Registering --------------------------------------------------------------------------------------------------------


@shows(requirements_b.b_register, requirements_b.b_user_members, requirements_b.b_query_or_body)
def test_the_same_external_id_is_the_same_user(program: Caller) -> None:
    first = good(program.post(REGISTER, externalId="emp-1", nickname="Ann", avatarUrl=None))
    assert list(first) == ["openId", "externalId", "nickname", "avatarUrl", "created"]
    assert re.fullmatch("[0-9a-f]{32}", first["openId"])
    assert first == {**first, "externalId": "emp-1", "nickname": "Ann", "avatarUrl": None, "created": True}
    again = good(program.post(REGISTER, externalId="emp-1", avatarUrl="https://example.com/a.png"))
    assert again == {**first, "avatarUrl": "https://example.com/a.png", "created": False}
    assert good(program.get(USER, openId=first["openId"])) == again


@shows(requirements_b.b_register, requirements_b.b_blank_is_absent)
def test_without_an_external_id_every_user_is_new(program: Caller) -> None:
    made = [good(program.post(REGISTER, externalId=name)) for name in (None, "", " ")]
    assert len({user["openId"] for user in made}) == 3
    assert all(user["externalId"] is None and user["created"] for user in made)


@shows(requirements_b.b_lengths, requirements_b.b_wrong_type)
def test_names_have_a_type_and_a_length(program: Caller) -> None:
    assert good(program.post(REGISTER, externalId="用" * 255))["created"]
    refused_on_b(program.post(REGISTER, externalId="用" * 256), "参数格式错误: externalId")
    refused_on_b(program.post(REGISTER, externalId=7), "参数格式错误: externalId")
    refused_on_b(program.post(REGISTER, nickname=["x"]), "参数格式错误: nickname")
    refused_on_b(program.get(USER, openId="x" * 256), "参数格式错误: openId")


@shows(requirements_b.b_user, requirements_b.b_unknown_user, requirements_b.b_external_ids)
def test_a_user_is_found_by_either_name_and_only_in_its_application(served: Served, program: Caller) -> None:
    open_id = program.register("emp 2/ü")
    for name in (open_id, open_id.upper(), "emp 2/ü"):
        assert good(program.get(USER, openId=name))["openId"] == open_id
    refused_on_b(program.get(USER, openId="nobody"), "用户不存在: nobody")
    refused_on_b(program.get(USER), "openId openId is required")
    stranger = Caller(served, served.key("snail", application="elsewhere"))
    for name in (open_id, "emp 2/ü"):
        refused_on_b(stranger.get(USER, openId=name), f"用户不存在: {name}")


@shows(requirements_b.b_auto_register, requirements_b.b_unknown_user)
def test_auto_register_takes_any_open_id(served: Served, program: Caller) -> None:
    agent = served.agent("yes")
    refused_on_b(program.say(agent, "new-1"), "OpenId 无效: new-1", status=5001)
    for path in (CONVERSATIONS, TOKEN):
        refused_on_b(program.get(path, agentId=agent.id, openId="new-1"), "OpenId 无效: new-1", status=5001)
    open_to_all = Caller(served, auto_register=True)
    user = good(open_to_all.get(USER, openId="new-1"))
    assert (user["externalId"], user["created"]) == ("new-1", False)
    assert open_to_all.say(agent, "new-2").header("X-Conversation-Id")
    assert good(program.get(USER, openId="new-2"))["externalId"] == "new-2"


# The same people on A -----------------------------------------------------------------------------------------------


@shows(requirements_b.b_n13, requirements_b.b_same_people, requirements_b.b_shared)
def test_n13_as_users_and_their_conversations_are_bs(served: Served, program: Caller) -> None:
    agent = served.agent("yes")
    on_a = client.Caller(served, program.key)
    done_event = client.done(on_a.say(agent, user="external-user-001"))
    user = good(program.post(REGISTER, externalId="external-user-001"))
    assert not user["created"]
    listed = good(program.get(CONVERSATIONS, agentId=agent.id, openId=user["openId"]))
    assert [one["conversationId"] for one in listed] == [done_event["conversationId"]]
    again = client.done(on_a.say(agent, user=user["openId"], conversationId=done_event["conversationId"]))
    assert again["conversationId"] == done_event["conversationId"]
    twice = [good(program.post(REGISTER, externalId="external-user-002"))["created"] for _ in range(2)]
    assert twice == [True, False]


# Tokens -------------------------------------------------------------------------------------------------------------


@shows(requirements_b.b_embed_token, requirements_b.b_embed_jwt, requirements_b.b_agent_dates)
def test_an_embed_token_has_its_members_and_claims(program: Caller) -> None:
    open_id = program.register("embed", nickname="Em", avatarUrl="a.png")
    begun = int(time.time())
    made = good(program.get(TOKEN, openId=open_id))
    ended = int(time.time())
    assert list(made) == [
        "token",
        "tokenType",
        "authHeader",
        "expiresAt",
        "ttlSeconds",
        "openId",
        "nickname",
        "avatarUrl",
    ]
    assert (made["tokenType"], made["authHeader"], made["ttlSeconds"]) == ("Snail-Ai-Auth", "Snail-Ai-Auth", 3600)
    assert (made["openId"], made["nickname"], made["avatarUrl"]) == (open_id, "Em", "a.png")
    token_claims = claims(made["token"])
    assert list(token_claims) == ["aud", "exp", "appId", "openId", "palaver_generation"]
    assert (token_claims["aud"], token_claims["appId"], token_claims["openId"]) == (
        f'{{"username":"{open_id}"}}',
        program.key.id,
        open_id,
    )
    assert begun + 3600 <= token_claims["exp"] <= ended + 3600
    assert made["expiresAt"] == datetime.fromtimestamp(token_claims["exp"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert made["token"] == client.jwt(token_claims, program.key.secret)
    assert made["token"].startswith("eyJhbGciOiJIUzI1NiJ9.")


@shows(requirements_b.b_embed_token, requirements_b.b_embed_ttl, requirements_b.b_query_or_body)
def test_a_token_lives_as_long_as_it_is_asked_to_within_a_day(program: Caller) -> None:
    open_id = program.register("ttl")
    for ask in (program.get, program.post):
        for ttl in (60, "86400"):
            assert good(ask(TOKEN, openId=open_id, ttlSeconds=ttl))["ttlSeconds"] == int(ttl)
        for ttl in (59, 0, -1):
            message = "ttlSeconds ttlSeconds must be greater than or equal to 60"
            refused_on_b(ask(TOKEN, openId=open_id, ttlSeconds=ttl), message)
        message = "ttlSeconds ttlSeconds must be less than or equal to 86400"
        refused_on_b(ask(TOKEN, openId=open_id, ttlSeconds=86_401), message)
        refused_on_b(ask(TOKEN, ttlSeconds=1), "openId openId is required")
        refused_on_b(ask(TOKEN, openId="nobody"), "OpenId 无效: nobody", status=5001)
    made = good(program.post(TOKEN, openId=open_id, trustedCredential="t-1", ttlSeconds=None))
    assert claims(made["token"])["trustedCredential"] == "t-1"


@shows(requirements_b.b_embed_on_a)
def test_an_embed_token_speaks_a_for_its_user_alone(served: Served, program: Caller) -> None:
    agent = served.agent("yes")
    open_id = program.register("browser")
    on_a = client.Caller(served, program.key)
    on_a.auth = f"Bearer {good(program.post(TOKEN, openId=open_id))['token']}"
    done_event = client.done(on_a.say(agent, user=open_id))
    client.refused(on_a.say(agent, user="somebody"), "OpenId 无效: somebody", status=5001)
    listed = good(program.get(CONVERSATIONS, agentId=agent.id, openId="browser"))
    assert [one["conversationId"] for one in listed] == [done_event["conversationId"]]
