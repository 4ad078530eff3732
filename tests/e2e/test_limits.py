"""Limits on what callers can make a server hold, each against a real process whose memory is measured."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests
from support.server_process import Installation, installed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

MIB = 2**20
FILES = "/palaver/v1/files"


@pytest.fixture(scope="module")
def place() -> Generator[Installation]:
    limits = {
        "PALAVER_MAX_UNVERIFIED_CONNECTIONS": "40",
        "PALAVER_WRITE_TIMEOUT_S": "3",
        "PALAVER_HEAD_TIMEOUT_S": "60",
    }
    with installed(True, PALAVER_DEMO="false", **limits) as installation:
        installation.start()
        yield installation


@pytest.fixture(scope="module")
def secret(place: Installation) -> str:
    return place.json("key", "create", "--app", "demo", "--dialect", "native")["secret"]


def rss(place: Installation, what: str = "VmRSS") -> float:
    """MiB of the server's process: now, or (``VmHWM``) at most since it was asked to forget."""
    assert place.server is not None
    status = Path(f"/proc/{place.server.pid}/status").read_text()
    return int(re.findall(rf"{what}:\s+(\d+) kB", status)[0]) / 1024


def forget_peak(place: Installation) -> float:
    assert place.server is not None
    Path(f"/proc/{place.server.pid}/clear_refs").write_text("5")
    return rss(place)


