"""The order in which a dialect checks a call: a valid call, and the faults that it may have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from support.http_clients import Answer, Ask
from support.live_server import Served

from palaver.core.types import ApiKey

MAX_BODY_BYTES = 2000
TOO_LARGE = b'{"agentId":"' + b"x" * MAX_BODY_BYTES + b'"}'
EXPIRED = "2020-01-01T00:00:00Z"
Call = dict[str, Any]
"""A call: ``method``, ``path``, ``body``, ``header NAME``, and of its credential ``key`` (``None``: not sent, else
what stands in its place), ``user token``, ``enabled``, ``used up`` and ``setting NAME``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of a call: what it changes, and the response. ``None`` at the end of a response is not compared."""

    name: str
    changes: Call
    response: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOrder:
    """The checks of a dialect, or of one of its surfaces, in the order in which they have to be made."""

    name: str
    valid_call: Callable[[Served], Call]
    faults: Sequence[Fault]
    """In the order of their checks."""
    request: Callable[[Served, ApiKey, Call], Ask]
    summary: Callable[[Answer], tuple[Any, ...]]
    """What is compared of a response."""


def fault(name: str, *response: Any, **changes: Any) -> Fault:
    """``__`` in the name of a change stands for a space."""
    return Fault(
        name=name, changes={each.replace("__", " "): value for each, value in changes.items()}, response=response
    )


def body_of(call: Call) -> bytes:
    body = call["body"]
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def headers_of(call: Call) -> dict[str, Any]:
    return {name.removeprefix("header "): value for name, value in call.items() if name.startswith("header ")}


def with_secret(header: str, scheme: str = "Bearer ") -> Callable[[Served, ApiKey, Call], Ask]:
    """Requests of a dialect whose credential is its secret in one header."""

    def request(_served: Served, key: ApiKey, call: Call) -> Ask:
        headers = headers_of(call)
        if (secret := call.get("key", key.secret)) is not None:
            headers[header] = f"{scheme}{secret}"
        return Ask(method=call["method"], path=call["path"], headers=list(headers.items()), body=body_of(call))

    return request
