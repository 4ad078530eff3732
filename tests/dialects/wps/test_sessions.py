"""Sessions: made, listed, read, named, deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dialects.wps.client import USER, Caller, agents, data, invalid, refused, spoken
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.wps import requirements

SESSION_NOT_FOUND = "kso: NotFound err: session not found"


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"think": "hm"}, "Turn ${turn}: ${content}")


def make(caller: Caller, agent: Agent, **members: Any) -> str:
    return data(caller.post(f"/v7/devhub/app/{agent.uid}/session/create", members))["session_id"]


def listed(caller: Caller, agent: Agent, query: str = "page_size=100") -> Any:
    return data(caller.get(f"/v7/devhub/app/{agent.uid}/session/list", query))


# Made and named -----------------------------------------------------------------------------------------------------


@shows(requirements.sessions_are_made, requirements.session_names, requirements.twins)
def test_a_session_is_made_with_a_name_or_without(caller: Caller, agent: Agent) -> None:
    for path in (f"/v7/devhub/app/{agent.uid}/session/create", f"/v7/devhub/apps/{agent.uid}/sessions/create"):
        for body, name in ((b"", ""), (b"{}", ""), ({"name": "报告"}, "报告"), ({"name": " "}, "")):
            session = data(caller.post(path, body))
            assert list(session) == ["session_id"]
            for spelling in ("session", "sessions"):
                named = data(caller.get(f"/v7/devhub/{spelling}/{session['session_id']}/name"))
                assert named == {"session_id": session["session_id"], "name": name}
    path = f"/v7/devhub/app/{agent.uid}/session/create"
    data(caller.post(path, {"name": "x" * 255}))
    invalid(caller.post(path, {"name": "x" * 256}), "invalid name")
    invalid(caller.post(path, {"name": 5}), "invalid name")
    invalid(caller.post(path, b"["), "invalid request body")


@shows(requirements.session_names)
def test_a_session_without_a_title_is_called_by_its_first_words(served: Served, caller: Caller, agent: Agent) -> None:
    session = make(caller, agent)
    path = f"/v7/devhub/session/{session}/name"
    caller.hear(agent, "用" * 20, session_id=session)
    assert data(caller.get(path))["name"] == "用" * 16
    served.do(served.core.chat.rename_conversation(served.principal(caller.key, USER), session, "A title"))
    assert data(caller.get(path))["name"] == "A title"


@shows(requirements.idempotency, requirements.idempotency_conflict)
def test_one_key_makes_one_session(caller: Caller, agent: Agent) -> None:
    path, headers = f"/v7/devhub/app/{agent.uid}/session/create", {"Idempotency-Key": "session-1"}
    first, again = (caller.post(path, {"name": "a"}, headers=headers) for _ in range(2))
    assert first.body == again.body
    assert again.header("Idempotency-Replayed") == "true"
    assert caller.post(path, {"name": "b"}, headers=headers).status == 422
    invalid(caller.post(path, {"name": 5}, headers={"Idempotency-Key": "ä b"}), "invalid Idempotency-Key")


# Listed -------------------------------------------------------------------------------------------------------------


@shows(requirements.sessions_are_listed, requirements.page_tokens, requirements.twins)
def test_sessions_are_listed_page_by_page(served: Served, caller: Caller) -> None:
    agent, mine = served.agent("x"), caller.of("lister")
    made = [make(mine, agent, name=f"n{at}") for at in range(5)]
    mine.hear(agent, session_id=made[1])
    expected = [made[at] for at in (1, 4, 3, 2, 0)]
    items: list[Any] = []
    token = ""
    for size in (2, 2, 1):
        page = data(mine.get(f"/v7/devhub/apps/{agent.uid}/sessions/list", f"page_size=2&next_page_token={token}"))
        assert len(page["items"]) == size
        items += page["items"]
        token = page["next_page_token"]
    assert token == ""
    assert [item["session_id"] for item in items] == expected
    assert all(list(item) == ["session_id", "name", "ctime", "mtime"] for item in items)
    assert items == listed(mine, agent)["items"]
    assert isinstance(items[0]["ctime"], int)
    assert items[0]["mtime"] >= items[0]["ctime"] > 1_700_000_000
    assert listed(mine, served.agent("y")) == {"items": [], "next_page_token": ""}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "page_size is required"),
        ("page_size=", "page_size is required"),
        ("page_size=0", "invalid page_size"),
        ("page_size=101", "invalid page_size"),
        ("page_size=-1", "invalid page_size"),
        ("page_size=ten", "invalid page_size"),
        ("page_size=1.0", "invalid page_size"),
        ("page_size=%D9%A1", "invalid page_size"),
        ("page_size=2&next_page_token=x", "invalid next_page_token"),
        ("page_size=2&next_page_token=AAAAAAAAAAAAAAAAMTox", "invalid next_page_token"),
    ],
)
@shows(requirements.sessions_are_listed, requirements.page_tokens)
def test_a_list_s_query_is_checked(caller: Caller, agent: Agent, query: str, reason: str) -> None:
    invalid(caller.get(f"/v7/devhub/app/{agent.uid}/session/list", query), reason)


@shows(requirements.page_tokens)
def test_a_token_is_good_for_its_own_list_alone(served: Served, caller: Caller, agent: Agent) -> None:
    for _ in range(2):
        make(caller, agent)
    token = listed(caller, agent, "page_size=1")["next_page_token"]
    query = f"page_size=1&next_page_token={token}"
    assert listed(caller, agent, query)["items"]
    invalid(caller.get(f"/v7/devhub/app/{served.agent('x').uid}/session/list", query), "invalid next_page_token")
    invalid(caller.of("other").get(f"/v7/devhub/app/{agent.uid}/session/list", query), "invalid next_page_token")
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    answer = caller.get(f"/v7/devhub/app/{agent.uid}/session/list", f"page_size=1&next_page_token={changed}")
    invalid(answer, "invalid next_page_token")


# Read ---------------------------------------------------------------------------------------------------------------


@shows(requirements.messages, requirements.twins)
def test_messages_come_oldest_first_with_the_example_s_members(caller: Caller, agent: Agent) -> None:
    events = caller.hear(agent, "hi", files=["f"])
    user = events[1]["data"]
    query = f"session_id={user['session_id']}"
    for path in (f"/v7/devhub/app/{agent.uid}/session/messages", f"/v7/devhub/apps/{agent.uid}/sessions/messages"):
        page = data(caller.get(path, query))
        assert page == {
            "items": [
                {
                    "id": user["id"],
                    "chat_id": user["chat_id"],
                    "session_id": user["session_id"],
                    "role": "user",
                    "text": "hi",
                    "files": ["f"],
                    "state": "complete",
                    "error": False,
                    "timestamp": user["timestamp"],
                },
                {
                    "id": user["chat_id"],
                    "chat_id": user["chat_id"],
                    "session_id": user["session_id"],
                    "role": "assistant",
                    "text": "Turn 1: hi",
                    "files": [],
                    "state": "complete",
                    "error": False,
                    "timestamp": agents(events)[0]["timestamp"],
                },
            ],
            "next_page_token": "",
        }
        order = "id chat_id session_id role text files state error timestamp"
        assert [" ".join(item) for item in page["items"]] == [order, order]


@shows(requirements.messages, requirements.page_tokens, requirements.message_events)
def test_messages_come_page_by_page_with_their_events(caller: Caller, agent: Agent) -> None:
    streams = [caller.hear(agent, "one")]
    session = streams[0][1]["data"]["session_id"]
    streams.append(caller.hear(agent, "two", session_id=session))
    path = f"/v7/devhub/app/{agent.uid}/session/messages"
    items: list[Any] = []
    token = ""
    for _ in range(4):
        query = f"session_id={session}&page_size=1&with_event=true&next_page_token={token}"
        page = data(caller.get(path, query))
        items += page["items"]
        token = page["next_page_token"]
    assert token == ""
    assert [item["text"] for item in items] == ["one", "Turn 1: one", "two", "Turn 2: two"]
    assert items == caller.items(agent, session, with_event="true")
    assert [item["events"] for item in items[::2]] == [[], []]
    assert [item["events"] for item in items[1::2]] == [agents(events)[-1]["content_blocks"] for events in streams]
    assert [item["chat_id"] for item in items] == [events[1]["data"]["chat_id"] for events in streams for _ in range(2)]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "session_id is required"),
        ("session_id=%20", "session_id is required"),
        ("session_id={}&page_size=0", "invalid page_size"),
        ("session_id={}&with_event=yes", "invalid with_event"),
        ("session_id={}&next_page_token=x", "invalid next_page_token"),
    ],
)
@shows(requirements.messages, requirements.errors_are_in_order)
def test_a_query_for_messages_is_checked(caller: Caller, agent: Agent, query: str, reason: str) -> None:
    session = make(caller, agent)
    invalid(caller.get(f"/v7/devhub/app/{agent.uid}/session/messages", query.format(session)), reason)


# Gone ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["session", "sessions"])
@shows(requirements.sessions_are_deleted, requirements.twins)
def test_a_deleted_session_is_gone_and_what_runs_in_it_ends(served: Served, caller: Caller, spelling: str) -> None:
    agent = served.agent("so far", HOLD)
    exchange = caller.begin(agent)
    session = exchange.head().header("X-Session-Id")
    path = f"/v7/devhub/{spelling}/{session}/delete"
    assert data(caller.post(path, b"anything")) == {}
    assert agents(spoken(exchange.rest()))[-1]["error"] is False
    refused(caller.post(path), 404, 404000002, SESSION_NOT_FOUND)
    refused(caller.get(f"/v7/devhub/session/{session}/name"), 404, 404000002, SESSION_NOT_FOUND)
    assert listed(caller, agent)["items"] == []


# Somebody else's ----------------------------------------------------------------------------------------------------


@shows(requirements.isolation, requirements.session_not_found)
def test_what_is_somebody_else_s_is_like_what_does_not_exist(served: Served, caller: Caller, agent: Agent) -> None:
    mine = data(caller.say(agent))["session_id"]
    limited = Caller(served, served.key("wps", agents=[str(served.agent("x").uid)]))
    foreign = Caller(served, served.key("wps", application="other"))
    absent = "00000000-0000-4000-8000-000000000000"
    for stranger in (caller.of("stranger"), foreign, limited):
        for session in (mine, absent):
            for answer in (
                stranger.get(f"/v7/devhub/session/{session}/name"),
                stranger.post(f"/v7/devhub/session/{session}/delete"),
            ):
                refused(answer, 404, 404000002, SESSION_NOT_FOUND)
    own = served.agent("x", application="other")
    for stranger, theirs in ((caller.of("stranger"), agent), (foreign, own), (caller, served.agent("y"))):
        for session in (mine, absent):
            answer = stranger.get(f"/v7/devhub/app/{theirs.uid}/session/messages", f"session_id={session}")
            refused(answer, 404, 404000002, SESSION_NOT_FOUND)
    assert mine in json.dumps(listed(caller, agent))
    assert mine not in json.dumps(listed(caller.of("stranger"), agent))
