"""Documents made to stop a server: other callers do not notice, and shutdown is not delayed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import psutil
import pytest
import requests
from support.server_process import Installation, installed

pytestmark = pytest.mark.e2e

KILOBYTES = 920
SHAPES = {
    "lists.html": "<ul><li>x",
    "tables.html": "<table><tr><td><p>x</p>",
    "attributes.html": "<p " + " ".join(f"a{number}" for number in range(150_000)),
    "paragraphs.html": "<p>x",
    "emphasis.html": "".join(f"<b id={number}>" for number in range(1900)) + "<p>x",
    "entities.html": "&amp;&lt;",
}
SLOWEST = 1.0
"""Seconds that a healthy caller's call may take."""


class Caller:
    """Somebody of an application of their own."""

    def __init__(self, on: Installation, name: str) -> None:
        self.on = on
        self.agent = on.agent("---\nname: quick\nmodel: scripted\n---\nok", app=name)["uid"]
        self.secret = on.key(name, "native")["secret"]

    def post(self, path: str, user: str, **more: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.secret}", "X-User-ID": user, "Content-Type": "text/html"}
        url = f"{self.on.url}/palaver/v1/{path}"
        return requests.post(url, headers=headers, timeout=60, **more)  # pyright: ignore[reportArgumentType]

    def say(self, user: str, *files: str) -> requests.Response:
        body = {"agent": self.agent, "content": "hi", "files": files}
        return self.post("messages", user, data=json.dumps(body))

    def upload(self, user: str, name: str, content: bytes) -> str:
        return self.post(f"files?name={name}", user, data=content).json()["key"]


@pytest.fixture
def server() -> Iterator[Installation]:
    with installed(True, PALAVER_DRAIN_S="5") as on:
        on.start()
        yield on


def contents() -> dict[str, bytes]:
    size = KILOBYTES * 1024
    return {name: (piece * (1 + size // len(piece)))[:size].encode() for name, piece in SHAPES.items()}


def readers(on: Installation) -> list[psutil.Process]:
    assert on.server is not None
    return [one for one in psutil.Process(on.server.pid).children() if "palaver.knowledge.worker" in one.cmdline()]


def test_nobody_waits_for_somebody_elses_documents(server: Installation) -> None:
    hostile, healthy = Caller(server, "hostile"), Caller(server, "healthy")
    users = [f"user-{number}" for number in range(4)]
    files = {user: [hostile.upload(user, name, content) for name, content in contents().items()] for user in users}
    with ThreadPoolExecutor(len(users)) as threads:
        attacks = [threads.submit(hostile.say, user, *files[user]) for user in users]
        slowest, calls = 0.0, 0
        while not all(attack.done() for attack in attacks):
            begun = time.monotonic()
            note = healthy.upload("ann", "note.html", b"<p>A note.")
            answer = healthy.say("ann", note).json()["answer"]
            slowest, calls = max(slowest, (time.monotonic() - begun) / 2), calls + 1
            assert [part["type"] for part in answer["parts"]] == ["text"]
            assert requests.get(f"{server.url}/healthz", timeout=SLOWEST).ok
    assert calls > 2
    assert slowest < SLOWEST
    for attack in attacks:
        answer = attack.result().json()["answer"]
        assert answer["status"] == "complete"
        unread = {part["name"]: part["problem"] for part in answer["parts"] if part["type"] == "file"}
        assert {"lists.html", "tables.html", "attributes.html"} <= unread.keys()


def test_the_server_ends_while_documents_are_read(server: Installation) -> None:
    caller = Caller(server, "hostile")
    file = caller.upload("ann", "p.html", ("<p>x" * 4_000_000).encode())
    with ThreadPoolExecutor(1) as threads:
        said: Future[requests.Response] = threads.submit(caller.say, "ann", file)
        wait_until_reading(server)
        reading = readers(server)
        assert server.stop() < 5 + 3
        said.exception()
    assert not any(process.is_running() for process in reading)


def wait_until_reading(on: Installation) -> None:
    end = time.monotonic() + 10
    while not readers(on) and time.monotonic() < end:
        time.sleep(0.02)
    assert readers(on)
