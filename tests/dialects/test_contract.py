"""The contract, run for every dialect there is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.adapters import ADAPTERS
from support.contract import (
    DIALECTS,
    Form,
    at_once,
    encoded,
    front,
    one_by_one,
    path,
    problems,
    runs,
)
from support.http_clients import Ask
from support.requests import call

from palaver.core.events import Event
from palaver.core.problems import AnyProblem, Busy, NotFound, Unauthenticated
from palaver.http.router import Router
from palaver.wire.contract import JSON, CurlSample, Dialect, Request, Response, Route
from palaver.wire.settings import COMMON_SETTINGS

ROUTES = [
    pytest.param(dialect, route, id=f"{route.method} {route.path}")
    for dialect in DIALECTS.values()
    for route in dialect.routes
]
FORMS = [pytest.param(form, id=f"{name} {form.name}") for name in DIALECTS for form in ADAPTERS[name].forms]
EACH = [pytest.param(dialect, id=name) for name, dialect in DIALECTS.items()]
PROBLEM = "application/problem+json"
ACCEPTS = ("*/*", "application/json", "text/event-stream", "text/event-stream, application/x-ndjson")


async def answered(dialect: Dialect, ask: Ask, reached: list[str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of what the dialect answers, on a server where nobody has a key."""
    sent: list[Mapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": ask.body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": ask.method,
        "scheme": "http",
        "path": ask.path,
        "raw_path": ask.path.encode(),
        "query_string": b"",
        "headers": [(name.lower(), value) for name, value in ask.raw_headers()],
    }
    application = front(dialect, [] if reached is None else reached)
    await asyncio.create_task(application(scope, receive, send))  # in a context of its own, as a server does it
    head, *rest = sent
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head["headers"]}
    return head["status"], headers, b"".join(message["body"] for message in rest)


def without_chance(body: bytes) -> Any:
    """A reply's document without what is another one in every answer."""
    document = json.loads(body)
    return {name: value for name, value in document.items() if name not in {"traceId", "timestamp", "tid", "trace"}}


def written(reply: Response) -> Any:
    """The one JSON document of a reply, whichever form it has."""
    body = reply.body
    if reply.media_type.startswith("text/event-stream"):
        assert body.endswith(b"\n\n")
        assert body.isascii()
        data = [line.removeprefix(b"data:") for line in body.splitlines() if line.startswith(b"data:")]
        return json.loads(b"".join(data))
    assert reply.media_type in {JSON, PROBLEM}
    assert b"\n" not in body
    assert b"\r" not in body
    return json.loads(body.decode())


# Routes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "route"), ROUTES)
async def test_no_route_is_open_by_accident(dialect: Dialect, route: Route) -> None:
    if route.public:
        pytest.skip("public on purpose")
    for headers in ADAPTERS[dialect.name].wrong_credentials:
        reached: list[str] = []
        ask = Ask(method=route.method, path=path(route), headers=list(headers.items()), body=b"{}")
        status, _, body = await answered(dialect, ask, reached)
        assert reached == []
        assert status < 500
        assert body


def unrouted(dialect: Dialect, absent: NotFound, request: Request, *, public: bool = False) -> Response:
    """What somebody without a credential hears where no route serves the call."""
    closed = dialect.unrouted == "after rate" and not public
    return dialect.refuse(Unauthenticated(reason="missing") if closed else absent, request, None)


@pytest.mark.parametrize(("dialect", "route"), ROUTES)
async def test_another_method_is_refused_in_the_dialects_form(dialect: Dialect, route: Route) -> None:
    taken = {other.method for other in dialect.routes if other.path == route.path}
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - taken:
        status, headers, body = await answered(dialect, Ask(method=method, path=path(route)))
        request = call(method=method, path=path(route))
        expected = unrouted(dialect, NotFound(noun="method", ref=method), request, public=route.public)
        assert (status, without_chance(body)) == (expected.status, without_chance(expected.body))
        if dialect.unrouted != "after rate":
            assert set(headers["allow"].split(", ")) >= taken


@pytest.mark.parametrize("dialect", EACH)
async def test_a_path_below_its_prefixes_that_no_route_serves_is_refused_in_its_form(dialect: Dialect) -> None:
    for prefix in dialect.prefixes:
        ask = Ask(method="GET", path=f"{prefix.rstrip('/')}/no/such/path/there/is")
        status, _, body = await answered(dialect, ask)
        expected = unrouted(dialect, NotFound(noun="route", ref=ask.path), call(method="GET", path=ask.path))
        assert (status, without_chance(body)) == (expected.status, without_chance(expected.body))


@pytest.mark.parametrize(("dialect", "route"), ROUTES)
def test_every_route_lies_below_a_prefix_and_says_what_it_is_for(dialect: Dialect, route: Route) -> None:
    assert route.path.startswith(dialect.prefixes)
    assert route.summary
    match = Router(DIALECTS.values()).match(route.method, path(route))
    assert (match.dialect, match.route) == (dialect, route)


# Problems -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ACCEPTS)
@pytest.mark.parametrize("dialect", EACH)
def test_every_problem_has_a_reply_that_is_one_document_in_one_line(dialect: Dialect, accept: str) -> None:
    for problem in problems():
        reply = dialect.refuse(problem, call({"Accept": accept}), None)
        assert 200 <= reply.status < 600
        assert isinstance(written(reply), dict), problem
        for name, value in reply.headers:
            assert re.fullmatch(r"[A-Za-z-]+", name)
            assert value.isascii()
            assert value.isprintable()


