"""A variable that an agent requires is required at every door whose API does not say otherwise."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from dialects.native import asking as native
from dialects.serving import Served
from dialects.snail import asking_b as snail
from dialects.sonaops import asking as sonaops
from dialects.wps import asking as wps
from dialects.xspace import asking as xspace

from palaver.core.types import Agent, Variable

USER = "ann"


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"text": "in {{city}}"}, variables=(Variable(name="city", required=True),))


def messages(served: Served) -> int:
    return served.sql("SELECT count(*) AS n FROM message")[0]["n"]


@pytest.mark.parametrize("given", [{}, {"city": ""}, {"city": None}, {"town": "Rome"}])
def test_a_message_without_it_is_refused_and_leaves_nothing(
    served: Served, agent: Agent, given: dict[str, Any]
) -> None:
    before = messages(served)
    body = {"agent": agent.id, "content": "hi", "variables": given}
    answer = native.Caller(served, user=USER).ask("POST", "messages", body)
    native.problem(answer, 400, "invalid", field="variables.city", rule="required")
    caller = sonaops.Caller(served, user=USER)
    refused = caller.say(agent, caller.create(agent), "hi", metadata=given)
    assert refused.json()["message"] == "metadata.city is required"
    by_xspace = xspace.Caller(served, default_user=USER)
    told = by_xspace.post(f"/api/v1/chat/{by_xspace.add(agent)}", {"message": "hi", "variableParams": given})
    assert "variableParams.city is required" in told.body.decode()
    assert messages(served) == before


def test_a_dialect_without_variables_says_which_one_is_missing(served: Served, agent: Agent) -> None:
    caller, before = snail.Caller(served), messages(served)
    answer = caller.say(agent, caller.register(USER), path=f"{snail.CHAT}/sync")
    assert "variables.city" in answer.body.decode()
    assert messages(served) == before


def test_wps_has_them_for_information_alone(served: Served, agent: Agent) -> None:
    assert wps.chunks(wps.Caller(served).hear(agent)) == "in "


def test_what_the_conversation_keeps_counts(served: Served, agent: Agent) -> None:
    caller = native.Caller(served, user=USER)
    begun = caller.begin(agent, variables={"city": "Rome"})
    assert begun["answer"]["text"] == "in Rome"
    assert caller.say(begun["conversation"]["uid"])["answer"]["text"] == "in Rome"
    by_xspace = xspace.Caller(served, default_user=USER)
    kept = by_xspace.add(agent, variables={"city": "Oslo"})
    assert xspace.joined(xspace.events(by_xspace.say(kept))) == "in Oslo"


@pytest.mark.parametrize("form", ["name", "alias", "uid"])
def test_an_agent_is_named_by_its_name_wherever_a_text_names_it(served: Served, form: str) -> None:
    agent = served.agent("here", name=f"front desk {form}", alias=(f"desk-{form}",))
    ref = {"name": agent.name, "alias": agent.spec.alias[0], "uid": agent.uid.hex}[form]
    caller = sonaops.Caller(served, user=USER)
    assert sonaops.joined(sonaops.frames(caller.say(ref, caller.create(ref)).body)) == "here"
    body = {"agent": ref, "content": "hi"}
    assert native.good(native.Caller(served, user=USER).ask("POST", "messages", body))["answer"]["text"] == "here"
    by_wps = wps.Caller(served, served.key("wps", agents=[agent.name]))
    path = f"/v7/devhub/app/{quote(ref)}/chat/create"
    assert "here" in by_wps.post(path, {"text": "hi", "stream": True}).body.decode()


def test_an_unknown_agent_is_told_what_is_accepted(served: Served) -> None:
    answer = native.Caller(served, user=USER).ask("POST", "messages", {"agent": "nobody", "content": "hi"})
    assert "id, uid, alias or name" in native.problem(answer, 404, "not_found", noun="agent")["detail"]
