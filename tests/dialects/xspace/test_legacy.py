"""The legacy routes, for keys that are bound to an agent."""

from __future__ import annotations

import re
from typing import Any

import pytest
from dialects.xspace.client import Caller, data, done, events, frames, joined, refused
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.xspace import requirements

CREATE = "/api/v1/conversation/create"
NO_CONVERSATION = ("4000", "Conversation does not exist.")
QUESTIONS = ("One?", "Two?", "Three?", "Four?")


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent(
        "to ${content}", alias=("helper",), opening_message="Welcome!", description="d", suggested_questions=QUESTIONS
    )


@pytest.fixture(scope="module")
def bound(served: Served, agent: Agent) -> Caller:
    return Caller(served, kind="agent", agent="helper")


def create(caller: Caller, **body: Any) -> int:
    return data(caller.post(CREATE, body))


@shows(requirements.key_kinds)
def test_x23_personal_keys_may_not_use_the_legacy_routes(caller: Caller) -> None:
    paths = [
        ("GET", "/api/v1/agent"),
        ("POST", CREATE),
        ("GET", "/api/v1/conversation/1"),
        ("POST", "/api/v1/conversation/1/delete"),
        ("GET", "/api/v1/conversations"),
        ("POST", "/api/v1/chat"),
        ("POST", "/api/v1/chat/stop/1"),
        ("GET", "/api/v1/chat/suggest/1"),
    ]
    for method, path in paths:
        answer = caller.served.ask(caller.request(method, path))
        refused(answer, "4030", "API not found or permission denied.")
    refused(caller.get("/api/v1/agent", headers={"Cookie": "lang=zh-CN"}), "4030", "API 不存在或无权限")


@shows(requirements.legacy_agent, requirements.agent_member)
def test_the_bound_agent_has_all_members(bound: Caller, agent: Agent) -> None:
    detail = data(bound.get("/api/v1/agent"))
    assert len(detail) == 44
    assert list(detail)[:6] == ["spaceId", "creatorId", "agentId", "uid", "type", "subType"]
    assert list(detail)[-4:] == ["calledTrialCount", "subscribed", "overCallLimit", "showPublishBtn"]
    assert (detail["agentId"], detail["uid"], detail["type"]) == (agent.id, agent.uid.hex, "ChatBot")
    assert (detail["openingChatMsg"], detail["openingGuidQuestions"]) == ("Welcome!", list(QUESTIONS))
    assert (detail["openSuggest"], detail["openScheduledTask"], detail["hasPermission"]) == ("Open", "Close", True)
    assert (detail["variables"], detail["spaceId"], detail["subscribed"]) == ([], None, False)


@pytest.mark.parametrize("named", ["helper", "id", "uid", "name"])
@shows(requirements.legacy_agent, requirements.legacy_create)
def test_a_key_may_name_its_agent_by_any_identifier(served: Served, agent: Agent, named: str) -> None:
    ref = {"helper": "helper", "id": str(agent.id), "uid": agent.uid.hex, "name": agent.name}[named]
    caller = Caller(served, kind="agent", agent=ref)
    conversation = create(caller)
    assert data(caller.get(f"/api/v1/conversation/{conversation}"))["agentId"] == agent.id


@shows(requirements.legacy_create, requirements.idempotent_creation, requirements.agent_errors)
def test_create_accepts_variables_and_is_idempotent(served: Served, bound: Caller) -> None:
    conversation = create(bound, variables={"a": "b"}, devMode=True)
    assert data(bound.get(f"/api/v1/conversation/{conversation}"))["variables"] == {"a": "b"}
    assert isinstance(data(bound.post(CREATE)), int)
    key = {"Idempotency-Key": "k"}
    assert bound.post(CREATE, {}, headers=key).body == bound.post(CREATE, {}, headers=key).body
    settings: list[dict[str, Any]] = [{"agent": served.agent("x", enabled=False).name}, {"agent": "nobody"}, {}]
    for one in settings:
        lost = Caller(served, served.key("xspace", kind="agent", **one))
        gone = ("4000", "Agent does not exist or has been taken offline.")
        refused(lost.post(CREATE, {}), *gone)
        refused(lost.get("/api/v1/agent"), *gone)


@shows(requirements.legacy_detail, requirements.legacy_chat)
def test_detail_contains_the_opening_and_the_newest_messages(bound: Caller, agent: Agent) -> None:
    conversation = create(bound)
    (opening,) = data(bound.get(f"/api/v1/conversation/{conversation}"))["messageList"]
    assert (opening["index"], opening["id"], opening["text"]) == (None, None, "Welcome!")
    assert (opening["type"], opening["role"]) == ("CHAT", "ASSISTANT")
    for number in range(11):
        run_events = events(bound.post("/api/v1/chat", {"conversationId": str(conversation), "message": f"m{number}"}))
        assert joined(run_events) == f"to m{number}"
    opening, *rest = data(bound.get(f"/api/v1/conversation/{conversation}"))["messageList"]
    assert list(opening) == list(rest[0])
    assert [one["text"] for one in rest] == [f"{how}m{number}" for number in range(1, 11) for how in ("", "to ")]
    assert opening["time"] == rest[0]["time"]
    assert data(bound.get(f"/api/v1/chat/conversation/{conversation}"))["messageList"] is None


