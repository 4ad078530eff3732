"""Files and folders: which there are, and their bytes. What cannot be read is reported with a reason, never raised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from palaver.core.types import Value, clean
from palaver.knowledge.tokenize import INDEX_VERSION

Kind = Literal["markdown", "text", "html"]

MAX_BYTES = 20 * 1024 * 1024
MAX_SOURCE = 1000
"""Bytes of a source's name, and of its folder's; both are part of a unique key."""

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


class DocumentSource(Value, frozen=True, kw_only=True):
    """A file to read. ``name`` is its path below the folder that was given, with forward slashes; ``root`` that
    folder's absolute path, for a file given by itself the one that it lies in. Both together name a document."""

    path: Path
    name: str
    root: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.root, self.name

    @property
    def kind(self) -> Kind:
        return KINDS[self.path.suffix.lower()]


class SkippedFile(Value, frozen=True, kw_only=True):
    """A file or folder that was not read. ``reason`` is for a person; ``folder`` says that it hides others."""

    name: str
    reason: str
    root: str = ""
    folder: bool = False


def walk(paths: Iterable[Path]) -> Iterator[DocumentSource | SkippedFile]:
    """Every file of ``paths``, folders with all that is below them: sorted, each once, without hidden ones."""
    seen: set[tuple[str, str]] = set()
    for path in paths:
        for found in _below(path):
            if isinstance(found, DocumentSource):
                if found.key in seen:
                    continue
                seen.add(found.key)
            yield found


def _below(path: Path) -> Iterator[DocumentSource | SkippedFile]:
    if not path.is_dir():
        if path.exists():
            yield _source(path, path.name, _absolute(path.parent))
        else:
            yield SkippedFile(name=clean(str(path)), reason="there is no such file or folder")
        return
    root = _absolute(path)
    seen: set[tuple[int, int]] = set()
    todo: list[tuple[Path, str]] = [(path, "")]
    while todo:
        folder, prefix = todo.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield SkippedFile(name=clean(prefix), reason=_said(error), root=root, folder=True)
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


def _absolute(folder: Path) -> str:
    return clean(str(folder.resolve()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _source(path: Path, name: str, root: str) -> DocumentSource | SkippedFile:
    if clean(name) != name:  # bytes that are no UTF-8: two such names could look the same
        return SkippedFile(name=clean(name), reason="its name is not UTF-8", root=root)
    if path.suffix.lower() not in KINDS:
        return SkippedFile(name=name, reason="not Markdown, text or HTML", root=root)
    if len(name.encode()) > MAX_SOURCE:
        return SkippedFile(name=name, reason=f"its name has more than {MAX_SOURCE} bytes", root=root)
    if len(root.encode()) > MAX_SOURCE:
        return SkippedFile(name=name, reason=f"the path of its folder has more than {MAX_SOURCE} bytes", root=root)
    return DocumentSource(path=path, name=name, root=root)


def _said(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def load(source: DocumentSource) -> bytes | SkippedFile:
    """The bytes of ``source``. Never waits: a pipe or a device is no file."""
    try:
        if not source.path.is_file():
            return SkippedFile(name=source.name, reason="not a regular file", root=source.root)
        size = source.path.stat().st_size
        if size > MAX_BYTES:
            reason = f"{size / 2**20:.1f} MB, more than {MAX_BYTES // 2**20} MB"
            return SkippedFile(name=source.name, reason=reason, root=source.root)
        return source.path.read_bytes()
    except OSError as error:
        return SkippedFile(name=source.name, reason=_said(error), root=source.root)


def digest(source: DocumentSource, raw: bytes) -> bytes:
    """Equal for equal bytes of files of one kind, until palaver reads or indexes them in a new way."""
    return hashlib.sha256(f"{source.kind} {INDEX_VERSION}\n".encode() + raw).digest()
