"""A variable that the agent requires."""

from __future__ import annotations

import pytest
from dialects.xspace import client as xspace
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent, Variable
from palaver.dialects.xspace import requirements

NOTHING: tuple[dict[str, str | None] | None, ...] = (None, {}, {"city": None}, {"city": " "}, {"town": "Bern"})
GIVEN = {"city": "Bern"}


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("It is sunny.", name="weather man", variables=(Variable(name="city", required=True),))


@shows(requirements.required_variables)
def test_xspace_refuses_a_message_without_a_required_variable(served: Served, agent: Agent) -> None:
    caller = xspace.Caller(served)
    bare, kept = caller.add(agent), caller.add(agent, variables=GIVEN)
    before = served.sql("SELECT count(*) AS n FROM message")
    for variables in NOTHING:
        refused = caller.say(bare, variableParams=variables)
        xspace.refused(refused, "4000", "variableParams.city is required")
    assert served.sql("SELECT count(*) AS n FROM message") == before
    for variables in NOTHING:  # what the conversation has is enough
        assert xspace.joined(xspace.events(caller.say(kept, variableParams=variables))) == "It is sunny."
    assert xspace.joined(xspace.events(caller.say(bare, variableParams=GIVEN))) == "It is sunny."


@shows(requirements.user_header)
def test_one_key_speaks_for_many_end_users_where_it_may(served: Served) -> None:
    agent = served.agent("here")
    many, one = xspace.Caller(served, user_header=True), xspace.Caller(served)
    for caller, users in ((many, ["default", "ann"]), (one, ["default", "default"])):
        owners: list[str] = []
        for headers in ({}, {"X-User-ID": "ann"}):
            answer = caller.post("/api/v1/chat/conversation/add", {"agentId": agent.id}, headers=headers)
            sql = "SELECT u.name FROM end_user u JOIN conversation c ON c.app = u.app AND c.end_user = u.id"
            owners.append(served.sql(f"{sql} WHERE c.id = $1", xspace.data(answer))[0]["name"])
        assert owners == users