def dial(place: Installation, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", place.port), timeout=10)
    connection.sendall(sent)
    return connection


def headers(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", "X-User-ID": "ann"}


def test_an_upload_without_a_credential_is_refused_before_its_body(place: Installation) -> None:
    before = forget_peak(place)
    lines = (
        f"POST {FILES} HTTP/1.1",
        "Host: x",
        "Authorization: Bearer pv-none",
        f"Content-Length: {100 * MIB}",
        "",
        "",
    )
    head = "\r\n".join(lines).encode()
    with ExitStack() as open_connections:
        for _ in range(12):
            connection = open_connections.enter_context(dial(place, head))
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401")
            with suppress(OSError):
                connection.settimeout(2)
                connection.sendall(bytes(8 * MIB))
        assert rss(place, "VmHWM") - before < 30


def test_an_upload_and_a_download_cost_little_of_their_size(place: Installation, secret: str) -> None:
    before = forget_peak(place)
    content = bytes(range(256)) * (60 * MIB // 256)
    made = requests.post(f"{place.url}{FILES}?name=big", data=content, headers=headers(secret), timeout=60)
    assert made.status_code == 201, made.text
    assert rss(place, "VmHWM") - before < 40
    address = f"{place.url}{made.headers['Location']}"
    assert requests.get(address, headers=headers(secret), timeout=60).content == content
    assert rss(place, "VmHWM") - before < 40


def test_readers_of_a_file_that_read_nothing_are_ended(place: Installation, secret: str) -> None:
    content = bytes(30 * MIB)
    made = requests.post(f"{place.url}{FILES}?name=big", data=content, headers=headers(secret), timeout=60)
    before = forget_peak(place)
    lines = (f"GET {made.headers['Location']} HTTP/1.1", "Host: x", *map(": ".join, headers(secret).items()), "", "")
    ask = "\r\n".join(lines)
    with ExitStack() as open_connections:
        readers = [open_connections.enter_context(dial(place, ask.encode())) for _ in range(8)]
        until = time.monotonic() + 20
        while place.log.read_text().count("client too slow") < len(readers) and time.monotonic() < until:
            time.sleep(0.2)
        assert place.log.read_text().count("client too slow") >= len(readers)
        assert rss(place, "VmHWM") - before < 40


def test_nothing_more_is_read_for_a_reader_who_has_left(place: Installation, secret: str) -> None:
    made = requests.post(f"{place.url}{FILES}?name=big", data=bytes(60 * MIB), headers=headers(secret), timeout=60)
    lines = (f"GET {made.headers['Location']} HTTP/1.1", "Host: x", *map(": ".join, headers(secret).items()), "", "")
    tasks, statements = figure(place, "palaver_tasks"), figure(place, "palaver_statements_total")
    for _ in range(4):
        with dial(place, "\r\n".join(lines).encode()) as reader:
            assert reader.recv(64).startswith(b"HTTP/1.1 200")
    until = time.monotonic() + 20
    while figure(place, "palaver_tasks") > tasks:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert figure(place, "palaver_statements_total") - statements < 4 * 120  # a whole file takes 240


def test_heads_behind_an_answer_that_is_not_read_are_not_taken(place: Installation) -> None:
    before = forget_peak(place)
    heads = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
    with ExitStack() as open_connections:
        for _ in range(8):
            connection = open_connections.enter_context(dial(place))
            connection.settimeout(0.2)
            with suppress(OSError):
                for _ in range(50):
                    connection.sendall(heads)
        assert rss(place, "VmHWM") - before < 60


def test_sockets_that_drip_lock_nobody_out(place: Installation, secret: str) -> None:
    with ExitStack() as open_connections:
        for number in range(240):
            sent = (b"GET / HT", b"POST /snail-ai/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", b"")[number % 3]
            open_connections.enter_context(dial(place, sent))
            if number % 40 == 0:
                assert requests.get(f"{place.url}/palaver/v1/agents", headers=headers(secret), timeout=5).ok
        assert requests.get(f"{place.url}/palaver/v1/agents", headers=headers(secret), timeout=5).ok
        until = time.monotonic() + 5
        while figure(place, "palaver_unverified_connections") > 40:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert figure(place, "palaver_evicted_connections_total") >= 190


def figure(place: Installation, name: str) -> float:
    figures = requests.get(f"{place.url}/metrics", timeout=5).text
    return float(re.findall(rf"^{name} (\S+)", figures, re.MULTILINE)[0])


def test_a_connection_outlives_any_number_that_come_behind_it(place: Installation, secret: str) -> None:
    with ExitStack() as open_connections:
        first = open_connections.enter_context(dial(place))
        for _ in range(200):
            open_connections.enter_context(dial(place))
        lines = ("GET /palaver/v1/agents HTTP/1.1", "Host: x", *map(": ".join, headers(secret).items()), "", "")
        first.sendall("\r\n".join(lines).encode())
        assert first.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_stream_of_a_credential_that_is_disabled_ends_and_its_run_goes_on(place: Installation) -> None:
    agent = place.agent('---\nname: slow\nmodel: scripted\n---\n[{"text": "so far"}, {"wait": 4}, {"text": ", done"}]')
    key = place.key()
    with place.chat(key["secret"], agent["id"]) as response:
        pieces = response.iter_content(None)
        next(pieces)
        place.palaver("key", "disable", key["id"])
        begun = time.monotonic()
        with suppress(requests.RequestException):
            for _ in pieces:
                pass
        assert time.monotonic() - begun < 2
    until = time.monotonic() + 10
    while "palaver_live_runs 0" not in requests.get(f"{place.url}/metrics", timeout=5).text:
        assert time.monotonic() < until
        time.sleep(0.1)
    figures = requests.get(f"{place.url}/metrics", timeout=5).text
    assert re.search(r'runs_ended_total\{[^}]*status="complete"', figures)


def test_who_only_waits_for_an_answer_ends_when_its_caller_leaves(place: Installation, secret: str) -> None:
    agent = place.agent('---\nname: later\nmodel: scripted\n---\n[{"wait": 6}, {"text": "done"}]')
    body = {"agent": agent["id"], "content": "hi"}
    with pytest.raises(requests.Timeout):
        requests.post(f"{place.url}/palaver/v1/messages", json=body, headers=headers(secret), timeout=1)
    until = time.monotonic() + 3
    while not re.search(r'"status": 499', place.log.read_text()):
        assert time.monotonic() < until, place.log.read_text()[-2000:]
        time.sleep(0.05)
    assert "palaver_live_runs 0" not in requests.get(f"{place.url}/metrics", timeout=5).text


def test_nothing_of_this_stalled_the_server(place: Installation) -> None:
    assert "event loop stalled" not in place.log.read_text()
