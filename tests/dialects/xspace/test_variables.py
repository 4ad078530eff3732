"""Required variables, and the header ``X-User-ID``."""

from __future__ import annotations

import pytest
from dialects.xspace import client as xspace
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent, Variable
from palaver.dialects.xspace import requirements

MISSING: tuple[dict[str, str | None] | None, ...] = (None, {}, {"city": None}, {"city": " "}, {"town": "Bern"})
VALUES = {"city": "Bern"}


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("It is sunny.", name="weather man", variables=(Variable(name="city", required=True),))


@shows(requirements.required_variables)
def test_a_message_without_a_required_variable_is_rejected(served: Served, agent: Agent) -> None:
    caller = xspace.Caller(served)
    without, with_variables = caller.add(agent), caller.add(agent, variables=VALUES)
    before = served.sql("SELECT count(*) AS n FROM message")
    for variables in MISSING:
        xspace.refused(caller.say(without, variableParams=variables), "4000", "variableParams.city is required")
    assert served.sql("SELECT count(*) AS n FROM message") == before
    for variables in MISSING:  # the conversation has the variable
        assert xspace.joined(xspace.events(caller.say(with_variables, variableParams=variables))) == "It is sunny."
    assert xspace.joined(xspace.events(caller.say(without, variableParams=VALUES))) == "It is sunny."


@shows(requirements.user_header)
def test_user_header_enables_x_user_id(served: Served) -> None:
    agent = served.agent("here")
    many, one = xspace.Caller(served, user_header=True), xspace.Caller(served)
    for caller, users in ((many, ["default", "ann"]), (one, ["default", "default"])):
        owners: list[str] = []
        for headers in ({}, {"X-User-ID": "ann"}):
            answer = caller.post("/api/v1/chat/conversation/add", {"agentId": agent.id}, headers=headers)
            sql = "SELECT u.name FROM end_user u JOIN conversation c ON c.app = u.app AND c.end_user = u.id"
            owners.append(served.sql(f"{sql} WHERE c.id = $1", xspace.data(answer))[0]["name"])
        assert owners == users
