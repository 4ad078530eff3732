"""What a route declares is what it reads and returns."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support.adapters import ADAPTERS
from support.contract import DIALECTS
from support.route_calls import NOTHING, ROUTES, Sender, filled
from support.tenants import World

from palaver.wire.contract import JSON, Route
from palaver.wire.framing import compact_json
from palaver.wire.operation import ResponseSpec

REFUSED = {
    "snail POST /api/snail/chat/session": "the request names no end user",
    "sonaops GET /saas/voice-broadcast/{name}": "the message has no audio",
    "sonaops POST /v1/chat/image": "the agent has no image model",
    "sonaops POST /v1/chat/tts": "the agent has no voice",
    "wps GET /oauth2/auth": "the request has no client",
    "wps POST /oauth2/token": "the request has no grant",
    "xspace GET /api/f/{storage}/{target}/{day}/{name}": "there is no such file",
    "xspace GET /api/v1/chat/{conversationId}/file/": "the path is always refused",
    "xspace POST /api/v1/file/upload": "the request has no file",
}
"""Routes that refuse the request of these tests, with the reason."""
RAW_RESPONSES = {
    "wps GET /oauth2/auth": "a redirect, or a problem page",
    "wps POST /oauth2/token": "OAuth's own JSON, which differs by outcome",
}
"""Routes that return a ``Response`` of their own, with the reason."""
RAW_REQUESTS = {
    "wps GET /oauth2/auth": "answers a wrong query by a redirect",
    "wps POST /oauth2/token": "a form, or OAuth's own JSON",
    "xspace POST /api/v1/file/upload": "a form whose file is not read into memory",
}
"""Routes that parse the request themselves, with the reason."""


def json_responses(route: Route) -> list[ResponseSpec]:
    """The documented JSON success responses."""
    specs = () if route.operation is None else route.operation.responses
    return [spec for spec in specs if spec.media_type == JSON and spec.status < 400]


def shapes(title: str) -> list[Any]:
    """The declared types of the JSON response to these tests' request."""
    dialect, route = ROUTES[title]
    if title in REFUSED:
        info = DIALECTS[dialect].info
        return [] if info is None else [info.refusal]
    return [spec.shape for spec in json_responses(route)]


@pytest.mark.parametrize("title", list(ROUTES))
def test_a_response_is_of_the_declared_type(world: World, send: Sender, title: str) -> None:
    """Decoded as the declared type and encoded again, it has the same bytes: all members are declared, in order."""
    dialect, route = ROUTES[title]
    for probe in ADAPTERS[dialect].id_fields.get(f"{route.method} {route.path}") or ({},):
        world.renew()
        answer = send(route, filled(dict(probe), world.mine, NOTHING, None))
        if (answer.header("Content-Type") or "").partition(";")[0] != JSON:
            assert answer.status < 400, answer.body
            continue
        value = msgspec.json.decode(answer.body, type=shapes(title)[0])
        if route.response is not None:
            assert compact_json(value) == answer.body


@pytest.mark.parametrize("title", list(ROUTES))
def test_a_route_declares_its_response(title: str) -> None:
    _, route = ROUTES[title]
    if title in RAW_RESPONSES:
        return
    assert route.response is not None
    assert {spec.shape for spec in json_responses(route)} <= {route.response.shape}
    assert (route.response.shape is None) == (not json_responses(route))


@pytest.mark.parametrize("title", list(ROUTES))
def test_a_documented_request_is_a_declared_one(title: str) -> None:
    _, route = ROUTES[title]
    assert route.operation is not None
    specs = (route.operation.body, route.operation.query)
    documented = {spec.shape for spec in specs if spec is not None and spec.shape is not None}
    if title not in RAW_REQUESTS:
        assert documented == (set() if route.request is None else {route.request.shape})
