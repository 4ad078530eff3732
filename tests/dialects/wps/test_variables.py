"""A variable that the agent requires, and an agent by its name."""

from __future__ import annotations

import pytest
from dialects.wps import client as wps
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent, Variable
from palaver.dialects.wps import requirements


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("It is sunny.", name="weather man", variables=(Variable(name="city", required=True),))


@shows(requirements.required_is_information)
def test_wps_takes_a_chat_without_it(served: Served, agent: Agent) -> None:
    assert wps.chunks(wps.Caller(served).hear(agent)) == "It is sunny."


@shows(requirements.app_by_name)
def test_an_agent_is_named_by_its_name_too(served: Served, agent: Agent) -> None:
    caller = wps.Caller(served)
    assert wps.data(caller.get("/v7/devhub/app/weather%20man/detail"))["name"] == agent.name
    unknown = caller.get("/v7/devhub/app/nobody/detail")
    wps.refused(unknown, 404, 404000002, "kso: NotFound err: app not found")
    assert "UUID, alias or name" in unknown.json()["debug"]["desc"]


@shows(requirements.user_header)
def test_one_credential_speaks_for_many_end_users_where_it_may(served: Served) -> None:
    agent = served.agent("turn ${turn}")
    many = wps.Caller(served, served.key("wps", user_header=True))
    one = wps.Caller(served, served.key("wps"))
    for caller, users in ((many, ["default", "ann", "bö b"]), (one, ["default"] * 3)):
        names = [{}, {"X-User-ID": "ann"}, {"X-User-ID": "b%C3%B6 b"}]
        chats = [wps.data(caller.say(agent, headers=name, stream=False))["chat_id"] for name in names]
        assert [_owner(served, chat) for chat in chats] == users
    refused = many.say(agent, headers={"X-User-ID": "x" * 256}, stream=False)
    wps.invalid(refused, "invalid X-User-ID")


def _owner(served: Served, chat: str) -> str:
    (row,) = served.sql(
        "SELECT u.name FROM end_user u JOIN conversation c ON c.app = u.app AND c.end_user = u.id"
        " JOIN message m ON m.app = c.app AND m.conversation = c.id WHERE m.uid = $1::text::uuid",
        chat,
    )
    return row["name"]
