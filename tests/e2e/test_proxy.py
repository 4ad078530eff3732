"""Streams through nginx with Debian's settings: the same events without delay, and aborted ones stay aborted."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from dialects.sonaops import client as sonaops
from dialects.wps import client as wps
from support.adapters import STREAM_FORMS
from support.databases import Databases
from support.http_clients import Answer, Ask, Connection
from support.kit import run
from support.live_server import HOLD, Served, serving
from support.nginx import PROGRAM, in_front_of
from support.stream_forms import FAILING, SPOKEN, StreamForm, said, split

from palaver.core.types import Agent

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(PROGRAM is None and not os.environ.get("CI"), reason="nginx is not installed"),
]
Address = tuple[str, int]


@pytest.fixture(scope="module")
def served(cluster: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    name, url = run(cluster.acquire())
    with serving(url, tmp_path_factory.mktemp("data"), heartbeat_s=0.05, max_body_bytes=10_000) as server:
        yield server
    run(cluster.release(name))


@pytest.fixture(scope="module")
def proxy(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Generator[Address]:
    folder: Path = tmp_path_factory.mktemp("nginx")
    with in_front_of(served.base_url, folder) as address:
        yield address


@pytest.fixture(scope="module")
def speaking(served: Served) -> Agent:
    return served.agent(*SPOKEN[:2], {"wait": 0.12}, *SPOKEN[2:])


@pytest.fixture(scope="module")
def failing(served: Served) -> Agent:
    return served.agent(*FAILING)


def answer(address: Address, ask: Ask, at_once: int = 65_536) -> Answer:
    with Connection(address, at_once=at_once) as connection:
        connection.send(ask)
        return connection.answer()


@pytest.mark.parametrize("form", STREAM_FORMS, ids=lambda form: form.name)
def test_a_stream_through_the_proxy_says_the_same(
    served: Served, proxy: Address, speaking: Agent, form: StreamForm
) -> None:
    direct = answer(served.address, form.ask(served, speaking))
    for at_once in (1, 65_536):
        through = answer(proxy, form.ask(served, speaking), at_once)
        assert through.complete
        assert through.header("Content-Type") == direct.header("Content-Type")
        assert said(split([through.body], form.mark)) == said(split([direct.body], form.mark))


@pytest.mark.parametrize("form", STREAM_FORMS, ids=lambda form: form.name)
def test_a_failed_stream_through_the_proxy_ends_as_without_it(
    served: Served, proxy: Address, failing: Agent, form: StreamForm
) -> None:
    direct, through = (answer(address, form.ask(served, failing)) for address in (served.address, proxy))
    assert said(split([through.body], form.mark)) == said(split([direct.body], form.mark))
    assert through.complete == direct.complete == (not form.aborts_on_failure)


@pytest.mark.parametrize("form", STREAM_FORMS, ids=lambda form: form.name)
def test_the_first_event_is_there_long_before_the_last(served: Served, proxy: Address, form: StreamForm) -> None:
    agent = served.agent("begun", HOLD)
    with Connection(proxy) as connection:
        connection.send(form.ask(served, agent))
        assert connection.head().status == 200
        heard = b""
        while b"begun" not in heard:
            piece = connection.chunk()
            assert piece is not None
            heard += piece
    assert served.sql("SELECT 1 FROM message WHERE status = 'live'"), "the run is still at work"


def test_refusals_pass_through_the_proxy(served: Served, proxy: Address, speaking: Agent) -> None:
    caller = wps.Caller(served)
    large = caller.request("POST", wps.chat(speaking), {"text": "x" * 10_001})
    wps.refused(answer(proxy, large), 413, 413000001, "kso: InvalidArgument err: request body too large")
    wrong = caller.request("POST", wps.chat(speaking), {"text": ""})
    wps.invalid(answer(proxy, wrong), "text is required")
    nowhere = replace(wrong, path="/v7/nowhere")
    wps.refused(answer(proxy, nowhere), 404, 404000001, "404 Route Not Found")
    unsigned = replace(wrong, headers=[])
    wps.refused(answer(proxy, unsigned), 401, 401000001, "kso: Unauthenticated err: missing signature")
    other = sonaops.Caller(served).request(sonaops.CREATE, {"agentId": "nobody"})
    sonaops.refused(answer(proxy, other), 10404, "Agent not found")
