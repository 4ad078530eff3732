"""Extracts the text of attached files, with the readers of knowledge base documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import PurePath

from palaver.core.ports.documents import DocumentText, UnreadableDocument
from palaver.knowledge.files import KINDS
from palaver.knowledge.pool import ReaderPool
from palaver.knowledge.protocol import ExtractedText, ExtractText

_HTML = ("text/html", "application/xhtml+xml")
_TEXT = ("application/json", "application/xml", "application/yaml", "application/x-yaml", "application/x-ndjson")
_BINARY = ("image/", "audio/", "video/", "font/")
_UNKNOWN = ("", "application/octet-stream", "binary/octet-stream")


class AttachmentReader:
    """Implements ``core.ports.documents.DocumentReader``."""

    def __init__(self, readers: ReaderPool) -> None:
        self._readers = readers

    async def text(
        self, app_id: int, user_id: int, name: str, media_type: str, content: Callable[[], Awaitable[bytes]], limit: int
    ) -> DocumentText:
        html = _is_html(name, media_type)

        async def job() -> ExtractText:
            return ExtractText(html=html, limit=limit, content=await content())

        result = await self._readers.read((app_id, user_id), job)
        assert isinstance(result, ExtractedText)
        return DocumentText(text=result.text, more=result.more)


def _is_html(name: str, media_type: str) -> bool:
    """Whether a file is HTML rather than other text. Raises ``UnreadableDocument`` if it is neither."""
    kind = media_type.partition(";")[0].strip().lower()
    if kind in _HTML or (kind in _UNKNOWN and KINDS.get(PurePath(name).suffix.lower()) == "html"):
        return True
    if kind.startswith(_BINARY):
        raise UnreadableDocument("it is neither text nor a picture")
    if kind.startswith("text/") or kind in (*_TEXT, *_UNKNOWN) or kind.endswith(("+json", "+xml")):
        return False
    raise UnreadableDocument("it is neither text nor a picture")
