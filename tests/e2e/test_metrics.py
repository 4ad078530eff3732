"""``GET /metrics`` of a server with several processes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.server_process import Installation, heard, installed, lines

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

WORKERS = 2
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
BRACKETS = {")": "(", "]": "[", "}": "{"}
GOOD = "- wait: 0.3\n- usage: {prompt: 3, completion: 5}\n- text: hi\n"
PARTLY = "- usage: {prompt: 10, completion: 20}\n- fail: limit\n"
SILENT = "- fail: timeout\n"
HANGING = "- text: begun\n- wait: 60\n"
AGENT = "---\nname: {name}\nmodel: scripted\n---\n{steps}"
Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def place() -> Generator[Installation]:
    environment = {"PALAVER_MAX_LIVE_RUNS": "50", "PALAVER_DATABASE_CONNECTIONS": "4"}
    with installed(True, **environment) as installation:
        installation.start("--workers", str(WORKERS))
        eventually(lambda: installation.log.read_text().count('"event": "worker ready"') == WORKERS)
        yield installation


def eventually(ask: Callable[[], bool], *, within: float = 10.0) -> None:
    until = time.monotonic() + within
    while not ask():
        assert time.monotonic() < until, f"not within {within} s"
        time.sleep(0.05)


def figures(place: Installation) -> Figures:
    text = requests.get(f"{place.url}/metrics", timeout=5).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(place: Installation, name: str, **labels: str) -> float:
    return sum(
        value for (other, its), value in figures(place).items() if other == name and set(labels.items()) <= set(its)
    )


def test_what_runs_did_is_counted_by_model_and_application_over_all_processes(place: Installation) -> None:
    key = place.key()
    agents = {
        name: place.agent(AGENT.format(name=name, steps=steps))["id"]
        for name, steps in (("good", GOOD), ("partly", PARTLY), ("silent", SILENT))
    }

    def chat_with_all(number: int) -> None:
        for name, agent in agents.items():
            heard(lines(place.chat(key["secret"], agent, openId=f"{name}-{number}")))  # a failed answer breaks off

    with ThreadPoolExecutor(8) as threads:  # on connections of their own: both processes get some
        list(threads.map(chat_with_all, range(8)))
    application = {"application": str(next(one["id"] for one in place.json("app", "list") if one["name"] == "demo"))}
    eventually(lambda: total(place, "palaver_live_runs") == 0)
    assert total(place, "palaver_runs_ended_total", status="complete", **application) == 8
    assert total(place, "palaver_runs_ended_total", status="failed", **application) == 16
    assert total(place, "palaver_tokens_total", model="built-in", direction="input") == 8 * 3 + 8 * 10
    assert total(place, "palaver_tokens_total", model="built-in", direction="output") == 8 * 5 + 8 * 20
    errors = {
        kind: total(place, "palaver_model_errors_total", model="built-in", kind=kind) for kind in ("limit", "timeout")
    }
    assert errors == {"limit": 8, "timeout": 8}
    assert total(place, "palaver_first_token_seconds_count", model="built-in") == 8, "the failed ones had no words"
    assert total(place, "palaver_first_token_seconds_bucket", le="0.25") == 0
    assert total(place, "palaver_first_token_seconds_bucket", le="+Inf") == 8
    assert total(place, "palaver_first_token_seconds_sum") >= 8 * 0.3
    assert total(place, "palaver_application_requests_total", status="200", **application) == 24
    both = {line.split('"worker": ')[1][0] for line in place.log.read_text().splitlines() if '"worker": ' in line}
    assert len(both) == WORKERS


def test_live_and_waiting_runs_and_the_pool_are_told_with_their_limits(place: Installation) -> None:
    key, hanging = place.key(), place.agent(AGENT.format(name="hanging", steps=HANGING))["id"]
    assert total(place, "palaver_live_runs_limit") == 50 * WORKERS
    assert total(place, "palaver_database_connections_limit") == 4 * WORKERS
    assert 1 <= total(place, "palaver_database_connections") <= 4 * WORKERS
    assert total(place, "palaver_database_waiting") == 0
    members = {"openId": "bob", "conversationId": "one"}
    first = lines(place.chat(key["secret"], hanging, **members))
    assert next(first)["content"] == "begun"
    with place.chat(key["secret"], hanging, **members, headers={"Idempotency-Key": "second"}):
        eventually(lambda: total(place, "palaver_waiting_runs") == 1)
        assert total(place, "palaver_live_runs") == 2


# The dashboard and the alerts of deploy/ -----------------------------------------------------------------------------


def dashboard() -> list[tuple[str, str]]:
    board: dict[str, Any] = json.loads((DEPLOY / "grafana" / "palaver.json").read_text())
    return [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel["targets"]]


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    return group["rules"]


EXPRESSIONS = [*dashboard(), *((rule["alert"], rule["expr"]) for rule in alerts())]


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_there_are(place: Installation) -> None:
    text = requests.get(f"{place.url}/metrics", timeout=5).text
    kinds: list[tuple[str, str]] = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    there = {name.removesuffix("_total") + suffix for name, kind in kinds for suffix in SUFFIXES[kind]}
    asked = {name for _, expression in EXPRESSIONS for name in re.findall(r"\bpalaver_\w+", expression)}
    assert asked - there == set()


@pytest.mark.parametrize("expression", [expression for _, expression in EXPRESSIONS])
def test_every_expression_is_whole(expression: str) -> None:
    bare = re.sub(r'"[^"]*"', "", expression)
    assert '"' not in bare
    assert re.search(r"\b(palaver_\w+|up)\b", bare)
    assert re.search(r"[-+*/<>=,(]\s*$", bare) is None, "an operator without its right side"
    open_ones: list[str] = []
    for sign in bare:
        if sign in BRACKETS.values():
            open_ones.append(sign)
        elif sign in BRACKETS:
            assert open_ones
            assert open_ones.pop() == BRACKETS[sign]
    assert open_ones == []


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in alerts():
        assert re.fullmatch(r"Palaver[A-Z]\w+", rule["alert"])
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert all(len(rule["annotations"][name]) > 20 for name in ("summary", "description", "action")), rule["alert"]
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())
