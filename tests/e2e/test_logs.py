"""The log: every request can be found in it, and nothing in it grants access."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
import requests
from requests import PreparedRequest, Request
from support.adapters import ADAPTERS
from support.contract import DIALECTS
from support.requests import call
from support.server_process import Installation, installed

from palaver.core.types import Agent, AgentSpec, ApiKey
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
each_dialect = pytest.mark.parametrize("name", list(DIALECTS))


@pytest.fixture(scope="module")
def place() -> Generator[Installation]:
    with installed(True, PALAVER_DEMO="false") as place:
        place.start()
        yield place


@pytest.fixture(scope="module")
def keys(place: Installation) -> dict[str, ApiKey]:
    made = place.agent("---\nname: echo\nmodel: scripted\n---\n")
    now, spec = datetime.now(UTC), AgentSpec(name="echo", model="scripted")
    agent = Agent(app=1, id=made["id"], uid=UUID(made["uid"]), spec=spec, created=now, modified=now)
    keys: dict[str, ApiKey] = {}
    for name, adapter in ADAPTERS.items():
        settings = [f"--set={setting}={json.dumps(value)}" for setting, value in adapter.key_settings(agent).items()]
        created = place.json("key", "create", "--app", "demo", "--dialect", name, *settings)
        keys[name] = ApiKey(
            app=1, number=1, dialect=name, id=created["id"], secret=created["secret"], enabled=True, settings={}
        )
    return keys


def prepared(place: Installation, method: str, path: str, request: str) -> PreparedRequest:
    body = b"" if method == "GET" else json.dumps(BODY).encode()
    headers = {**EVERYWHERE, "X-Request-ID": request}
    return Request(method, f"{place.url}{path}?{QUERY}", headers=headers, data=body).prepare()


def filled(route: Route) -> str:
    """A path of the route: with the mark where the path is worth a credential."""
    return re.sub(r"\{\w+\}", MARK if route.secret_path else "7", route.path)


def requests_of(place: Installation, name: str, key: ApiKey) -> Iterator[PreparedRequest]:
    """Every route of a dialect, and paths and methods that none serves, with every credential, good and bad."""
    dialect, numbers = DIALECTS[name], itertools.count()
    targets = [(route.method, filled(route)) for route in dialect.routes]
    targets += [("GET", f"{prefix}{MARK}") for prefix in dialect.prefixes]
    targets += [("PATCH", filled(dialect.routes[0]))]
    for method, path in targets:
        for wrong in (None, dict[str, str](), *ADAPTERS[name].credentials_with(MARK)):
            request = prepared(place, method, path, f"{name}-{next(numbers)}")
            request.headers.update(ADAPTERS[name].sign(key, request) if wrong is None else wrong)
            yield request


def logged(place: Installation, count: int, **members: Any) -> list[dict[str, Any]]:
    """The lines that have these members, as soon as there are so many: a line follows its answer."""
    until = time.monotonic() + 5
    while True:
        lines = [json.loads(line) for line in place.log.read_text().splitlines() if line.startswith("{")]
        found = [line for line in lines if members.items() <= line.items()]
        if len(found) >= count or time.monotonic() > until:
            return found
        time.sleep(0.02)


@each_dialect
def test_no_route_of_a_dialect_logs_what_opens_anything_and_every_request_is_found_by_its_id(
    place: Installation, keys: dict[str, ApiKey], name: str
) -> None:
    ids: list[str] = []
    with requests.Session() as session:
        for request in requests_of(place, name, keys[name]):
            ids.append(str(request.headers["X-Request-ID"]))
            response = session.send(request, timeout=15, allow_redirects=False)
            assert response.headers["X-Request-ID"] == ids[-1]
    assert len(ids) > 2 * len(DIALECTS[name].routes)
    logged(place, 1, event="request", request_id=ids[-1])
    lines = [line["request_id"] for line in logged(place, len(ids), event="request") if "request_id" in line]
    assert [request_id for request_id in lines if request_id in set(ids)] == ids
    text = place.log.read_text()
    assert sorted({line for line in text.splitlines() if MARK.lower() in line.lower()}) == []
    assert "Traceback" not in text


@each_dialect
def test_a_refused_secret_names_its_credential_where_the_request_has_its_id(
    place: Installation, keys: dict[str, ApiKey], name: str
) -> None:
    key, forged = keys[name], msgspec.structs.replace(keys[name], secret="x" * 32)
    for number, route in enumerate(route for route in DIALECTS[name].routes if not route.public):
        request = prepared(place, route.method, filled(route), f"forged-{name}-{number}")
        headers = ADAPTERS[name].sign(forged, request)
        request.headers.update(headers)
        requests.Session().send(request, timeout=15, allow_redirects=False)
        lines = logged(place, 2, request_id=f"forged-{name}-{number}")
        assert [line["event"] for line in lines] == ["request refused", "request"]
        logged_ids = {line.get("key") for line in lines}
        assert logged_ids == {key.id} or (
            logged_ids == {None} and not any(key.id in value for value in headers.values())
        )


@each_dialect
def test_an_answer_names_its_lines(place: Installation, name: str) -> None:
    """By ``X-Request-ID`` and, if the vendor's refusals have ids of the request, by each of them."""
    response = requests.get(f"{place.url}{DIALECTS[name].prefixes[0]}none", timeout=15)
    lines = logged(place, 2, trace=response.headers["X-Request-ID"])
    assert [line["event"] for line in lines] == ["request refused", "request"]
    assert "request_id" not in lines[0]
    trace_fields = DIALECTS[name].trace_fields
    for field in () if trace_fields is None else trace_fields(call()):
        assert logged(place, 2, **{field: response.json()[field]}) == lines


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


@each_dialect
def test_a_request_that_follows_on_its_connection_has_nothing_of_the_one_before(
    place: Installation, keys: dict[str, ApiKey], name: str
) -> None:
    """Also where both came at once, and the second begins while the first ends."""
    first = prepared(place, "GET", f"{DIALECTS[name].prefixes[0]}none", f"first-{name}")
    first.headers.update(ADAPTERS[name].sign(keys[name], first))
    headers = "".join(f"{header}: {value}\r\n" for header, value in first.headers.items())
    second = f"GET /pipelined/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", place.port), timeout=15) as connection:
        connection.sendall(f"GET {first.path_url} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{second}".encode())
        while connection.recv(65_536):
            pass
    assert len(logged(place, 1, event="request", request_id=f"first-{name}")) == 1
    (line,) = logged(place, 1, event="request", path=f"/pipelined/{name}")
    fields = DIALECTS[name].trace_fields
    assert not {"key", "request_id", *(() if fields is None else fields(call()))} & line.keys()


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
