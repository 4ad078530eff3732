"""Lists and loads files and folders. Unreadable ones are returned as ``SkippedFile`` with a reason, never raised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from palaver.core.ports.admin import SkippedFile
from palaver.core.types import Value, clean
from palaver.knowledge.tokenize import INDEX_VERSION

Kind = Literal["markdown", "text", "html"]

MAX_BYTES = 20 * 1024 * 1024
MAX_SOURCE = 1000
"""Maximum bytes of a source's name, and of its folder's; both are part of a unique key."""

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
    """A file to read. ``root`` is the absolute path of the folder that was passed, or of the parent folder of a file
    passed by itself; ``name`` is the path below it, with forward slashes. Both together identify a document."""

    path: Path
    name: str
    root: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.root, self.name

    @property
    def kind(self) -> Kind:
        return KINDS[self.path.suffix.lower()]


def walk(paths: Iterable[Path]) -> Iterator[DocumentSource | SkippedFile]:
    """Yield every file of ``paths``, folders recursively: sorted, each once, without hidden ones."""
    seen: set[tuple[str, str]] = set()
    for path in paths:
        for entry in _walk_one(path):
            if isinstance(entry, DocumentSource):
                if entry.key in seen:
                    continue
                seen.add(entry.key)
            yield entry


def _walk_one(path: Path) -> Iterator[DocumentSource | SkippedFile]:
    if not path.is_dir():
        if path.exists():
            yield _source(path, path.name, _absolute(path.parent))
        else:
            yield SkippedFile(name=clean(str(path)), reason="there is no such file or folder")
        return
    root = _absolute(path)
    seen: set[tuple[int, int]] = set()
    pending: list[tuple[Path, str]] = [(path, "")]
    while pending:
        folder, prefix = pending.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield SkippedFile(name=clean(prefix), reason=_message(error), root=root, folder=True)
            continue
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder already visited
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders: list[tuple[Path, str]] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                subfolders.append((folder / entry.name, f"{prefix}{entry.name}/"))
            else:
                yield _source(folder / entry.name, prefix + entry.name, root)
        pending += reversed(subfolders)


def _absolute(folder: Path) -> str:
    return clean(str(folder.resolve()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _source(path: Path, name: str, root: str) -> DocumentSource | SkippedFile:
    if clean(name) != name:  # not UTF-8: two such names could look the same
        return SkippedFile(name=clean(name), reason="its name is not UTF-8", root=root)
    if path.suffix.lower() not in KINDS:
        return SkippedFile(name=name, reason="not Markdown, text or HTML", root=root)
    if len(name.encode()) > MAX_SOURCE:
        return SkippedFile(name=name, reason=f"its name has more than {MAX_SOURCE} bytes", root=root)
    if len(root.encode()) > MAX_SOURCE:
        return SkippedFile(name=name, reason=f"the path of its folder has more than {MAX_SOURCE} bytes", root=root)
    return DocumentSource(path=path, name=name, root=root)


def _message(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def load(source: DocumentSource) -> bytes | SkippedFile:
    """Load the bytes of ``source``. Never blocks: pipes and devices are skipped."""
    try:
        if not source.path.is_file():
            return SkippedFile(name=source.name, reason="not a regular file", root=source.root)
        size = source.path.stat().st_size
        if size > MAX_BYTES:
            reason = f"{size / 2**20:.1f} MB, more than {MAX_BYTES // 2**20} MB"
            return SkippedFile(name=source.name, reason=reason, root=source.root)
        return source.path.read_bytes()
    except OSError as error:
        return SkippedFile(name=source.name, reason=_message(error), root=source.root)


def digest(source: DocumentSource, raw: bytes) -> bytes:
    """A hash of the bytes and kind of a file, and of ``INDEX_VERSION``: it changes when the document must be indexed
    again."""
    return hashlib.sha256(f"{source.kind} {INDEX_VERSION}\n".encode() + raw).digest()
