"""A well-behaved caller is served while others overload the server."""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from support.server_process import Installation, installed, lines

from bench.machine import Slowness

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PIECE = "".join(random.Random(1).choices("abcdefghij klmnop", k=8192))
LONG = f"---\nname: long\nmodel: scripted\n---\n- repeat: {{text: '{PIECE}', times: 128, every: 0.06}}\n- wait: 2\n"
QUICK = "---\nname: quick\nmodel: scripted\n---\n- text: hi\n"


@pytest.fixture
def place() -> Generator[Installation]:
    with installed(True) as installation:
        installation.start()
        yield installation


def live_runs(place: Installation) -> int:
    figures = requests.get(f"{place.url}/metrics", timeout=5).text.splitlines()
    return int(float(next(line for line in figures if line.startswith("palaver_live_runs ")).split()[1]))


def test_two_hundred_live_answers_of_a_megabyte_slow_nobody_down(place: Installation) -> None:
    secret, long, quick = place.key()["secret"], place.agent(LONG)["id"], place.agent(QUICK)["id"]
    assert place.server is not None
    process = psutil.Process(place.server.pid)
    before = process.memory_info().rss
    with ThreadPoolExecutor(10) as threads:
        begun = [threads.submit(place.chat, secret, long, openId=f"long-{number}") for number in range(200)]
        for one in begun:
            one.result().close()
    assert live_runs(place) == 200
    slowest, largest, machine = 0.0, 0, Slowness()
    while live_runs(place) > 20:
        asked = time.monotonic()
        assert list(lines(place.chat(secret, quick, openId="quick")))[-1]["fullText"] == "hi"
        slowest = max(slowest, time.monotonic() - asked)
        largest = max(largest, process.memory_info().rss - before)
        machine.look()
        time.sleep(0.05)
    assert slowest < machine.times, "as many times longer as a computation took beside the other tests"
    assert largest < 150 * 1024 * 1024
