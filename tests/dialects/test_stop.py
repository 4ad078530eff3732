"""Stop stops the model: its connection is closed, and nothing begins afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import pytest
from dialects.native import client as native
from dialects.snail import client_b as snail
from dialects.wps import client as wps
from dialects.xspace import client as xspace
from support.databases import Databases
from support.endless_upstream import Faucet
from support.http_clients import GUARD, Exchange
from support.kit import run
from support.live_server import Served, serving

from palaver.core.types import Agent, Status, Text

WITHIN = 1.0
"""Seconds from the stop call to the closed connection."""


@dataclass(frozen=True, slots=True)
class Tap:
    """A stream of a dialect, and how it is stopped there."""

    stream: Exchange
    stop: Callable[[], object]


def _wps(served: Served, agent: Agent) -> Tap:
    caller = wps.Caller(served, served.key("wps"))
    stream = caller.begin(agent)
    chat = stream.head().header("X-Chat-Id") or ""
    return Tap(stream, lambda: wps.data(caller.cancel(agent, chat)))


def _xspace(served: Served, agent: Agent) -> Tap:
    caller = xspace.Caller(served)
    made = caller.add(agent)
    stream = caller.begin(made)
    stream.head()
    return Tap(stream, lambda: xspace.done(caller.stop(made)))


def _snail(served: Served, agent: Agent) -> Tap:
    caller = snail.Caller(served)
    user = caller.register("ann")
    where = {"agentId": agent.id, "openId": user, "conversationId": "to be deleted"}
    fields = {**where, "content": "hi"}
    stream = served.exchange(caller.request("POST", snail.CHAT, fields, headers=snail.EVENTS))
    stream.head()
    return Tap(stream, lambda: snail.good(caller.delete(snail.CONVERSATIONS, **where)))


def _xspace_older(served: Served, agent: Agent) -> Tap:
    caller = xspace.Caller(served)
    made = caller.add(agent)
    stream = caller.begin(made)
    stream.head()
    bound = xspace.Caller(served, kind="agent", agent=str(agent.uid))
    return Tap(stream, lambda: xspace.done(bound.post(f"/api/v1/chat/stop/{made}")))


def _native_all(served: Served, agent: Agent) -> Tap:
    caller = native.Caller(served)
    stream = caller.stream(agent)
    place = stream.head().header("Location") or ""
    conversation = native.good(caller.ask("GET", place))["conversation"]
    return Tap(stream, lambda: native.good(caller.ask("POST", f"/palaver/v1/conversations/{conversation}/stop")))


def _native(served: Served, agent: Agent) -> Tap:
    caller = native.Caller(served)
    stream = caller.stream(agent)
    place = stream.head().header("Location") or ""
    return Tap(stream, lambda: native.good(caller.ask("POST", f"{place}/stop")))


@pytest.fixture
def faucet() -> Generator[Faucet]:
    with Faucet().open() as flowing:
        yield flowing


@pytest.fixture
def tapped(cluster: Databases, tmp_path_factory: pytest.TempPathFactory, faucet: Faucet) -> Generator[Served]:
    name, url = run(cluster.acquire())
    environment = {"OPENAI_BASE_URL": faucet.url}
    with serving(url, tmp_path_factory.mktemp("data"), environment=environment, model="openai:tap") as served:
        yield served
    run(cluster.release(name))


@pytest.mark.parametrize("tap", [_wps, _xspace, _snail, _native], ids=["wps", "xspace", "snail", "native"])
def test_a_stop_closes_the_models_connection_within_a_second(
    tapped: Served, faucet: Faucet, tap: Callable[[Served, Agent], Tap]
) -> None:
    open_tap = tap(tapped, tapped.agent(model="openai:tap", instructions="Speak."))
    assert faucet.flowing.wait(GUARD)
    begun = time.monotonic()
    open_tap.stop()
    assert faucet.closed.wait(GUARD)
    assert faucet.closed_at - begun < WITHIN
    sent = faucet.sent
    open_tap.stream.rest()
    assert open_tap.stream.complete
    assert (faucet.asked, faucet.sent) == (1, sent)


LATE = (
    "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END'",
    "CREATE TRIGGER late BEFORE UPDATE ON message FOR EACH ROW WHEN (NEW.status <> 'live') EXECUTE FUNCTION late()",
)
STOPS = {"wps": _wps, "xspace": _xspace, "xspace, older": _xspace_older, "snail": _snail, "native": _native}


@pytest.mark.parametrize("tap", [*STOPS.values(), _native_all], ids=[*STOPS, "native, all"])
def test_a_stop_answers_when_the_end_is_stored(
    tapped: Served, faucet: Faucet, tap: Callable[[Served, Agent], Tap]
) -> None:
    for statement in LATE:
        tapped.sql(statement)
    open_tap = tap(tapped, tapped.agent(model="openai:tap", instructions="Speak."))
    assert faucet.flowing.wait(GUARD)
    open_tap.stop()
    assert tapped.sql("SELECT id FROM message WHERE status = 'live'") == []
    open_tap.stream.rest()


def test_the_text_up_to_the_stop_stays(tapped: Served, faucet: Faucet) -> None:
    agent = tapped.agent(model="openai:tap", instructions="Speak.")
    caller = xspace.Caller(tapped, default_user="ann")
    made = caller.add(agent)
    stream = caller.begin(made)
    stream.head()
    assert faucet.flowing.wait(GUARD)
    xspace.done(caller.stop(made))
    stream.rest()
    _, answer = tapped.history(caller.key, "ann", made)
    assert answer.ended is not None
    assert answer.ended.status is Status.STOPPED
    (part,) = answer.parts
    assert isinstance(part, Text)
    assert part.text.startswith("drop ")
    assert len(part.text) <= len("drop ") * faucet.sent