@pytest.mark.parametrize("dialect", EACH)
def test_retry_after_is_a_whole_number_of_seconds_and_every_429_has_it(dialect: Dialect) -> None:
    for problem in problems():
        reply = dialect.refuse(problem, call(), None)
        waits = [value for name, value in reply.headers if name.lower() == "retry-after"]
        lifetime = isinstance(problem, Busy) and problem.reason in {"usage", "full"}
        assert len(waits) == 1 or reply.status != 429 or lifetime, problem
        assert all(re.fullmatch(r"[1-9][0-9]*", wait) for wait in waits), problem


@pytest.mark.parametrize("dialect", EACH)
def test_no_reply_tells_what_is_not_the_callers_business(dialect: Dialect) -> None:
    secret = "postgresql://user:password@host/db"
    for problem in problems():
        if not hasattr(problem, "detail"):
            continue
        problem.__dict__["detail"] = secret
        assert secret.encode() not in dialect.refuse(problem, call(), None).body, type(problem)


# Encoders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@given(events=runs())
def test_an_encoder_survives_any_run(form: Form, events: list[Event]) -> None:
    for read_as in (events, at_once(events), one_by_one(events)):
        writes = encoded(form, read_as)
        assert all(form.read(writes[: at + 1]) for at in range(len(writes)))


@pytest.mark.parametrize("form", FORMS)
@given(events=runs())
def test_a_stream_is_ascii_and_each_of_its_writes_is_one_event(form: Form, events: list[Event]) -> None:
    for write in encoded(form, events):
        assert write, "an empty write"
        assert all(byte <= 0x7E for byte in write)
        assert len(form.read([write])) == 1


@pytest.mark.parametrize("form", FORMS)
@given(events=runs())
def test_the_joined_text_is_the_same_however_the_run_is_cut(form: Form, events: list[Event]) -> None:
    whole, cut = (form.read(encoded(form, read_as)) for read_as in (at_once(events), one_by_one(events)))
    assert "".join(heard.text for heard in whole) == "".join(heard.text for heard in cut)
    assert "".join(heard.thinking for heard in whole) == "".join(heard.thinking for heard in cut)
    assert [heard.whole for heard in whole if heard.last] == [heard.whole for heard in cut if heard.last]


@pytest.mark.parametrize("form", FORMS)
@given(events=runs())
def test_the_last_event_comes_once_and_at_the_end(form: Form, events: list[Event]) -> None:
    heard = form.read(encoded(form, events))
    assert [at for at, one in enumerate(heard) if one.last] == [len(heard) - 1]
    assert all(one.whole is None or one.whole == "".join(other.text for other in heard) for one in heard)


@pytest.mark.parametrize("form", FORMS)
def test_a_heartbeat_is_ascii_and_no_event(form: Form) -> None:
    heartbeat = form.encoder().heartbeat
    assert heartbeat.isascii()
    assert heartbeat.endswith(b"\n")


# Newcomers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", EACH)
@given(random=st.binary(min_size=32, max_size=32))
def test_a_new_credential_is_made_of_its_random_bytes_and_goes_into_a_header(dialect: Dialect, random: bytes) -> None:
    name, secret = dialect.new_credential(random)
    assert (name, secret) == dialect.new_credential(random)
    for text in (name, secret):
        assert re.fullmatch(r"[\x21-\x7e]{8,128}", text)
    assert secret not in name


@pytest.mark.parametrize("dialect", EACH)
def test_two_new_credentials_have_nothing_in_common(dialect: Dialect) -> None:
    made = [dialect.new_credential(bytes(range(at, at + 32))) for at in range(100)]
    assert len({name for name, _ in made}) == len({secret for _, secret in made}) == len(made)


def _in_text(sample: CurlSample, route: Route) -> str:
    """The route's address, whatever stands for its parameters."""
    return re.escape(sample.base_url) + re.sub(r"\\\{\w+\\\}", "[^/ ']+", re.escape(route.path))


@pytest.mark.parametrize("dialect", EACH)
def test_the_curl_sample_names_the_server_a_route_and_the_agent(dialect: Dialect) -> None:
    sample = CurlSample(base_url="http://127.0.0.1:1", id="an-id", secret="a-secret", agent_id=7, agent_uid="a" * 32)
    text = dialect.curl(sample)
    assert re.search(r"^(\w+=\$\()?curl ", text, re.MULTILINE)
    assert any(re.search(_in_text(sample, route), text) for route in dialect.routes)
    assert sample.secret in text
    assert "7" in text or sample.agent_uid in text


@pytest.mark.parametrize("dialect", EACH)
def test_a_credential_has_the_common_settings_and_each_once(dialect: Dialect) -> None:
    names = [setting.name for setting in dialect.settings]
    assert len(names) == len(set(names))
    assert {setting.name for setting in COMMON_SETTINGS} <= set(names)
    assert all(setting.meaning for setting in dialect.settings)


def test_every_dialect_has_its_tests() -> None:
    assert DIALECTS
    for name, adapter in ADAPTERS.items():
        assert adapter.forms, name
        assert adapter.streams, name
        assert adapter.wrong_credentials, name


def test_problems_are_of_every_kind() -> None:
    assert {type(problem) for problem in problems()} == set(AnyProblem.__args__)
