"""Every route counts its calls against the limits of whose credential they are made with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dialects.snail import client_b as snail_b
from dialects.snail import client_c as snail_c
from dialects.wps.test_tokens import exchange
from requests import Request
from support.adapters import ADAPTERS
from support.contract import path
from support.http_clients import Answer, Ask
from support.live_server import Served

from palaver.app import all_dialects
from palaver.core.types import ApiKey
from palaver.wire.contract import Route

ROUTES = [
    pytest.param(dialect.name, route, id=f"{dialect.name} {route.method} {route.path}")
    for dialect in all_dialects()
    for route in dialect.routes
    if not route.public
]
NOBODYS = {
    "/saas/voice-broadcast/{name}",
    "/api/logo/agent/{name}",
    "/palaver/v1/problems",
    "/api/snail/chat/config",
    "/oauth2/auth",
}
"""Routes of which callers show no credential."""


def counted(served: Served, key: ApiKey) -> int:
    rows = served.sql("SELECT minute_count FROM usage WHERE credential = $1", key.number)
    return rows[0]["minute_count"] if rows else 0


@pytest.mark.parametrize(("dialect", "route"), ROUTES)
def test_a_call_counts_on_every_route(served: Served, dialect: str, route: Route) -> None:
    agent = served.agent("hi")
    key = served.key(dialect, rpm=1000, **ADAPTERS[dialect].key_settings(agent))
    body = None if route.method in {"GET", "HEAD", "DELETE"} else b"{}"
    headers = {} if body is None else {"Content-Type": "application/json"}
    request = Request(route.method, served.base_url + path(route), headers=headers, data=body).prepare()
    request.headers.update(ADAPTERS[dialect].sign(key, request))
    sent = [(name, value) for name, value in request.headers.items() if name != "Content-Length"]
    served.ask(Ask(method=route.method, path=path(route), headers=sent, body=body or b""))
    assert counted(served, key) == 1


def _oauth(served: Served) -> tuple[ApiKey, Callable[[], Answer]]:
    key = served.key("wps", rpm=1)
    return key, lambda: exchange(served, key, grant_type="client_credentials")


def _session(served: Served) -> tuple[ApiKey, Callable[[], Answer]]:
    key = served.key("snail", rpm=1, auto_register=True)
    page = snail_c.Browser(served, None)
    return key, lambda: page.post(snail_c.SESSION, openId="ann", trustedCredential=snail_c.token(key, "ann"))


def _session_without_proof(served: Served) -> tuple[ApiKey, Callable[[], Answer]]:
    key = served.key("snail", application=served.new_name("open"), rpm=2, open_sessions=True)
    user = snail_b.Caller(served, key).register()
    page = snail_c.Browser(served, None)
    return key, lambda: page.post(snail_c.SESSION, openId=user)


PROVEN_IN_THE_BODY = {"/oauth2/token": (_oauth,), snail_c.SESSION: (_session, _session_without_proof)}


def test_every_public_route_is_known() -> None:
    public = {route.path for dialect in all_dialects() for route in dialect.routes if route.public}
    assert public == NOBODYS | set(PROVEN_IN_THE_BODY)


@pytest.mark.parametrize("calls", [call for calls in PROVEN_IN_THE_BODY.values() for call in calls])
def test_a_call_counts_whose_credential_is_in_its_body(
    served: Served, calls: Callable[[Served], tuple[ApiKey, Callable[[], Answer]]]
) -> None:
    key, call = calls(served)
    before = counted(served, key)
    assert call().status == 200
    assert counted(served, key) == before + 1
    refused = call()
    assert refused.status == 429
    assert 0 < int(refused.header("Retry-After") or 0) <= 60
    assert counted(served, key) == before + 1
    served.do(served.core.store.keys.delete(key))
