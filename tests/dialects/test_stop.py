"""Stop stops the model: its connection is closed, and nothing begins afterwards."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest
from support.adapters import ADAPTERS
from support.databases import Databases
from support.endless_upstream import Faucet
from support.http_clients import GUARD
from support.kit import run
from support.live_server import Served, serving
from support.turns import StopForm

from palaver.core.types import Agent

WITHIN = 1.0
"""Seconds from the stop call to the closed connection."""
FORMS = [form for adapter in ADAPTERS.values() for form in adapter.stops]
each_form = pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])


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


@pytest.fixture
def speaker(tapped: Served) -> Agent:
    """An agent that speaks without end."""
    return tapped.agent(model="openai:tap", instructions="Speak.")


@each_form
def test_a_stop_closes_the_models_connection_within_a_second(
    tapped: Served, speaker: Agent, faucet: Faucet, form: StopForm
) -> None:
    opened = form.open(tapped, speaker)
    assert faucet.flowing.wait(GUARD)
    begun = time.monotonic()
    opened.stop()
    assert faucet.closed.wait(GUARD)
    assert faucet.closed_at - begun < WITHIN
    sent = faucet.sent
    opened.stream.rest()
    assert opened.stream.complete
    assert (faucet.asked, faucet.sent) == (1, sent)


LATE = (
    "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END'",
    "CREATE TRIGGER late BEFORE UPDATE ON message FOR EACH ROW WHEN (NEW.status <> 'live') EXECUTE FUNCTION late()",
)


@each_form
def test_a_stop_answers_when_the_end_is_stored(tapped: Served, speaker: Agent, faucet: Faucet, form: StopForm) -> None:
    for statement in LATE:
        tapped.sql(statement)
    opened = form.open(tapped, speaker)
    assert faucet.flowing.wait(GUARD)
    opened.stop()
    assert tapped.sql("SELECT id FROM message WHERE status = 'live'") == []
    opened.stream.rest()


KEEPING = [form for form in FORMS if not form.deletes]


@pytest.mark.parametrize("form", KEEPING, ids=[form.name for form in KEEPING])
def test_the_text_up_to_the_stop_stays(tapped: Served, speaker: Agent, faucet: Faucet, form: StopForm) -> None:
    opened = form.open(tapped, speaker)
    assert faucet.flowing.wait(GUARD)
    opened.stop()
    opened.stream.rest()
    (answer,) = tapped.sql(
        "SELECT m.status, p->>'type' AS type, p->>'text' AS text FROM message m, jsonb_array_elements(parts) p"
        " WHERE role = 'assistant'"
    )
    assert (answer["status"], answer["type"]) == ("stopped", "text")
    assert answer["text"].startswith("drop ")
    assert len(answer["text"]) <= len("drop ") * faucet.sent
