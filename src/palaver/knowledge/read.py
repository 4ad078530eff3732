"""Parses the bytes of a document into blocks."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from pathlib import PurePath

from palaver.core.ports.documents import UnreadableDocument
from palaver.core.types import Value, clean
from palaver.knowledge import markdown, plaintext, webpage
from palaver.knowledge.blocks import Block
from palaver.knowledge.files import Kind

MAX_TITLE = 200

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""The longer ones first: UTF-32's begins with UTF-16's."""
_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})|<\?xml[^>]{0,80}?encoding=["']([\w.-]+)"""
)
_GB_PAIR = re.compile(rb"[\xa1-\xf7][\xa1-\xfe]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


class ParsedDocument(Value, frozen=True, kw_only=True):
    """The title and blocks of a file."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        return "\n\n".join(block.whole for block in self.blocks)


def parse(name: str, kind: Kind, raw: bytes) -> ParsedDocument:
    """Parse ``raw``, the bytes of the file ``name``. Raises ``UnreadableDocument``."""
    text = decode(raw, html=kind == "html")
    if text is None:
        raise UnreadableDocument("not text")
    title, blocks = _READERS[kind](clean(text.replace("\r\n", "\n").replace("\r", "\n")))
    first = next((block for block in blocks if block.kind == "heading" and block.level == 1), None)
    title = " ".join(title.split()) or (first.text if first else "") or PurePath(name).stem
    return ParsedDocument(title=title[:MAX_TITLE], blocks=tuple(blocks))


def _read_markdown(text: str) -> tuple[str, list[Block]]:
    title, rest = markdown.front_matter(text)
    return title, markdown.read(rest)


def _read_text(text: str) -> tuple[str, list[Block]]:
    return "", plaintext.read(text)


_READERS: dict[Kind, Callable[[str], tuple[str, list[Block]]]] = {
    "markdown": _read_markdown,
    "text": _read_text,
    "html": webpage.read,
}


def decode(raw: bytes, *, html: bool = False) -> str | None:
    """Decode ``raw`` by its byte order mark or, for HTML, its declared charset; else as UTF-8, GB 18030 if it looks
    like Chinese, or Latin-1. ``None`` if it is not text."""
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            return raw[len(bom) :].decode(encoding, "replace")
    if b"\0" in raw[:8192]:
        return None
    text = _decode_declared(raw) if html else None
    if text is None:
        text = _decode_guessed(raw)
    return None if len(_CONTROL.findall(text[:8192])) > len(text[:8192]) // 20 else text


def _decode_declared(raw: bytes) -> str | None:
    declaration = _CHARSET.search(raw[:2048].lower())
    if declaration is None:
        return None
    name = (declaration.group(1) or declaration.group(2)).decode("ascii", "replace")
    if name in {"gb2312", "gbk", "x-gbk"}:  # as browsers read them
        name = "gb18030"
    elif name in {"iso-8859-1", "latin1", "ascii", "us-ascii"}:
        name = "cp1252"
    try:
        return raw.decode(name)
    except (LookupError, UnicodeError):  # unknown, or wrongly declared
        return None


def _decode_guessed(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    high = len(raw) - len(raw.translate(None, bytes(range(128, 256))))
    if len(_GB_PAIR.findall(raw)) * 2 >= high * 0.8:  # Latin-1 has its accented letters one by one
        try:
            return raw.decode("gb18030")
        except UnicodeDecodeError:
            pass
    return raw.decode("latin-1")
