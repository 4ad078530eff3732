"""The log: every request can be found in it, and nothing in it grants access."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from requests import PreparedRequest, Request
from support.adapters import ADAPTERS
from support.contract import DIALECTS
from support.server_process import Installation, installed

from palaver.core.types import ApiKey
from palaver.wire.contract import Route

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

MARK = "5ec2e7MARK5ec2e7"
SIGNED = f"http://ann:{MARK}@127.0.0.1:9/{MARK}/menu.txt?X-Amz-Signature={MARK}#{MARK}"
QUERY = "&".join(f"{name}={MARK}" for name in ("ak", "token", "code", "sig", "fileUrl", "state", "client_secret"))
BODY: dict[str, Any] = {
    "agentId": 1,
    "openId": MARK,
    "externalId": MARK,
    "content": MARK,
    "message": MARK,
    "text": MARK,
    "topic": MARK,
    "title": MARK,
    "name": MARK,
    "query": MARK,
    "client_secret": MARK,
    "files": [SIGNED],
    "attachments": [{"fileKey": f"local/x/20260101/{MARK}", "fileUrl": SIGNED, "fileName": "menu.txt"}],
    "variables": {},
}
EVERYWHERE = {"Cookie": f"session={MARK}", "X-Api-Key": MARK, "Referer": SIGNED, "Content-Type": "application/json"}
WRONG: dict[str, tuple[dict[str, str], ...]] = {
    "native": ({"Authorization": f"Bearer pv-{MARK}"}, {"Authorization": f"Basic {MARK}"}),
    "snail": (
        {"Snail-Ai-Auth": f"SAI_{MARK}", "Snail-Ai-App-Id": f"SAI_{MARK}", "Snail-Ai-Token": MARK},
        {"Snail-Ai-Auth": f"eyJhbGciOiJIUzI1NiJ9.{MARK}.{MARK}"},
    ),
    "sonaops": ({"Authorization": f"Bearer {MARK}", "X-Signature": MARK},),
    "wps": (
        {"X-Kso-Date": "now", "X-Kso-Authorization": f"KSO-1 {MARK}:{MARK}"},
        {"Authorization": f"Bearer {MARK}"},
    ),
    "xspace": ({"Authorization": f"Bearer ak-{MARK}"}, {"Authorization": f"ak-{MARK}"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request that was answered, by the id it was sent with."""

    dialect: str
    route: str
    answer: requests.Response


@pytest.fixture(scope="module")
def place() -> Generator[Installation]:
    with installed(True, PALAVER_DEMO="false") as place:
        place.start()
        yield place


@pytest.fixture(scope="module")
def keys(place: Installation) -> dict[str, ApiKey]:
    place.agent("---\nname: echo\nmodel: scripted\n---\n")
    made: dict[str, ApiKey] = {}
    for name in DIALECTS:
        more = ["--set=kind=agent", "--set=agent=echo"] if name == "xspace" else []
        said = place.json("key", "create", "--app", "demo", "--dialect", name, *more)
        made[name] = ApiKey(
            app=1, number=1, dialect=name, id=said["id"], secret=said["secret"], enabled=True, settings={}
        )
    return made


def prepared(place: Installation, method: str, path: str, request: str) -> PreparedRequest:
    body = b"" if method == "GET" else json.dumps(BODY).encode()
    headers = {**EVERYWHERE, "X-Request-ID": request}
    return Request(method, f"{place.url}{path}?{QUERY}", headers=headers, data=body).prepare()


def filled(route: Route) -> str:
    """A path of the route: with the mark where the path is worth a credential."""
    return re.sub(r"\{\w+\}", MARK if route.secret_path else "7", route.path)


def walk(place: Installation, keys: dict[str, ApiKey]) -> Iterator[Sent]:
    """Every route of every dialect, and paths and methods that none serves, with every credential, good and bad."""
    numbers = iter(range(10_000))
    with requests.Session() as session:
        for name, dialect in DIALECTS.items():
            places = [(route.method, filled(route), route.path) for route in dialect.routes]
            places += [("GET", f"{prefix}{MARK}", "") for prefix in dialect.prefixes]
            places += [("PATCH", filled(dialect.routes[0]), dialect.routes[0].path)]
            for method, path, route in places:
                for wrong in (None, {}, *WRONG[name]):
                    request = prepared(place, method, path, f"req-{next(numbers)}")
                    proof = ADAPTERS[name].sign(keys[name], request) if wrong is None else wrong
                    request.headers.update(proof)
                    answer = session.send(request, timeout=15, allow_redirects=False)
                    yield Sent(dialect=name, route=route, answer=answer)


def logged(place: Installation, count: int, **members: Any) -> list[dict[str, Any]]:
    """The lines that have these members, as soon as there are so many: a line follows its answer."""
    until = time.monotonic() + 5
    while True:
        lines = [json.loads(line) for line in place.log.read_text().splitlines() if line.startswith("{")]
        found = [line for line in lines if members.items() <= line.items()]
        if len(found) >= count or time.monotonic() > until:
            return found
        time.sleep(0.02)


