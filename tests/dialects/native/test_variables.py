"""A variable that the agent requires, and an agent by its name."""

from __future__ import annotations

import pytest
from dialects.native import client as native
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent, Variable
from palaver.dialects.native import requirements

NOTHING: tuple[dict[str, str | None] | None, ...] = (None, {}, {"city": None}, {"city": " "}, {"town": "Bern"})
GIVEN = {"city": "Bern"}


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("It is sunny.", name="weather man", variables=(Variable(name="city", required=True),))


@shows(requirements.required_variables)
def test_the_native_api_refuses_a_message_without_a_required_variable(served: Served, agent: Agent) -> None:
    caller = native.Caller(served)
    before = served.sql("SELECT count(*) AS n FROM message")
    for variables in NOTHING:
        body = {"agent": agent.id, "content": "hi", "variables": variables}
        refused = caller.ask("POST", "messages", body)
        native.problem(refused, 400, "invalid", field="variables.city", rule="required")
    assert served.sql("SELECT count(*) AS n FROM message") == before
    begun = caller.begin(agent, variables=GIVEN)
    for variables in NOTHING:  # what the conversation has is enough
        assert caller.say(begun["conversation"]["uid"], variables=variables)["answer"]["text"] == "It is sunny."


@shows(requirements.agent_by_name)
def test_an_agent_is_named_by_its_name_too_and_an_alias_goes_before_it(served: Served, agent: Agent) -> None:
    caller = native.Caller(served)
    body = {"agent": "weather man", "content": "hi", "variables": GIVEN}
    assert native.good(caller.ask("POST", "messages", body))["answer"]["text"] == "It is sunny."
    refused = caller.ask("POST", "messages", {**body, "agent": "nobody"})
    assert "id, uid, alias or name" in native.problem(refused, 404, "not_found", noun="agent")["detail"]
    namesake = served.agent("An alias.", alias=("weather man",))
    assert namesake.id != agent.id
    assert native.good(caller.ask("POST", "messages", body))["answer"]["text"] == "An alias."
