"""Files beside a message to text: the readers of documents, for files that are only bytes and a media type."""

from __future__ import annotations

import asyncio
from pathlib import Path

from palaver.knowledge.read import KINDS, Document, Source, decode, parse

SHORT = 65_536
"""Bytes up to which reading takes no longer than handing the work to a thread."""
_HTML = ("text/html", "application/xhtml+xml")
_TEXT = ("application/json", "application/xml", "application/yaml", "application/x-yaml", "application/x-ndjson")
_BINARY = ("image/", "audio/", "video/", "font/")
_UNKNOWN = ("", "application/octet-stream", "binary/octet-stream")


class Documents:
    """``core.ports.Documents``."""

    async def text(self, name: str, media_type: str, content: bytes) -> str | None:
        """HTML as its words; any other text as it is written, in whatever encoding. ``None``: it is no text."""
        if len(content) <= SHORT:
            return read(name, media_type, content)
        return await asyncio.to_thread(read, name, media_type, content)


def read(name: str, media_type: str, content: bytes) -> str | None:
    kind = media_type.partition(";")[0].strip().lower()
    if kind in _HTML or (kind in _UNKNOWN and KINDS.get(Path(name).suffix.lower()) == "html"):
        document = parse(Source(path=Path("page.html"), name="page.html"), content)
        return document.text if isinstance(document, Document) else None
    if kind.startswith(_BINARY):
        return None
    if kind.startswith("text/") or kind in (*_TEXT, *_UNKNOWN) or kind.endswith(("+json", "+xml")):
        return decode(content)
    return None
