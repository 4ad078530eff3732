"""A variable that the agent requires, and an agent by its name."""

from __future__ import annotations

import pytest
from dialects.manifest import shows
from dialects.serving import Served
from dialects.wps import asking as wps

from palaver.core.types import Agent, Variable
from palaver.dialects.wps import behaviours


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("It is sunny.", name="weather man", variables=(Variable(name="city", required=True),))


@shows(behaviours.required_is_information)
def test_wps_takes_a_chat_without_it(served: Served, agent: Agent) -> None:
    assert wps.chunks(wps.Caller(served).hear(agent)) == "It is sunny."


@shows(behaviours.app_by_name)
def test_an_agent_is_named_by_its_name_too(served: Served, agent: Agent) -> None:
    caller = wps.Caller(served)
    assert wps.data(caller.get("/v7/devhub/app/weather%20man/detail"))["name"] == agent.name
    unknown = caller.get("/v7/devhub/app/nobody/detail")
    wps.refused(unknown, 404, 404000002, "kso: NotFound err: app not found")
    assert "UUID, alias or name" in unknown.json()["debug"]["desc"]
