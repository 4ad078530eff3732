"""Surface B: agents and subscriptions."""

from __future__ import annotations

import pytest
from dialects.snail.client_b import B, Caller, good, page_of, refused_on_b
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.snail import requirements_b

SETTINGS = {"timezone": "Asia/Shanghai"}
AGENT, AGENTS, MINE, ONE = f"{B}/agent", f"{B}/agents", f"{B}/user/agents", f"{B}/user/agent"


@pytest.fixture(scope="module")
def program(served: Served) -> Caller:
    return Caller(served)


def names(program: Caller, **fields: object) -> list[str]:
    return [agent["name"] for agent in good(program.get(AGENTS, **fields))]


@shows(requirements_b.b_agent_members, requirements_b.b_no_servers_no_skills, requirements_b.b_agent_dates)
@shows(requirements_b.b_no_features_yet, requirements_b.b_agent)
def test_an_agent_has_its_members_in_wire_order(served: Served, program: Caller) -> None:
    agent = served.agent(
        "yes",
        description="Answers.",
        opening_message="你好",
        icon="https://example.com/a.png",
        suggested_questions=tuple(f"q{number}" for number in range(10)),
    )
    served.sql(
        "UPDATE agent SET created = '2026-01-31T23:30:00Z', modified = '2026-02-01T16:00:59.9Z' WHERE id = $1", agent.id
    )
    served.agent("other")  # PostgreSQL tells of it, and the changed row is read again
    details = good(program.get(AGENT, agentId=agent.id))
    expected = {
        "id": agent.id,
        "name": agent.name,
        "description": "Answers.",
        "avatar": "https://example.com/a.png",
        "greeting": "你好",
        "presetQuestions": [f"q{number}" for number in range(8)],
        "mcpEnabled": False,
        "mcpServers": [],
        "skillEnabled": False,
        "skills": [],
        "webSearchEnabled": False,
        "viewCount": 0,
        "isFeatured": False,
        "status": 1,
        "createDt": "2026-02-01 07:30:00",
        "updateDt": "2026-02-02 00:00:59",
        "subscribed": None,
    }
    assert details == expected
    assert list(details) == list(expected)


@shows(requirements_b.b_agents, requirements_b.b_pages)
def test_agents_are_listed_newest_first_without_those_that_are_disabled(served: Served) -> None:
    program = Caller(served, application="listing")
    first, second, third = (served.agent("x", application="listing") for _ in range(3))
    served.agent("x", application="listing", enabled=False)
    served.agent("x")
    served.agent("y", application="listing", name=first.name)
    assert names(program) == [first.name, third.name, second.name]
    assert page_of(program.get(AGENTS)) == (1, 50, 3)
    assert names(program, page=2, size=2) == [second.name]
    assert page_of(program.get(AGENTS, page=2, size=2)) == (2, 2, 3)
    assert names(program, page=10**30) == []
    few = Caller(served, served.key("snail", application="listing", agents=[second.name]))
    assert names(few) == [second.name]
    refused_on_b(few.get(AGENT, agentId=first.id), f"Agent 不存在: {first.id}")


@shows(
    requirements_b.b_page_rules,
    requirements_b.b_field_rules,
    requirements_b.b_wrong_type,
    requirements_b.b_blank_is_absent,
)
def test_pages_have_rules(program: Caller) -> None:
    refused_on_b(program.get(AGENTS, page=0), "page page must be greater than 0")
    refused_on_b(program.get(AGENTS, page=-1, size=0), "page page must be greater than 0")
    refused_on_b(program.get(AGENTS, size=0), "size size must be greater than 0")
    refused_on_b(program.get(AGENTS, size="many"), "参数格式错误: size")
    refused_on_b(program.get(AGENTS, page="1.5"), "参数格式错误: page")
    assert page_of(program.get(AGENTS, size=201))[:2] == (1, 200)
    assert page_of(program.get(AGENTS, page="", size=" "))[:2] == (1, 50)


@shows(requirements_b.b_agent, requirements_b.b_query_rules, requirements_b.b_wrong_type)
def test_an_agent_is_shown_whatever_its_status(served: Served, program: Caller) -> None:
    off = served.agent("x", enabled=False)
    foreign = served.agent("x", application="somebody-else")
    assert good(program.get(AGENT, agentId=off.id))["status"] == 4
    for number in (foreign.id, 0, -1, 2**63, 10**30):
        refused_on_b(program.get(AGENT, agentId=number), f"Agent 不存在: {number}")
    refused_on_b(program.get(AGENT), "agentId agentId is required")
    refused_on_b(program.get(AGENT, agentId=" "), "agentId agentId is required")
    refused_on_b(program.get(AGENT, agentId="x"), "参数格式错误: agentId")
    ask = program.request("GET", AGENT)
    query = f"agentId=x&agentId=+{off.id}&x=%ff%00"
    assert good(served.ask(type(ask)(method="GET", path=AGENT, query=query, headers=ask.headers)))["id"] == off.id


@shows(requirements_b.b_user_agents, requirements_b.b_subscribe, requirements_b.b_unsubscribe)
def test_a_user_subscribes_agents_and_lets_them_go(served: Served, program: Caller) -> None:
    one, two = served.agent("x"), served.agent("x")
    ann, bob = program.register("sub-ann"), program.register("sub-bob")
    assert good(program.get(MINE, openId=ann)) == []
    for agent in (one, two, one):
        assert good(program.post(ONE, openId=ann, agentId=agent.id)) is None
    mine = good(program.get(MINE, openId=ann))
    assert [(agent["id"], agent["subscribed"]) for agent in mine] == [(two.id, True), (one.id, True)]
    assert good(program.get(MINE, openId=bob)) == []
    served.agent("x", name=two.name, enabled=False)
    assert [agent["id"] for agent in good(program.get(MINE, openId=ann))] == [one.id]
    for number in (one.id, one.id, two.id, 10**30):
        assert good(program.delete(ONE, openId=ann, agentId=number)) is None
    assert good(program.get(MINE, openId=ann)) == []


@shows(requirements_b.b_subscribe, requirements_b.b_unknown_user, requirements_b.b_user_before_agent)
def test_what_cannot_be_subscribed(served: Served, program: Caller) -> None:
    agent, off = served.agent("x"), served.agent("x", enabled=False)
    ann = program.register("refused-ann")
    for number in (off.id, 999_999, 10**30):
        refused_on_b(program.post(ONE, openId=ann, agentId=number), f"Agent 不存在或不可用: {number}")
    refused_on_b(program.post(ONE, openId="nobody", agentId=off.id), "用户不存在: nobody")
    refused_on_b(program.delete(ONE, openId="nobody", agentId=agent.id), "用户不存在: nobody")
    refused_on_b(program.get(MINE, openId="nobody"), "用户不存在: nobody")
    refused_on_b(program.post(ONE, agentId=None), "openId openId is required")
    refused_on_b(program.post(ONE, openId=ann), "agentId agentId is required")
    refused_on_b(program.get(MINE), "openId openId is required")
    refused_on_b(program.delete(ONE, openId=" "), "openId openId is required")
    refused_on_b(program.post(ONE, openId=7, agentId=agent.id), "参数格式错误: openId")
    assert good(program.post(ONE, openId=ann, agentId=str(agent.id))) is None
