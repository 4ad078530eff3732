"""Surface B: conversations, made, listed, read and removed."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import pytest
from dialects.snail import client
from dialects.snail.client_b import CONVERSATIONS, MESSAGES, B, Caller, good, page_of, refused_on_b, spoken
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.snail import requirements_b

SETTINGS = {"timezone": "Asia/Shanghai"}


@pytest.fixture(scope="module")
def program(served: Served) -> Caller:
    return Caller(served)


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"think": "look it up"}, "You said: ${content}")


@pytest.fixture
def ann(served: Served, program: Caller) -> str:
    """A user whom no other test knows."""
    return program.register(served.new_name("ann"))


def listed(program: Caller, agent: Agent, user: str, **fields: object) -> list[str]:
    return [one["conversationId"] for one in good(program.get(CONVERSATIONS, agentId=agent.id, openId=user, **fields))]


def texts(program: Caller, agent: Agent, user: str, conversation: str) -> list[str]:
    fields = {"agentId": agent.id, "openId": user, "conversationId": conversation}
    return [one["content"] for one in good(program.get(MESSAGES, **fields))]


# Making and listing -------------------------------------------------------------------------------------------------


@shows(requirements_b.b_create, requirements_b.b_conversation_members)
def test_a_conversation_is_made_with_its_title(served: Served, program: Caller, agent: Agent, ann: str) -> None:
    made = good(program.post(CONVERSATIONS, agentId=agent.id, openId=ann, title="  年度🙂 "))
    assert list(made) == ["conversationId", "agentId", "title", "createDt", "updateDt"]
    assert str(UUID(made["conversationId"])) == made["conversationId"]
    assert (made["agentId"], made["title"]) == (agent.id, "  年度🙂 ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", made["createDt"])
    served.sql(
        "UPDATE conversation SET created = '2026-01-31T16:00:00.9Z', modified = '2026-06-01T00:00:01Z' WHERE uid = $1",
        UUID(made["conversationId"]),
    )
    (shown,) = good(program.get(CONVERSATIONS, agentId=agent.id, openId=ann))
    assert shown == {**made, "createDt": "2026-02-01T00:00:00", "updateDt": "2026-06-01T08:00:01"}


@shows(requirements_b.b_n16, requirements_b.b_field_rules, requirements_b.b_unknown_agent_has_none)
def test_n16_what_a_new_conversation_needs(served: Served, program: Caller, agent: Agent, ann: str) -> None:
    for title in ({}, {"title": None}, {"title": " "}):
        refused_on_b(program.post(CONVERSATIONS, agentId=agent.id, openId=ann, **title), "title title is required")
    refused_on_b(program.post(CONVERSATIONS), "agentId agentId is required")
    refused_on_b(program.post(CONVERSATIONS, agentId=agent.id, title="x"), "openId openId is required")
    off = served.agent("x", enabled=False)
    for number in (off.id, 999_999, 10**30):
        fields = {"agentId": number, "openId": ann, "title": "x"}
        refused_on_b(program.post(CONVERSATIONS, **fields), "智能体不存在或已被禁用")


@shows(requirements_b.b_title)
def test_until_a_title_is_set_the_first_messages_beginning_is_it(program: Caller, agent: Agent, ann: str) -> None:
    program.say(agent, ann, "一二三四五六七八九十一二三四五🙂七八", conversationId="long")
    program.say(agent, ann, "second", conversationId="long")
    (shown,) = good(program.get(CONVERSATIONS, agentId=agent.id, openId=ann))
    assert shown["title"] == "一二三四五六七八九十一二三四五🙂"


@shows(requirements_b.b_list, requirements_b.b_pages, requirements_b.b_page_rules)
def test_conversations_are_listed_changed_last_first(served: Served, program: Caller, agent: Agent, ann: str) -> None:
    for name in ("one", "two", "three", "one"):
        program.say(agent, ann, conversationId=name)
    other = served.agent("x")
    program.say(other, ann, conversationId="elsewhere")
    assert listed(program, agent, ann) == ["one", "three", "two"]
    assert listed(program, agent, ann, page=2, size=2) == ["two"]
    fields = {"agentId": agent.id, "openId": ann}
    assert page_of(program.get(CONVERSATIONS, **fields)) == (1, 20, 3)
    assert page_of(program.get(CONVERSATIONS, **fields, page=2, size=2)) == (2, 2, 3)
    assert page_of(program.get(CONVERSATIONS, **fields, page=10**30, size=10**30)) == (10**30, 200, 3)
    assert listed(program, agent, ann, page=10**30) == []
    refused_on_b(program.get(CONVERSATIONS, **fields, page=0), "page page must be greater than 0")
    refused_on_b(program.get(CONVERSATIONS, **fields, size=0), "size size must be greater than 0")
    refused_on_b(program.get(CONVERSATIONS), "agentId agentId is required")
    refused_on_b(program.get(CONVERSATIONS, agentId=agent.id, size=0), "openId openId is required")


# Reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "thinking", "content"),
    [
        ([{"fail": "refused"}], None, "系统异常: refused"),
        ([{"think": "hm"}, {"fail": "cut"}], "hm", "系统异常: cut"),
        ([" \n", {"fail": "cut"}], None, "系统异常: cut"),
        (["so far", {"fail": "cut"}], None, "so far"),
    ],
)
@shows(requirements_b.b_failed_message)
def test_a_failed_turn_reads_back_as_one(
    served: Served, program: Caller, ann: str, script: list[Any], thinking: str | None, content: str
) -> None:
    broken = served.agent(*script)
    program.say(broken, ann, conversationId="broken")
    where = {"agentId": broken.id, "openId": ann, "conversationId": "broken"}
    question, answer = good(program.get(MESSAGES, **where))
    assert (question["content"], question["status"]) == ("hi", 1)
    assert (answer["content"], answer["thinking"], answer["status"]) == (content, thinking, 0)


@shows(requirements_b.b_failed_message)
def test_a_turn_that_the_servers_death_ended_is_a_failed_one(
    served: Served, program: Caller, agent: Agent, ann: str
) -> None:
    program.say(agent, ann, conversationId=f"died-{ann}")
    served.sql(
        "UPDATE message m SET status = 'interrupted', parts = '[]' FROM conversation c"
        " WHERE c.app = m.app AND c.id = m.conversation AND c.alias = $1 AND m.role = 'assistant'",
        f"died-{ann}",
    )
    where = {"agentId": agent.id, "openId": ann, "conversationId": f"died-{ann}"}
    answer = good(program.get(MESSAGES, **where))[-1]
    assert answer["status"] == 0
    assert answer["content"].startswith("系统异常")


@shows(requirements_b.b_messages, requirements_b.b_message_members)
def test_messages_come_oldest_first_and_all_of_them(program: Caller, agent: Agent, ann: str) -> None:
    texts = [f"message {number}" for number in range(12)]
    for content in texts:
        program.say(agent, ann, content, conversationId="talk")
    messages = good(program.get(MESSAGES, agentId=agent.id, conversationId="talk", openId=ann))
    assert [message["content"] for message in messages[::2]] == texts
    assert [message["content"] for message in messages[1::2]] == [f"You said: {content}" for content in texts]
    question, answer = messages[:2]
    assert list(question) == list(answer) == ["role", "content", "thinking", "status", "createDt"]
    assert (question["role"], question["thinking"], question["status"]) == ("user", None, 1)
    assert (answer["role"], answer["thinking"], answer["status"]) == ("assistant", "look it up", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", answer["createDt"])


@shows(requirements_b.b_messages, requirements_b.b_messages_of_other_agent, requirements_b.b_conversation_id_form)
def test_what_is_not_there_has_no_messages(served: Served, program: Caller, agent: Agent, ann: str) -> None:
    program.say(agent, ann, conversationId="mine")
    other = served.agent("x")
    assert texts(program, agent, ann, "nothing") == texts(program, other, ann, "mine") == []
    assert good(program.get(MESSAGES, agentId=10**30, openId=ann, conversationId="mine")) == []
    long = program.get(MESSAGES, agentId=agent.id, openId=ann, conversationId="x" * 129)
    refused_on_b(long, "参数格式错误: conversationId")
    refused_on_b(program.get(MESSAGES, agentId=agent.id, openId=ann), "conversationId conversationId is required")
    refused_on_b(program.get(MESSAGES, conversationId="x", openId=ann), "agentId agentId is required")
    refused_on_b(program.get(MESSAGES, agentId=agent.id, conversationId="x"), "openId openId is required")
    unknown = program.get(MESSAGES, agentId=agent.id, conversationId="x", openId="nobody")
    refused_on_b(unknown, "OpenId 无效: nobody", status=5001)


@shows(requirements_b.b_being_written)
def test_an_answer_is_in_the_history_from_its_end_on(served: Served, program: Caller, ann: str) -> None:
    slow = served.agent("so far", HOLD)
    fields = {"agentId": slow.id, "openId": ann, "content": "go", "conversationId": "slow"}
    exchange = served.exchange(program.request("POST", f"{B}/agent/chat", fields))
    assert exchange.head().status == 200
    while b"so far" not in (exchange.write() or b"so far"):
        pass
    assert texts(program, slow, ann, "slow") == ["go"]
    user = good(program.get(f"{B}/user", openId=ann))["externalId"]
    assert served.stop_conversation(program.key, user, "slow") == 1
    exchange.rest()
    assert texts(program, slow, ann, "slow") == ["go", "so far"]


# Removing -----------------------------------------------------------------------------------------------------------


@shows(requirements_b.b_delete, requirements_b.b_blank_is_not_all, requirements_b.b_unknown_agent_has_none)
def test_one_conversation_is_deleted_and_a_blank_name_is_not_all(
    served: Served, program: Caller, agent: Agent, ann: str
) -> None:
    other = served.agent("x")
    for name in ("one", "two"):
        program.say(agent, ann, conversationId=name)
    fields = {"agentId": agent.id, "openId": ann}
    for blank in ("", " "):
        answer = program.delete(CONVERSATIONS, **fields, conversationId=blank)
        refused_on_b(answer, "conversationId conversationId is required")
    assert good(program.delete(CONVERSATIONS, agentId=other.id, openId=ann, conversationId="one")) is None
    assert good(program.delete(CONVERSATIONS, agentId=999_999, openId=ann, conversationId="one")) is None
    assert good(program.delete(CONVERSATIONS, agentId=999_999, openId=ann)) is None
    assert good(program.delete(CONVERSATIONS, **fields, conversationId="nothing")) is None
    assert listed(program, agent, ann) == ["two", "one"]
    for _ in range(2):
        assert good(program.delete(CONVERSATIONS, **fields, conversationId="one")) is None
    assert listed(program, agent, ann) == ["two"]
    assert texts(program, agent, ann, "one") == []


@shows(requirements_b.b_n17, requirements_b.b_clear)
def test_n17_clear_then_list(served: Served, program: Caller, agent: Agent, ann: str) -> None:
    other = served.agent("x")
    for name in ("one", "two"):
        program.say(agent, ann, conversationId=name)
    program.say(other, ann, conversationId="kept")
    assert good(program.delete(CONVERSATIONS, agentId=agent.id, openId=ann)) is None
    answer = program.get(CONVERSATIONS, agentId=agent.id, openId=ann)
    assert (good(answer), page_of(answer)) == ([], (1, 20, 0))
    assert listed(program, other, ann) == ["kept"]


# Whose they are -----------------------------------------------------------------------------------------------------


@shows(requirements_b.b_isolation)
def test_somebody_elses_conversation_is_one_that_is_not_there(
    served: Served, program: Caller, agent: Agent, ann: str
) -> None:
    made = good(program.post(CONVERSATIONS, agentId=agent.id, openId=ann, title="secret"))["conversationId"]
    bob = program.register(served.new_name("bob"))
    assert texts(program, agent, bob, made) == texts(program, agent, bob, str(UUID(int=0))) == []
    assert good(program.delete(CONVERSATIONS, agentId=agent.id, openId=bob, conversationId=made)) is None
    assert good(program.delete(CONVERSATIONS, agentId=agent.id, openId=bob)) is None
    assert listed(program, agent, ann) == [made]
    assert listed(program, agent, bob) == []


@shows(requirements_b.b_shared, requirements_b.b_external_ids)
def test_a_conversation_goes_on_from_surface_to_surface(served: Served, program: Caller, agent: Agent) -> None:
    on_a = client.Caller(served, program.key)
    done_event = client.done(on_a.say(agent, "on A", user="walker", conversationId="walk"))
    assert done_event["conversationId"] == "walk"
    name, data = spoken(program.say(agent, "walker", "on B", conversationId="walk"))[-1]
    assert (name, data["conversationId"]) == ("done", "walk")
    assert texts(program, agent, "walker", "walk")[::2] == ["on A", "on B"]
    good(program.delete(CONVERSATIONS, agentId=agent.id, openId="walker", conversationId="walk"))
    client.done(on_a.say(agent, "anew", user="walker", conversationId="walk"))
    assert texts(program, agent, "walker", "walk") == ["anew", "You said: anew"]


@shows(requirements_b.b_n12)
def test_n12_who_leaves_a_after_one_line_finds_the_whole_answer_here(served: Served, program: Caller) -> None:
    agent = served.agent({"think": "hm"}, {"pieces": {"of": "the whole answer", "size": 4}})
    on_a = client.Caller(served, program.key)
    exchange = on_a.begin(agent, user="leaver", conversationId="left")
    assert exchange.head().status == 200
    assert exchange.write()
    exchange.hang_up()
    # A second message waits for the first one's end.
    client.done(on_a.say(agent, "still there?", user="leaver", conversationId="left"))
    assert texts(program, agent, "leaver", "left")[:2] == ["hi", "the whole answer"]
