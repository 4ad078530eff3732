"""A request as http hands it to a dialect, made by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping
from uuid import uuid4

from requests import PreparedRequest

from palaver.wire.contract import Headers, Request

NOW = 1_750_000_000.0


def call(
    headers: Mapping[str, str | bytes] | None = None,
    body: bytes = b"",
    *,
    method: str = "POST",
    path: str = "/",
    query: str = "",
    now: float = NOW,
) -> Request:
    pairs = (headers or {}).items()
    raw = [(name.encode("latin-1"), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]
    return Request(
        method=method,
        path=path,
        target=f"{path}?{query}" if query else path,
        headers=Headers(raw),
        route="",
        path_params={},
        body=body,
        now=now,
        trace="0" * 32,
    )


def wire_request(request: PreparedRequest, headers: Mapping[str, str] | None = None) -> Request:
    """The request as the dialect will see it."""
    path, _, query = request.path_url.partition("?")
    body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
    return Request(
        method=request.method or "",
        path=path,
        target=f"{path}?{query}" if query else path,
        headers=Headers([(name.encode(), value.encode()) for name, value in (headers or {}).items()]),
        route=path,
        path_params={},
        body=body,
        now=time.time(),
        trace=uuid4().hex,
    )