def test_no_route_of_any_dialect_logs_what_opens_anything_and_every_request_is_found_by_its_id(
    place: Installation, keys: dict[str, ApiKey]
) -> None:
    sent = list(walk(place, keys))
    assert {one.route for one in sent} >= {route.path for dialect in DIALECTS.values() for route in dialect.routes}
    ids = [one.answer.request.headers["X-Request-ID"] for one in sent]
    assert [one.answer.headers["X-Request-ID"] for one in sent] == ids
    lines = logged(place, len(ids), event="request")
    assert [line["request_id"] for line in lines] == ids
    text = place.log.read_text()
    found = sorted({line for line in text.splitlines() if MARK.lower() in line.lower()})
    assert found == []
    assert "Traceback" not in text


def test_a_refused_secret_names_its_credential_and_an_envelope_its_line(
    place: Installation, keys: dict[str, ApiKey]
) -> None:
    key = keys["wps"]
    bad = {"X-Kso-Date": "now", "X-Kso-Authorization": f"KSO-1 {key.id}:0", "X-Request-ID": "wrong-signature"}
    requests.get(f"{place.url}/v7/devhub/app/x/detail", headers=bad, timeout=15)
    refused = logged(place, 2, request_id="wrong-signature")
    assert [(line["event"], line["key"]) for line in refused] == [("request refused", key.id), ("request", key.id)]
    tid = requests.get(f"{place.url}/api/v1/none", timeout=15).json()["tid"]
    assert [line["event"] for line in logged(place, 2, tid=tid)] == ["request refused", "request"]
    answer = requests.get(f"{place.url}/v1/none", timeout=15)
    trace = answer.json()["traceId"]
    lines = logged(place, 2, traceId=trace)
    assert [line["event"] for line in lines] == ["request refused", "request"]
    assert {line["trace"] for line in lines} == {answer.headers["X-Request-ID"]}
    assert "request_id" not in lines[0]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/none", "/v1/x"])
def test_every_answer_has_a_request_id_the_callers_own_where_it_has_one(
    place: Installation, method: str, path: str
) -> None:
    made = requests.request(method, place.url + path, timeout=15).headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    for own, back in (("a b-1", "a b-1"), ("x" * 128, "x" * 128)):
        assert (
            requests.request(method, place.url + path, headers={"X-Request-ID": own}, timeout=15).headers[
                "X-Request-ID"
            ]
            == back
        )
    odd = requests.request(method, place.url + path, headers={"X-Request-ID": "x" * 129}, timeout=15)
    assert re.fullmatch("[0-9a-f]{32}", odd.headers["X-Request-ID"])


def test_a_request_that_follows_on_its_connection_has_nothing_of_the_one_before(
    place: Installation, keys: dict[str, ApiKey]
) -> None:
    """Also where both came at once, and the second begins while the first ends."""
    first = (
        f"GET /api/v1/none HTTP/1.1\r\nHost: x\r\nAuthorization: {keys['xspace'].secret}\r\nX-Request-ID: one\r\n\r\n"
    )
    second = "GET /palaver/v1/pipelined HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", place.port), timeout=15) as connection:
        connection.sendall((first + second).encode())
        while connection.recv(65_536):
            pass
    (line,) = logged(place, 1, event="request", path="/palaver/v1/pipelined")
    assert not {"key", "request_id", "tid"} & line.keys()


def test_a_server_that_is_not_ready_says_which_part_and_no_more() -> None:
    with installed(True, PALAVER_DEMO="false") as place:
        place.start()
        postgres = [process for process in place.left() if process.name().startswith("postgres")]
        for process in postgres:
            process.suspend()
        try:
            answer = requests.get(f"{place.url}/readyz", timeout=15)
        finally:
            for process in postgres:
                process.resume()
        assert answer.status_code == 503
        assert answer.json() == {"status": "not ready", "reason": "the database does not answer"}
        line, *_ = logged(place, 1, event="not ready")
        assert (line["part"], line["level"]) == ("database", "warning")


def test_on_a_terminal_a_request_s_line_begins_with_what_one_looks_for() -> None:
    with installed(True, PALAVER_DEMO="false", PALAVER_LOG_FORMAT="console") as place:
        place.start()
        requests.get(f"{place.url}/v7/none?token={MARK}", timeout=15)
        until = time.monotonic() + 5
        while "GET /v7" not in (text := place.log.read_text()) and time.monotonic() < until:
            time.sleep(0.02)
    assert re.search(r"^\S+ \[info +\] GET /v7/none 404 [0-9.]+ ms +\S*trace=", text, re.MULTILINE), text
    assert MARK not in text


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/chat HTTP/1.1\r\n\r\n",
        b"GET /v1/chat HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /v7/é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        b"GET /palaver/v1/x HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_can_hardly_be_read_is_answered_with_a_request_id_too(place: Installation, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", place.port), timeout=15) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    assert re.search(rb"(?i)\r\nx-request-id: ?[0-9a-f]{32}\r\n", answer.partition(b"\r\n\r\n")[0] + b"\r\n"), answer
