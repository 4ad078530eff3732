"""``/openapi.json`` and ``/docs``: the document of every route, and a page that shows it.

Both are public. The page is Swagger UI, shipped in ``renderer`` as its makers publish it (version 5.35.0): it asks
nobody but this server for anything, and runs under a policy that would not let it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from urllib.parse import parse_qsl

from palaver.http.openapi import RenderedDocument, document
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
    """The document of ``dialects``. It is made when it is first asked for, and kept."""

    def __init__(self, dialects: Sequence[Dialect], site_url: str | None) -> None:
        self._dialects = {dialect.name: dialect for dialect in dialects}
        self._written: dict[str, RenderedDocument] = {}
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
        """What is at ``path``, one that this covers, for a caller who reaches the server at ``origin``."""
        if path == DOCUMENT:
            return await self._document(query, headers, origin)
        if path == PAGE:
            policy = ("Content-Security-Policy", self._policy)
            return _fresh(await asyncio.to_thread(_file, "index.html"), _HTML, headers, policy)
        name = path.removeprefix(f"{PAGE}/")
        if not name:  # the page names what it needs relative to its own address
            return Response(status=308, media_type="", headers=(("Location", f"..{PAGE}"),))
        if name not in _ASSETS:
            return Response(status=404, body=compact_json({"error": "not found", "path": path}))
        return _fresh(await asyncio.to_thread(_file, name), _ASSETS[name], headers)

    async def _document(self, query: str, headers: Headers, origin: str) -> Response:
        name = dict(parse_qsl(query)).get("dialect", "")
        if name and name not in self._dialects:
            return Response(status=404, body=compact_json({"error": "no such dialect", "dialects": [*self._dialects]}))
        if name not in self._written:
            chosen = [dialect for dialect in self._dialects.values() if name in {"", dialect.name}]
            self._written[name] = RenderedDocument(await asyncio.to_thread(document, chosen))
        return _fresh(self._written[name].for_origin(origin), "application/json", headers)


def _fresh(body: bytes, media_type: str, asked: Headers, *more: tuple[str, str]) -> Response:
    """``body``, or that the caller has it already. It may be kept, and has to be asked about: an upgrade changes it."""
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = (("ETag", tag), ("Cache-Control", "no-cache"), _SAFE, *more)
    known = {one.strip().removeprefix("W/") for one in asked.get("if-none-match", "").split(",")}
    if tag in known:
        return Response(status=304, media_type="", headers=headers)
    return Response(body=body, media_type=media_type, headers=headers)


@lru_cache
def _file(name: str) -> bytes:
    return (files("palaver.http") / "renderer" / name).read_bytes()
