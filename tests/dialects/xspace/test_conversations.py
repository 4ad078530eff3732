"""Conversations: topics, creation, details, lists, deletion."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import UUID

import pytest
from dialects.xspace.client import ADD, LIST, USER, Caller, data, done, events, refused, update_path
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.xspace import requirements

DTO = [
    *("id", "tenantId", "userId", "uid", "agentId", "topic", "summary", "icon", "variables", "modified", "created"),
    *("agent", "messageList", "type", "taskId", "taskStatus", "taskCron", "taskCronDesc", "devMode", "topicUpdated"),
    *("sandboxServerId", "sandboxSessionId", "devSpaceId", "devTargetType", "devTargetId", "sharedUris"),
]
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000\+00:00"
NONE = ("0001", "Invalid conversationId")


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("It is sunny.", name="TaskAgentTest", extra={"xspace": {"type": "TaskAgent"}})


@pytest.fixture
def conversation(caller: Caller, agent: Agent) -> int:
    return caller.add(agent)


# Topics -------------------------------------------------------------------------------------------------------------


@shows(
    requirements.update_is_posted,
    requirements.topic_from_first_message,
    requirements.topic_as_sent,
    requirements.envelope_members,
    requirements.updated_members,
)
def test_x1_x2_the_documented_test_cases(caller: Caller, conversation: int) -> None:
    for body, topic in (
        ({"firstMessage": "你好,请问今天天气怎么样?"}, "你好,请问今天天气怎么样?"),
        ({"topic": "自定义会话主题"}, "自定义会话主题"),
    ):
        dto = data(caller.update(conversation, body))
        assert (dto["topic"], dto["topicUpdated"], dto["taskStatus"]) == (topic, 1, "CREATE")
        assert dto == caller.detail(conversation)


@shows(requirements.conversation_members, requirements.agent_member, requirements.uid_in_paths)
def test_the_response_equals_the_sample_except_for_its_values(caller: Caller, conversation: int, agent: Agent) -> None:
    answer = caller.update(conversation, {"topic": "自定义会话主题"})
    dto = data(answer)
    assert list(dto) == DTO
    assert re.fullmatch(MOMENT, dto["modified"])
    assert re.fullmatch(MOMENT, dto["created"])
    assert re.fullmatch("[0-9a-f]{32}", dto["uid"])
    published = dto["agent"]["publishDate"]
    assert re.fullmatch(MOMENT, published)
    assert answer.body.decode() == (
        '{"code":"0000","displayCode":"0000","message":"success","data":'
        f'{{"id":{conversation},"tenantId":1,"userId":{dto["userId"]},"uid":"{dto["uid"]}","agentId":{agent.id},'
        '"topic":"自定义会话主题","summary":null,"icon":null,"variables":null,'
        f'"modified":"{dto["modified"]}","created":"{dto["created"]}",'
        f'"agent":{{"agentId":{agent.id},"name":"TaskAgentTest","type":"TaskAgent",'
        f'"icon":"http://test/api/logo/agent/TaskAgentTest","publishDate":"{published}"}},'
        '"messageList":null,"type":"Chat","taskId":null,"taskStatus":"CREATE","taskCron":null,"taskCronDesc":"",'
        '"devMode":0,"topicUpdated":1,"sandboxServerId":null,"sandboxSessionId":null,"devSpaceId":null,'
        f'"devTargetType":null,"devTargetId":null,"sharedUris":null}},"tid":"{answer.json()["tid"]}","success":true}}'
    )


@pytest.mark.parametrize(
    ("body", "topic"),
    [
        ({"firstMessage": "a", "topic": "b"}, "b"),
        ({"firstMessage": "  a\n\n b ", "topic": None}, "a b"),
        ({"firstMessage": "\u3000a\u2028\x85b\u00a0", "topic": " \u3000"}, "a b"),
        ({"firstMessage": "\u200ba\x1fb"}, "\u200ba\x1fb"),
        ({"topic": '"x"'}, '"x"'),
        ({"topic": " x "}, " x "),
        ({"firstMessage": "好" * 300}, "好" * 255),
        ({"topic": "🙂" * 255}, "🙂" * 255),
        ({"topic": "a\0b"}, "a\ufffdb"),
        ({"topic": 123}, "123"),
        ({"topic": True}, "true"),
        ({"topic": "007"}, "007"),
        ({"topic": "x", "id": 5, "unknown": []}, "x"),
    ],
)
@shows(requirements.topic_exactly, requirements.first_message_rule, requirements.scalars)
def test_x3_to_x6_the_topic_is_stored(caller: Caller, conversation: int, body: dict[str, Any], topic: str) -> None:
    dto = data(caller.update(conversation, body))
    assert (dto["id"], dto["topic"]) == (conversation, topic)


@shows(requirements.scalars)
def test_a_number_is_its_literal_text(caller: Caller, conversation: int) -> None:
    for literal in ("1.50", "1e2", "-0", "12345678901234567890123"):
        assert data(caller.update(conversation, f'{{"topic":{literal}}}'.encode()))["topic"] == literal


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "User first message is required"),
        ({"topic": " "}, "User first message is required"),
        ({"topic": "", "firstMessage": "\u3000\n"}, "User first message is required"),
        ({"icon": "i"}, "User first message is required"),
        ({"topic": "好" * 256}, "topic is too long"),
        ({"topic": "x", "icon": "i" * 501}, "icon is too long"),
    ],
)
@shows(requirements.topic_or_first_message, requirements.topic_exactly, requirements.icon_rule)
def test_x7_an_invalid_request_changes_nothing(
    caller: Caller, conversation: int, body: dict[str, Any], message: str
) -> None:
    before = caller.detail(conversation)
    refused(caller.update(conversation, body), "4000", message)
    assert caller.detail(conversation) == before


@shows(requirements.icon_rule)
def test_an_icon_is_stored_with_the_topic(caller: Caller, conversation: int) -> None:
    assert data(caller.update(conversation, {"topic": "x", "icon": "i" * 500}))["icon"] == "i" * 500
    assert data(caller.update(conversation, {"topic": "y"}))["icon"] == "i" * 500


@shows(requirements.ownership_first, requirements.conversation_owners, requirements.status_200)
def test_x8_ownership_is_checked_first(served: Served, caller: Caller, conversation: int) -> None:
    theirs = Caller(served, default_user="somebody else").add(served.agent("x"))
    for ref in (999_999_999, theirs, "x", "0", "9" * 19, "1" * 40, "%00", f"{conversation}x", "01-1"):
        for body in ({}, {"topic": "x"}, {"topic": "x" * 300}):
            refused(caller.update(ref, body), *NONE)
            refused(caller.update(ref, body, headers={"Accept-Language": "zh-CN"}), *NONE)


@shows(requirements.bearer_key, requirements.schemes)
def test_x10_a_bare_key_is_accepted(served: Served, conversation: int, caller: Caller) -> None:
    bare = Caller(served, caller.key)
    bare.auth = caller.key.secret
    assert data(bare.update(conversation, {"topic": "x"}))["topic"] == "x"


@shows(requirements.uid_in_paths)
def test_x11_paths_may_contain_the_uid(caller: Caller, conversation: int) -> None:
    uid = UUID(caller.detail(conversation)["uid"])
    for form in (uid.hex, str(uid), uid.hex.upper()):
        assert data(caller.update(form, {"topic": form}))["id"] == conversation


@shows(requirements.routing_errors, requirements.status_200)
def test_x12_unknown_paths_and_wrong_methods(caller: Caller, conversation: int) -> None:
    refused(caller.get(update_path(conversation)), "4050", "Request method 'GET' is not supported")
    refused(caller.get("/api/v1/none"), "4040", "No static resource api/v1/none.")
    refused(caller.post(LIST), "4050", "Request method 'POST' is not supported")


@shows(requirements.routing_order)
def test_callers_without_a_key_cannot_probe_paths(served: Served, caller: Caller, conversation: int) -> None:
    nobody = Caller(served, caller.key)
    nobody.auth = None
    refused(nobody.get(update_path(conversation)), "4030", "Missing API Key.")
    nobody.auth = "Bearer ak-' or 1=1 --"
    refused(nobody.get("/api/v1/none"), "4000", "Invalid API Key.")
    refused(nobody.post("/api/v1/none", b"x" * 1_048_577), "4000", "Request body too large")
    refused(caller.get("/api/v1/conversation/create"), "4030", "API not found or permission denied.")
    logo = "/api/logo/agent/x"
    refused(nobody.post(logo), "4050", "Request method 'POST' is not supported")


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"1", b'"x"', b'{"topic":{}}', b'{"firstMessage":["a"]}', b'\xef\xbb\xbf{"topic":"x"}', b"\xff"],
)
@shows(requirements.body_errors)
def test_x13_a_malformed_body_is_rejected(caller: Caller, conversation: int, body: bytes) -> None:
    answer = caller.update(conversation, body)
    envelope = answer.json()
    assert (answer.status, envelope["code"], envelope["data"]) == (200, "4000", None)
    assert envelope["message"].startswith("JSON parse error")
    assert caller.update(999_999, body).json()["code"] == "4000"


@shows(requirements.max_nodes)
def test_a_body_with_too_many_members_is_rejected(caller: Caller, conversation: int) -> None:
    few, many = (b'{"topic":"t","more":[' + b"[]," * times + b"0]}" for times in (19_996, 20_001))
    assert data(caller.update(conversation, few))["topic"] == "t"
    refused(caller.update(conversation, many), "4000", "JSON parse error")


@shows(requirements.body_errors)
def test_an_empty_body_is_rejected(caller: Caller, conversation: int) -> None:
    for path in (update_path(conversation), ADD, f"/api/v1/chat/{conversation}"):
        refused(caller.post(path, b" \n"), "4000", "Required request body is missing")


@shows(requirements.auto_title)
def test_if_the_model_fails_the_first_message_is_the_topic(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent({"fail": "connect"}, auto_title="model"))
    assert data(caller.update(conversation, {"firstMessage": " a  b "}))["topic"] == "a b"
    assert data(caller.update(conversation, {"firstMessage": "a", "topic": "given"}))["topic"] == "given"


# Creation -----------------------------------------------------------------------------------------------------------


@shows(requirements.add_rules, requirements.untitled, requirements.list_rules)
def test_x14_x15_a_new_conversation_is_listed_once_it_has_a_topic(served: Served, caller: Caller) -> None:
    agent = served.agent("x", name="天气 Agent of a long name")
    refused(caller.post(ADD, {}), "4000", "Agent id cannot be null")
    conversation = data(caller.post(ADD, {"agentId": agent.id, "devMode": True, "variables": {"a": 1}}))
    assert isinstance(conversation, int)
    dto = caller.detail(conversation)
    assert (dto["topicUpdated"], dto["taskStatus"], dto["type"]) == (0, "CREATE", "Chat")
    assert (dto["topic"], dto["variables"]) == (f"Start conversation with {agent.name}", {"a": 1})
    assert dto["agent"]["type"] == "ChatBot"
    assert dto["agent"]["icon"] == "http://test/api/logo/agent/%E5%A4%A9%E6%B0%94%20Agent%20of%20a%20lo"
    chinese = data(caller.get(f"/api/v1/chat/conversation/{conversation}", headers={"Cookie": "lang=zh-CN"}))
    assert chinese["topic"] == f"和{agent.name}开始会话"
    assert data(caller.get(LIST, f"agentId={agent.id}")) == []
    caller.update(conversation, {"topic": "t"})
    (listed,) = data(caller.get(LIST, f"agentId={agent.id}"))
    assert listed == {**caller.detail(conversation), "variables": None}


@shows(requirements.add_rules, requirements.topic_exactly, requirements.scalars)
def test_add_accepts_a_topic_and_digits(caller: Caller, agent: Agent) -> None:
    conversation = data(caller.post(ADD, {"agentId": str(agent.id), "topic": " t "}))
    assert (caller.detail(conversation)["topic"], caller.detail(conversation)["topicUpdated"]) == (" t ", 1)
    refused(caller.post(ADD, {"agentId": agent.id, "topic": "t" * 256}), "4000", "topic is too long")
    assert caller.detail(data(caller.post(ADD, {"agentId": agent.id, "topic": " "})))["topicUpdated"] == 0
    for wrong in ("x", True, [1], 1.5):
        assert caller.post(ADD, {"agentId": wrong}).json()["message"].startswith("JSON parse error")


@shows(requirements.agent_errors)
def test_add_rejects_unavailable_agents(served: Served, caller: Caller, agent: Agent) -> None:
    gone = ("4000", "Agent does not exist or has been taken offline.")
    off = served.agent("x", enabled=False)
    for number in (999_999_999, 0, -1, 10**30, off.id):
        refused(caller.post(ADD, {"agentId": number}), *gone)
    chinese = caller.post(ADD, {"agentId": off.id}, headers={"Accept-Language": "zh-CN"})
    refused(chinese, "4000", "智能体不存在或已下架")
    narrow = Caller(served, agents=[served.agent("y").name])
    refused(narrow.post(ADD, {"agentId": agent.id}), "0001", "Permission denied")
    refused(narrow.post(ADD, {"agentId": 999_999_999}), *gone)


@shows(requirements.idempotent_creation, requirements.idempotency_form)
def test_x24_add_twice_with_one_idempotency_key(caller: Caller, agent: Agent) -> None:
    key = {"Idempotency-Key": "once"}
    first, second = (caller.post(ADD, {"agentId": agent.id}, headers=key) for _ in range(2))
    assert first.body == second.body
    assert (first.header("Idempotency-Replayed"), second.header("Idempotency-Replayed")) == (None, "true")
    other = caller.post(ADD, {"agentId": agent.id, "topic": "x"}, headers=key)
    refused(other, "4220", "Idempotency-Key already used with a different request")
    for wrong in ("", "a b", "x" * 256):
        answer = caller.post(ADD, {}, headers={"Idempotency-Key": wrong})
        refused(answer, "4000", "Invalid Idempotency-Key")


# Details, lists, deletion -------------------------------------------------------------------------------------------


@shows(requirements.list_rules)
def test_x16_a_list_requires_an_agent(caller: Caller) -> None:
    missing = "Required request parameter 'agentId' for method parameter type Long is not present"
    for query in ("", "agentId=", "limit=3"):
        refused(caller.get(LIST, query), "4000", missing)
    refused(caller.get(LIST, "agentId=x"), "4000", "Invalid value of agentId")
    assert data(caller.get(LIST, "agentId=999999999")) == []


@shows(requirements.list_rules)
def test_lists_are_paginated(served: Served, caller: Caller) -> None:
    agent = served.agent("x")
    ids = [caller.add(agent, topic=f"Topic {number}") for number in range(5)]
    Caller(served, default_user="bob").add(agent, topic="Topic of bob")

    def listed(query: str = "") -> list[int]:
        return [one["id"] for one in data(caller.get(LIST, f"agentId={agent.id}{query}"))]

    newest = list(reversed(ids))
    assert listed() == newest
    assert listed("&limit=2") == newest[:2]
    assert listed(f"&limit=2&lastId={newest[1]}") == newest[2:4]
    assert listed("&limit=0") == newest[:1]
    assert listed("&limit=1000&lastId=-5") == newest
    assert listed("&topic=pic+3") == [ids[3]]
    assert listed("&topic=%25") == []
    done(caller.post(f"/api/v1/chat/conversation/{ids[2]}/delete"))
    assert listed(f"&lastId={ids[2]}") == [ids[1], ids[0]]
    assert listed(f"&lastId={'9' * 19}") == [one for one in newest if one != ids[2]]
    caller.update(ids[0], {"topic": "now first"})
    assert listed("&limit=1") == [ids[0]]


@shows(requirements.delete_rules, requirements.messages_of_success)
def test_x17_a_deleted_conversation_no_longer_exists(caller: Caller, conversation: int) -> None:
    path = f"/api/v1/chat/conversation/{conversation}"
    done(caller.post(f"{path}/delete"))
    refused(caller.get(path), *NONE)
    refused(caller.post(f"{path}/delete"), *NONE)
    for other in ("messages", "files"):
        refused(caller.get(f"/api/v1/chat/{conversation}/{other}"), *NONE)
    refused(caller.stop(conversation), *NONE)


@shows(requirements.disabled_agent)
def test_a_conversation_with_a_disabled_agent_is_not_found(served: Served, caller: Caller) -> None:
    agent = served.agent("x")
    conversation = caller.add(agent)
    served.agent("x", name=agent.name, enabled=False)
    refused(caller.get(f"/api/v1/chat/conversation/{conversation}"), *NONE)
    refused(caller.update(conversation, {"topic": "x"}), *NONE)
    run_events = events(caller.say(conversation))
    assert run_events[-1]["error"] == "Agent does not exist or has been taken offline."


@shows(requirements.task_status, requirements.updated_members)
def test_the_task_status_follows_the_turns(served: Served, caller: Caller) -> None:
    good, bad, long = served.agent("x"), served.agent({"fail": "connect"}), served.agent(HOLD)
    for agent, status in ((good, "COMPLETE"), (bad, "FAILED")):
        conversation = caller.add(agent)
        events(caller.say(conversation))
        assert caller.detail(conversation)["taskStatus"] == status
        assert data(caller.update(conversation, {"topic": "x"}))["taskStatus"] == status
    conversation = caller.add(long)
    exchange = caller.begin(conversation)
    exchange.head()
    assert caller.detail(conversation)["taskStatus"] == "EXECUTING"
    done(caller.stop(conversation))
    exchange.rest()
    assert caller.detail(conversation)["taskStatus"] == "COMPLETE"


@shows(requirements.conversation_owners)
def test_another_applications_conversation_is_not_found(served: Served, conversation: int) -> None:
    stranger = Caller(served, served.key("xspace", application="another", default_user=USER))
    absent = json.loads(stranger.get("/api/v1/chat/conversation/999999999").body)
    existing = json.loads(stranger.get(f"/api/v1/chat/conversation/{conversation}").body)
    assert {**absent, "tid": ""} == {**existing, "tid": ""}
