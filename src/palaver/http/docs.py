"""``/openapi.json`` and ``/docs``: the OpenAPI document, and a page that displays it.

Both are public. The page is an unmodified Swagger UI 5.35.0, bundled in ``renderer``; it loads nothing from other
servers, and its Content-Security-Policy forbids it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from urllib.parse import parse_qsl

from palaver.http.openapi import RenderedDocument, build_document
from palaver.wire.contract import Dialect, Headers, Response
from palaver.wire.framing import compact_json

DOCUMENT, PAGE = "/openapi.json", "/docs"
_HTML = "text/html; charset=utf-8"
_ASSETS = {
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js.LICENSE.txt": "text/plain; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
_SAFE = ("X-Content-Type-Options", "nosniff")


class Docs:
    """Serves the document of ``dialects``, generated at the first request and cached."""

    def __init__(self, dialects: Sequence[Dialect], site_url: str | None) -> None:
        self._dialects = {dialect.name: dialect for dialect in dialects}
        self._rendered: dict[str, RenderedDocument] = {}
        # The page's "Execute" calls the servers that the document names.
        connect = " ".join(("'self'", *([site_url] if site_url else [])))
        self._policy = (
            f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
            f" connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    @staticmethod
    def covers(path: str) -> bool:
        return path in {DOCUMENT, PAGE} or path.startswith(f"{PAGE}/")

    async def reply(self, path: str, query: str, headers: Headers, origin: str) -> Response:
        """The response for a covered ``path``; ``origin`` is the base URL that the caller uses."""
        if path == DOCUMENT:
            return await self._document(query, headers, origin)
        if path == PAGE:
            policy = ("Content-Security-Policy", self._policy)
            return _conditional(await asyncio.to_thread(_file, "index.html"), _HTML, headers, policy)
        name = path.removeprefix(f"{PAGE}/")
        if not name:  # the page's assets are relative to its URL
            return Response(status=308, media_type="", headers=(("Location", f"..{PAGE}"),))
        if name not in _ASSETS:
            return Response(status=404, body=compact_json({"error": "not found", "path": path}))
        return _conditional(await asyncio.to_thread(_file, name), _ASSETS[name], headers)

    async def _document(self, query: str, headers: Headers, origin: str) -> Response:
        name = dict(parse_qsl(query)).get("dialect", "")
        if name and name not in self._dialects:
            return Response(status=404, body=compact_json({"error": "no such dialect", "dialects": [*self._dialects]}))
        if name not in self._rendered:
            dialects = [dialect for dialect in self._dialects.values() if name in {"", dialect.name}]
            self._rendered[name] = RenderedDocument(await asyncio.to_thread(build_document, dialects))
        return _conditional(self._rendered[name].for_origin(origin), "application/json", headers)


def _conditional(body: bytes, media_type: str, request_headers: Headers, *extra: tuple[str, str]) -> Response:
    """``body`` with an ``ETag``, or status 304. Caches must revalidate it, because an upgrade changes it."""
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = (("ETag", tag), ("Cache-Control", "no-cache"), _SAFE, *extra)
    cached = {entry.strip().removeprefix("W/") for entry in request_headers.get("if-none-match", "").split(",")}
    if tag in cached:
        return Response(status=304, media_type="", headers=headers)
    return Response(body=body, media_type=media_type, headers=headers)


@lru_cache
def _file(name: str) -> bytes:
    return (files("palaver.http") / "renderer" / name).read_bytes()
