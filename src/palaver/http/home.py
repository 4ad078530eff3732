"""The home page ``/``: links to documentation, health checks and metrics, and the list of dialects."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import palaver
from palaver.wire.contract import Dialect, Headers, Response
from palaver.wire.framing import compact_json

_LINKS = (
    ("docs", "The API, to read and to try out"),
    ("openapi.json", "The same for programs: OpenAPI 3.1"),
    ("healthz", "Whether the process is alive"),
    ("readyz", "Whether it can work"),
    ("metrics", "Figures for Prometheus"),
)
"""(path, description) of each link."""
_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_HEADERS = (
    ("Content-Security-Policy", _CSP),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
    ("Vary", "Accept"),
)


def home(dialects: Sequence[Dialect], headers: Headers) -> Response:
    """An HTML page, or JSON if the client accepts it and not HTML."""
    accept = headers.get("accept", "").lower()
    if "application/json" in accept and "text/html" not in accept:
        return Response(body=compact_json(_document(dialects)), headers=_HEADERS)
    return Response(body=_page(dialects).encode(), media_type="text/html; charset=utf-8", headers=_HEADERS)


def _document(dialects: Sequence[Dialect]) -> dict[str, object]:
    return {
        "name": "palaver",
        "version": palaver.__version__,
        "places": {path: f"/{path}" for path, _ in _LINKS},
        "dialects": {dialect.name: list(dialect.prefixes) for dialect in dialects},
    }


def _page(dialects: Sequence[Dialect]) -> str:
    links = "\n".join(f'<dt><a href="{path}">/{path}</a></dt><dd>{escape(text)}</dd>' for path, text in _LINKS)
    dialect_list = "\n".join(
        f'<dt><a href="docs?dialect={dialect.name}">{dialect.name}</a></dt>'
        f"<dd><code>{escape(' '.join(dialect.prefixes))}</code></dd>"
        for dialect in dialects
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>palaver</title>
<link rel="icon" href="docs/favicon-32x32.png">
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
body {{ max-width: 42rem; margin: 10vh auto; padding: 0 1.5rem }}
h1 small {{ font-weight: normal; opacity: .6; font-size: 1rem }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem }}
dd {{ margin: 0 }}
</style>
</head>
<body>
<h1>palaver <small>{escape(palaver.__version__)}</small></h1>
<p>An agent server: it answers through several vendors' chat APIs, and one of its own.</p>
<dl>
{links}
</dl>
<h2>Dialects</h2>
<dl>
{dialect_list}
</dl>
<p>Credentials, agents and settings are the operator's: <code>palaver --help</code> on this machine.</p>
</body>
</html>
"""
