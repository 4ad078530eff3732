"""Agents, conversations and what was said in them."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from dialects.native.client import ROOT, Caller, Document, good, problem
from support.http_clients import Answer
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent, Principal, Variable
from palaver.dialects.native import requirements

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("turn ${turn}: ${content}", alias=("desk",), description="The desk")


def made(caller: Caller, agent: Agent, **members: object) -> Document:
    return good(caller.ask("POST", "conversations", {"agent": agent.uid.hex, **members}), 201)


def titles(answer: Answer) -> list[str | None]:
    return [one["title"] for one in good(answer)["conversations"]]


@shows(requirements.agents, requirements.documents)
def test_agents_are_listed_by_name(served: Served) -> None:
    caller = Caller(served, served.key("native", application="zoo"))
    variable = Variable(name="guest", required=True, description="who asks")
    for name, enabled in (("owl", True), ("bear", True), ("cat", False)):
        served.agent("x", name=name, application="zoo", enabled=enabled, variables=(variable,), alias=(f"{name}-1",))
    bear, owl = good(caller.get("agents"))["agents"]
    assert (bear["name"], owl["name"]) == ("bear", "owl")
    assert all(TIME.fullmatch(bear.pop(name)) for name in ("created", "modified"))
    assert isinstance(bear.pop("id"), int)
    assert re.fullmatch(r"[0-9a-f]{32}", bear.pop("uid"))
    assert bear == {
        "name": "bear",
        "aliases": ["bear-1"],
        "description": "",
        "icon": None,
        "opening_message": "",
        "suggested_questions": [],
        "variables": [{"name": "guest", "required": True, "description": "who asks"}],
    }
    assert good(caller.get(f"agents/{owl['uid']}")) == owl
    problem(caller.get("agents/cat-1"), 404, "not_found", noun="agent")


@shows(requirements.references)
def test_agents_and_conversations_go_by_id_uid_and_alias(served: Served, caller: Caller, agent: Agent) -> None:
    for ref in (agent.id, agent.uid.hex, str(agent.uid), "desk"):
        assert good(caller.get(f"agents/{ref}"))["id"] == agent.id
        assert good(caller.ask("POST", "conversations", {"agent": ref}), 201)["agent"]["id"] == agent.id
    store, who = served.core.store, Principal(key=caller.key, user=caller.user)
    user = served.do(store.users.get_or_create(who.app, "ann"))
    there = served.do(store.conversations.create(who, user, agent, alias="my chat/1"))
    for ref in (there.id, there.uid.hex, str(there.uid), "my%20chat%2F1"):
        assert good(caller.get(f"conversations/{ref}"))["alias"] == "my chat/1"
    for ref in ("0", "9" * 16, "9" * 40, "nobody", "%00", str(UUID(int=7))):
        problem(caller.get(f"conversations/{ref}"), 404, "not_found", noun="conversation")
        problem(caller.get(f"agents/{ref}"), 404, "not_found", noun="agent")
    problem(caller.ask("POST", "conversations", {"agent": -1}), 404, "not_found", noun="agent")
    problem(caller.ask("POST", "conversations", {"agent": 2**70}), 404, "not_found", noun="agent")


@shows(requirements.create, requirements.documents)
def test_a_conversation_is_made_with_a_title_and_variables(served: Served, caller: Caller, agent: Agent) -> None:
    body = {"agent": agent.id, "title": "Sundays 🌞", "variables": {"guest": "Bo"}}
    answer = caller.ask("POST", "conversations", body)
    new = good(answer, 201)
    assert answer.header("Location") == f"{ROOT}/conversations/{new['uid']}"
    assert good(caller.get(str(answer.header("Location")))) == new
    assert all(TIME.fullmatch(new.pop(name)) for name in ("created", "modified"))
    assert isinstance(new.pop("id"), int)
    assert re.fullmatch(r"[0-9a-f]{32}", new.pop("uid"))
    assert new == {
        "alias": None,
        "agent": {"id": agent.id, "uid": agent.uid.hex, "name": agent.name},
        "title": "Sundays 🌞",
        "opening": "",
        "variables": {"guest": "Bo"},
        "working": False,
    }
    assert made(caller, agent, title="  ")["title"] is None
    problem(caller.ask("POST", "conversations", {}), 400, "invalid", field="agent", rule="required")
    long = {"agent": agent.id, "title": "x" * 256}
    problem(caller.ask("POST", "conversations", long), 400, "invalid", field="title", rule="length")
    off = served.agent("x", enabled=False)
    problem(caller.ask("POST", "conversations", {"agent": off.id}), 404, "not_found", noun="agent")


@shows(requirements.listing)
def test_pages_join_to_the_whole_list(served: Served, agent: Agent) -> None:
    caller = Caller(served, user="reader")
    names = [made(caller, agent, title=f"t{number}")["title"] for number in range(7)]
    seen: list[str | None] = []
    query = "limit=3"
    while True:
        page = good(caller.get("conversations", query))
        seen += [one["title"] for one in page["conversations"]]
        if page["next"] is None:
            break
        assert len(page["conversations"]) == 3
        query = f"limit=3&after={page['next']}"
    assert seen == names[::-1]
    first = good(caller.get("conversations", "limit=7"))
    assert first["next"] is None
    caller.say(first["conversations"][-1]["uid"])
    assert titles(caller.get("conversations"))[0] == "t0"
    for query, field in (("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("after=x", "after")):
        problem(caller.get("conversations", query), 400, "invalid", field=field, rule="range")


@shows(requirements.listing, requirements.agents_of_a_credential)
def test_a_page_without_a_conversation_of_ones_own_is_still_followed_by_the_next(served: Served, agent: Agent) -> None:
    other, wide = served.agent("x"), Caller(served, user="mixed")
    for one in (agent, other, other):
        made(wide, one, title=one.name)
    narrow = Caller(served, user="mixed", agents=["desk"])
    page = good(narrow.get("conversations", "limit=2"))
    assert page["conversations"] == []
    assert titles(narrow.get("conversations", f"limit=2&after={page['next']}")) == [agent.name]


@shows(requirements.filters)
def test_conversations_are_found_by_agent_and_title(served: Served, agent: Agent) -> None:
    caller, other = Caller(served, user="seeker"), served.agent("x", name="other-desk")
    made(caller, agent, title="Opening HOURS")
    made(caller, agent, title="prices")
    made(caller, other, title="hours of the other")
    assert titles(caller.get("conversations", "q=hours")) == ["hours of the other", "Opening HOURS"]
    assert titles(caller.get("conversations", "q=hours&agent=desk")) == ["Opening HOURS"]
    assert titles(caller.get("conversations", "q=&agent=")) == ["hours of the other", "prices", "Opening HOURS"]
    served.agent("x", name="other-desk", enabled=False)
    assert titles(caller.get("conversations", f"agent={other.id}")) == ["hours of the other"]
    problem(caller.get("conversations", "agent=nobody"), 404, "not_found", noun="agent")


@shows(requirements.title)
def test_a_title_is_set(caller: Caller, agent: Agent) -> None:
    new = made(caller, agent)
    place = f"conversations/{new['id']}/title"
    named = good(caller.ask("PUT", place, {"title": "午餐"}))
    assert {**named, "modified": ""} == {**new, "title": "午餐", "modified": ""}
    assert good(caller.get(f"conversations/{new['id']}"))["title"] == "午餐"
    for body, rule in (({}, "required"), ({"title": " "}, "required"), ({"title": "x" * 256}, "length")):
        problem(caller.ask("PUT", place, body), 400, "invalid", field="title", rule=rule)


@shows(requirements.delete)
def test_a_conversation_is_deleted_with_its_running_turn(served: Served, caller: Caller) -> None:
    exchange = caller.stream(served.agent("so far", HOLD))
    place = str(exchange.head().header("Location"))
    uid = good(caller.get(place))["conversation"]
    answer = caller.ask("DELETE", f"conversations/{uid}")
    assert (answer.status, answer.body, answer.header("Content-Type")) == (204, b"", None)
    assert b'"status":"stopped"' in exchange.rest()[-1]
    problem(caller.ask("DELETE", f"conversations/{uid}"), 404, "not_found", noun="conversation")
    problem(caller.get(place), 404, "not_found", noun="run")


@shows(requirements.long_history)
def test_a_page_of_long_messages_is_a_short_one(caller: Caller, agent: Agent) -> None:
    uid = caller.begin(agent, "0" + "x" * 1_040_000)["conversation"]["uid"]
    for number in range(1, 4):
        caller.say(uid, f"{number}" + "x" * 1_040_000)
    texts: list[str] = []
    query, pages = "", 0
    while True:
        page = good(caller.get(f"conversations/{uid}/messages", query))
        assert 1 <= len(page["messages"]) < 8
        texts = [one["text"][:8] for one in page["messages"]] + texts
        pages += 1
        if not page["more"]:
            break
        query = f"before={page['messages'][0]['id']}"
    assert pages >= 2
    assert [one[0] for one in texts if one[1] == "x"] == ["0", "1", "2", "3"]
    assert len(texts) == 8


@shows(requirements.large_variables)
def test_a_page_of_conversations_with_large_variables_is_a_short_one(caller: Caller, agent: Agent) -> None:
    made = [
        good(caller.ask("POST", "conversations", {"agent": agent.id, "variables": {"v": "x" * 1_000_000}}), 201)["id"]
        for _ in range(6)
    ]
    ids: list[int] = []
    query = ""
    while len(ids) < 6:
        page = good(caller.get("conversations", f"limit=6{query}"))
        assert page["conversations"]
        assert ids or len(page["conversations"]) < 6
        ids += [one["id"] for one in page["conversations"]]
        query = f"&after={page['next']}"
    assert ids[:6] == made[::-1]


@shows(requirements.history)
def test_a_conversation_is_read_from_either_end(caller: Caller, agent: Agent) -> None:
    uid = caller.begin(agent, "one")["conversation"]["uid"]
    caller.say(uid, "two")
    caller.say(uid, "three")
    whole = caller.messages(uid)
    assert [one["text"] for one in whole] == ["one", "turn 1: one", "two", "turn 2: two", "three", "turn 3: three"]
    assert [one["role"] for one in whole] == ["user", "assistant"] * 3
    ids = [one["id"] for one in whole]

    def page(query: str) -> tuple[list[int], bool]:
        document = good(caller.get(f"conversations/{uid}/messages", query))
        return [one["id"] for one in document["messages"]], document["more"]

    assert page("") == (ids, False)
    assert page("limit=6") == (ids, False)
    assert page("limit=2") == (ids[4:], True)
    assert page(f"limit=3&before={ids[4]}") == (ids[1:4], True)
    assert page(f"limit=3&before={ids[3]}") == (ids[:3], False)
    assert page(f"limit=3&after={ids[1]}") == (ids[2:5], True)
    assert page(f"limit=3&after={ids[2]}") == (ids[3:], False)
    assert page("after=0") == (ids, False)
    problem(caller.get(f"conversations/{uid}/messages", "after=1&before=9"), 400, "invalid", field="before")
    problem(caller.get(f"conversations/{uid}/messages", "after=-1"), 400, "invalid", field="after", rule="range")
