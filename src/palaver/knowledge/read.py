"""Files and folders to documents. Whatever cannot be read is reported with a reason, never raised."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from palaver.core.types import Value, clean
from palaver.knowledge import markdown, plaintext, webpage
from palaver.knowledge.blocks import Block
from palaver.knowledge.words import EDITION

Kind = Literal["markdown", "text", "html"]

MAX_BYTES = 20 * 1024 * 1024
MAX_TITLE = 200
MAX_SOURCE = 1000
"""Bytes of a source's name; it is part of a unique key."""

KINDS: dict[str, Kind] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}

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


class Source(Value, frozen=True, kw_only=True):
    """A file to read. ``name`` is its path below the folder that was given, with forward slashes; ``root`` that
    folder's absolute path, empty for a file given by itself."""

    path: Path
    name: str
    root: str = ""


class Skipped(Value, frozen=True, kw_only=True):
    """A file or folder that was not read. ``reason`` is for a person; ``folder`` says that it hides others."""

    name: str
    reason: str
    root: str = ""
    folder: bool = False


class Document(Value, frozen=True, kw_only=True):
    """What a file says. ``digest`` (SHA-256) changes with its bytes and with how they are indexed."""

    source: Source
    kind: Kind
    title: str
    blocks: tuple[Block, ...]
    digest: bytes

    @property
    def text(self) -> str:
        return "\n\n".join(block.whole for block in self.blocks)


def walk(paths: Iterable[Path]) -> Iterator[Source | Skipped]:
    """Every file of ``paths``, folders with all that is below them: sorted, each name once, without hidden ones."""
    names: set[str] = set()
    for path in paths:
        for found in _below(path):
            if isinstance(found, Source):
                if found.name in names:
                    reason = "another file of the same name, below another folder, was read already"
                    yield Skipped(name=found.name, reason=reason, root=found.root)
                    continue
                names.add(found.name)
            yield found


def _below(path: Path) -> Iterator[Source | Skipped]:
    if not path.is_dir():
        if path.exists():
            yield _source(path, path.name, "")
        else:
            yield Skipped(name=clean(str(path)), reason="there is no such file or folder")
        return
    root = clean(str(path.resolve()))
    seen: set[tuple[int, int]] = set()
    todo: list[tuple[Path, str]] = [(path, "")]
    while todo:
        folder, prefix = todo.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(name=clean(prefix), reason=_said(error), root=root, folder=True)
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above or beside
            continue
        seen.add((status.st_dev, status.st_ino))
        below: list[tuple[Path, str]] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                below.append((folder / entry.name, f"{prefix}{entry.name}/"))
            else:
                yield _source(folder / entry.name, prefix + entry.name, root)
        todo += reversed(below)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _source(path: Path, name: str, root: str) -> Source | Skipped:
    name = clean(name)
    if path.suffix.lower() not in KINDS:
        return Skipped(name=name, reason="not Markdown, text or HTML", root=root)
    if len(name.encode()) > MAX_SOURCE:
        return Skipped(name=name, reason=f"its name has more than {MAX_SOURCE} bytes", root=root)
    return Source(path=path, name=name, root=root)


def _said(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def load(source: Source) -> bytes | Skipped:
    """The bytes of ``source``. Never waits: a pipe or a device is no file."""
    try:
        if not source.path.is_file():
            return Skipped(name=source.name, reason="not a regular file", root=source.root)
        size = source.path.stat().st_size
        if size > MAX_BYTES:
            reason = f"{size / 2**20:.1f} MB, more than {MAX_BYTES // 2**20} MB"
            return Skipped(name=source.name, reason=reason, root=source.root)
        return source.path.read_bytes()
    except OSError as error:
        return Skipped(name=source.name, reason=_said(error), root=source.root)


def digest(source: Source, raw: bytes) -> bytes:
    """Equal for equal bytes of files of one kind, until palaver reads or indexes them in a new way."""
    kind = KINDS[source.path.suffix.lower()]
    return hashlib.sha256(f"{kind} {EDITION}\n".encode() + raw).digest()


def parse(source: Source, raw: bytes) -> Document | Skipped:
    """What ``raw``, the bytes of ``source``, says."""
    kind = KINDS[source.path.suffix.lower()]
    text = decode(raw, html=kind == "html")
    if text is None:
        return Skipped(name=source.name, reason="not text", root=source.root)
    title, blocks = _READERS[kind](clean(text.replace("\r\n", "\n").replace("\r", "\n")))
    first = next((block for block in blocks if block.kind == "heading" and block.level == 1), None)
    title = " ".join(title.split()) or (first.text if first else "") or Path(source.name).stem
    return Document(source=source, kind=kind, title=title[:MAX_TITLE], blocks=tuple(blocks), digest=digest(source, raw))


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
    """``raw`` as text: by its byte order mark, by what an HTML page says of itself, else UTF-8, GB 18030 where it
    looks like Chinese, else Latin-1. ``None`` when it is no text."""
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            return raw[len(bom) :].decode(encoding, "replace")
    if b"\0" in raw[:8192]:
        return None
    text = _declared(raw) if html else None
    if text is None:
        text = _guessed(raw)
    return None if len(_CONTROL.findall(text[:8192])) > len(text[:8192]) // 20 else text


def _declared(raw: bytes) -> str | None:
    found = _CHARSET.search(raw[:2048].lower())
    if found is None:
        return None
    name = (found.group(1) or found.group(2)).decode("ascii", "replace")
    if name in {"gb2312", "gbk", "x-gbk"}:  # as browsers read them
        name = "gb18030"
    elif name in {"iso-8859-1", "latin1", "ascii", "us-ascii"}:
        name = "cp1252"
    try:
        return raw.decode(name)
    except (LookupError, UnicodeError):  # unknown, or not what it says
        return None


def _guessed(raw: bytes) -> str:
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
