"""A variable that the agent requires, and an agent by its name."""

from __future__ import annotations

import pytest
from dialects.sonaops import client as sonaops
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent, Variable
from palaver.dialects.sonaops import requirements

NOTHING: tuple[dict[str, str | None] | None, ...] = (None, {}, {"city": None}, {"city": " "}, {"town": "Bern"})
GIVEN = {"city": "Bern"}


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("It is sunny.", name="weather man", variables=(Variable(name="city", required=True),))


@shows(requirements.required_metadata)
def test_sonaops_refuses_a_message_without_a_required_variable(served: Served, agent: Agent) -> None:
    caller = sonaops.Caller(served)
    conversation = caller.create(agent)
    before = served.sql("SELECT count(*) AS n FROM message")
    for metadata in NOTHING:
        refused = caller.say(agent, conversation, metadata=metadata)
        sonaops.refused(refused, 10400, "metadata.city is required")
    assert served.sql("SELECT count(*) AS n FROM message") == before
    assert sonaops.joined(sonaops.frames(caller.say(agent, conversation, metadata=GIVEN).body)) == "It is sunny."


@shows(requirements.named_by_name)
def test_an_agent_is_named_by_its_name_too(served: Served, agent: Agent) -> None:
    caller = sonaops.Caller(served)
    assert len(caller.create(agent.name)) == 32
    refused = caller.post("/v1/chat/conversation", {"agentId": "nobody"})
    sonaops.refused(refused, 10404, "Agent not found")
