"""The home page ``/``, as HTML and as JSON."""

from __future__ import annotations

import re

import pytest
from support.contract import DIALECTS
from support.requests import call

import palaver
from palaver.http.home import home
from palaver.wire.contract import JSON

DIALECTS_THERE = [*DIALECTS.values()]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("accept", [BROWSER, "*/*", "", "text/html, application/json;q=0.5"])
def test_a_browser_gets_an_html_page_with_links(accept: str) -> None:
    reply = home(DIALECTS_THERE, call({"Accept": accept}).headers)
    page = reply.body.decode()
    assert reply.media_type == "text/html; charset=utf-8"
    assert palaver.__version__ in page
    links = set(re.findall(r'href="([^"]+)"', page))
    assert links >= {"docs", "openapi.json", "healthz", "readyz", "metrics"}
    assert links >= {f"docs?dialect={name}" for name in DIALECTS}
    assert not re.search(r"https?://|<script|@import|url[(]", page), "it stands alone"
    headers = dict(reply.headers)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "script-src" not in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_a_client_that_accepts_json_gets_json() -> None:
    reply = home(DIALECTS_THERE, call({"Accept": "application/json"}).headers)
    assert reply.media_type == JSON
    assert b'"name":"palaver"' in reply.body
    for name in DIALECTS:
        assert f'"{name}":['.encode() in reply.body