@shows(requirements.legacy_list, requirements.key_kinds)
def test_conversations_lists_those_with_a_topic(bound: Caller, served: Served) -> None:
    conversation = create(bound)
    before = [one["id"] for one in data(bound.get("/api/v1/conversations"))]
    assert conversation not in before
    data(bound.update(conversation, {"topic": "t"}))
    other = bound.add(served.agent("x"), topic="another agent's")
    listed = data(bound.get("/api/v1/conversations"))
    assert listed[0]["id"] == conversation
    assert listed[0]["messageList"] is None
    assert other not in [one["id"] for one in listed]


@shows(requirements.legacy_errors, requirements.legacy_chat, requirements.chat_body)
def test_an_unavailable_conversation_is_reported_in_an_envelope(served: Served, bound: Caller, agent: Agent) -> None:
    elsewhere = bound.add(served.agent("x"))
    fading = served.agent("x")
    faded = bound.add(fading)
    served.agent("x", name=fading.name, enabled=False)
    theirs = Caller(served, default_user="bob").add(agent)
    rows = [
        (999_999_999, "Conversation does not exist.", "会话不存在"),
        (theirs, "Conversation does not exist.", "会话不存在"),
        (elsewhere, "Invalid conversationId.", "错误的conversationId"),
        (faded, "Related agent does not exist or is offline.", "相关智能体不存在或已下架"),
    ]
    for ref, english, chinese in rows:
        for method, path in (
            ("GET", f"/api/v1/conversation/{ref}"),
            ("POST", f"/api/v1/conversation/{ref}/delete"),
            ("POST", f"/api/v1/chat/stop/{ref}"),
            ("GET", f"/api/v1/chat/suggest/{ref}"),
        ):
            refused(served.ask(bound.request(method, path)), "4000", english)
            zh = bound.request(method, path, headers={"Accept-Language": "zh-CN"})
            refused(served.ask(zh), "4000", chinese)
        for message in ("x", ""):
            refused(bound.post("/api/v1/chat", {"conversationId": ref, "message": message}), "4000", english)
    refused(bound.post("/api/v1/chat", {}), "4000", "message is required")
    refused(bound.post("/api/v1/chat", {"message": "x"}), "4000", "conversationId is required")
    refused(bound.get("/api/v1/conversation/x"), *NO_CONVERSATION)
    wrong = bound.post("/api/v1/chat", {"message": "x", "conversationId": "x"})
    assert wrong.json()["message"].startswith("JSON parse error")


@shows(requirements.legacy_stop, requirements.stopped_run)
def test_stop_and_delete(served: Served) -> None:
    agent = served.agent("so", HOLD)
    bound = Caller(served, kind="agent", agent=agent.name)
    conversation = create(bound)
    exchange = served.exchange(bound.request("POST", "/api/v1/chat", {"conversationId": conversation, "message": "x"}))
    exchange.head()
    done(bound.post(f"/api/v1/chat/stop/{conversation}"))
    last = frames(exchange.rest()[-1])[0]
    assert (last["eventType"], last["error"]) == ("FINAL_RESULT", None)
    done(bound.post(f"/api/v1/chat/stop/{conversation}"))
    done(bound.post(f"/api/v1/conversation/{conversation}/delete"))
    refused(bound.get(f"/api/v1/conversation/{conversation}"), *NO_CONVERSATION)


@shows(requirements.legacy_suggest)
def test_suggestions_are_up_to_three_or_none(served: Served) -> None:
    rows: list[tuple[dict[str, Any], list[str]]] = [({}, list(QUESTIONS[:3])), ({"openSuggest": "Close"}, [])]
    for extra, expected in rows:
        agent = served.agent(model="extract", instructions="x", suggested_questions=QUESTIONS, extra={"xspace": extra})
        bound = Caller(served, kind="agent", agent=agent.name)
        conversation = create(bound)
        assert data(bound.get(f"/api/v1/chat/suggest/{conversation}")) == expected
        assert data(bound.get("/api/v1/agent"))["openSuggest"] == ("Close" if extra else "Open")
    failing = served.agent({"fail": "connect"})
    bound = Caller(served, kind="agent", agent=failing.name)
    assert data(bound.get(f"/api/v1/chat/suggest/{create(bound)}")) == []
    assert re.fullmatch(r"\d+", str(create(bound)))
