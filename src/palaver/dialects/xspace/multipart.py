"""Parsing ``multipart/form-data``: bytes in, parts out. Strict: malformed bodies are rejected, never guessed.

Source: RFC 7578 and RFC 2046, section 5.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol
from urllib.parse import unquote_to_bytes

from palaver.core.problems import Invalid

MAX_PARTS = 100
MAX_HEAD = 16_384
MAX_PADDING = 1024
"""White space after a boundary, in bytes."""
MAX_FIELD = 1_048_576
"""Maximum size of a text field, in bytes."""
WINDOW = 262_144
"""Size of the window in which the form is scanned, in bytes."""
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)
_PARAMETER = re.compile(r';[ \t]*([A-Za-z0-9_-]+\*?)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))[ \t]*', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')


class FormSource(Protocol):
    """The source of a form's bytes."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, end: int) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FormPart:
    """One field of a form; a file has a ``filename``, which may be empty. Its bytes stay in the source."""

    name: str
    filename: str | None
    media_type: str
    source: FormSource
    start: int
    end: int
    digest: bytes
    """SHA-256 of its bytes."""

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def content(self) -> bytes:
        return self.source.read(self.start, self.end)

    @property
    def text(self) -> str:
        """The value of a text field. Raises ``Invalid`` if it is too long or not UTF-8."""
        if self.size > MAX_FIELD:
            raise _malformed(f"the field {self.name!r} has more than {MAX_FIELD} bytes")
        try:
            return self.content.decode().replace("\0", "\ufffd")
        except UnicodeDecodeError as error:
            raise _malformed(f"the field {self.name!r} is not UTF-8") from error

    def pieces(self, size: int) -> Iterator[bytes]:
        return _pieces(self.source, self.start, self.end, size)


def parts(content_type: str, body: FormSource) -> list[FormPart]:
    """The parts of ``body``; none if ``content_type`` is not ``multipart/form-data``. Raises
    ``Invalid(field="multipart")``."""
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return []
    boundary = _parameters(content_type[len(kind) :]).get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise _malformed("no boundary")
    form_parts: list[FormPart] = []
    for start, end in _spans(body, b"--" + boundary.encode()):
        if len(form_parts) == MAX_PARTS:
            raise _malformed(f"more than {MAX_PARTS} parts")
        form_parts.append(_part(body, start, end))
    return form_parts


def digest(form_parts: list[FormPart]) -> bytes:
    """A hash of the names and contents, independent of the boundary."""
    form_digest = sha256()
    for part in form_parts:
        for name in (part.name.encode(), (part.filename or "").encode()):
            form_digest.update(sha256(name).digest())
        form_digest.update(part.digest)
    return form_digest.digest()


def _spans(body: FormSource, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """The start and end of each part."""
    start = -1
    for line_start, line_end, closing in _delimiters(body, delimiter):
        if start >= 0:
            yield start, line_start
        if closing:
            return
        start = line_end
    raise _malformed("the closing boundary is missing")


def _delimiters(body: FormSource, delimiter: bytes) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is the closing one) of each delimiter line. The first may be at the very beginning, as if
    after a line break."""
    pattern = re.compile(rb"\r\n" + re.escape(delimiter) + rb"(?:(--)|[ \t]{0,%d}\r\n)" % MAX_PADDING)
    overlap = len(delimiter) + MAX_PADDING + 4
    kept, base = b"\r\n", -2
    for piece in _pieces(body, 0, body.size, WINDOW):
        window, seen = kept + piece, 0
        for match in pattern.finditer(window):
            seen = match.end()
            yield base + match.start(), base + match.end(), match[1] is not None
        seen = max(seen, len(window) - overlap)
        kept, base = window[seen:], base + seen


def _pieces(source: FormSource, start: int, end: int, size: int) -> Iterator[bytes]:
    return (source.read(at, min(end, at + size)) for at in range(start, end, size))


def _part(body: FormSource, start: int, end: int) -> FormPart:
    head, separator, _ = body.read(start, min(end, start + MAX_HEAD)).partition(b"\r\n\r\n")
    if not separator:
        raise _malformed("a part has no head")
    headers = _headers(head)
    disposition = headers.get("content-disposition", "")
    kind, _, _ = disposition.partition(";")
    fields = _parameters(disposition[len(kind) :])
    if kind.strip().lower() != "form-data" or "name" not in fields:
        raise _malformed("a part has no name")
    content_digest, first = sha256(), start + len(head) + 4
    for piece in _pieces(body, first, end, WINDOW):
        content_digest.update(piece)
    return FormPart(
        name=fields["name"],
        filename=_filename(fields),
        media_type=headers.get("content-type", ""),
        source=body,
        start=first,
        end=end,
        digest=content_digest.digest(),
    )


def _headers(head: bytes) -> dict[str, str]:
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise _malformed("a part's head is not UTF-8") from error
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _malformed("a part's head has a line that is not a header")
        headers[name.lower()] = value.strip(" \t")
    return headers


def _parameters(text: str) -> dict[str, str]:
    """Parse ``; name="value"; name=value``, without the quotes."""
    values: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _PARAMETER.match(text, at)
        if match is None:
            raise _malformed("a parameter is malformed")
        name, quoted, bare = match.groups()
        values[name.lower()] = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
        at = match.end()
    return values


def _filename(fields: dict[str, str]) -> str | None:
    """The file's name, without folders; browsers encode quotes as ``%22``."""
    extended = fields.get("filename*", "")
    if extended.lower().startswith("utf-8'"):
        name = _decoded(unquote_to_bytes(extended.split("'", 2)[-1]))
    elif "filename" in fields:
        name = fields["filename"].replace("%22", '"')
    else:
        return None
    return name.replace("\\", "/").rsplit("/", 1)[-1].replace("\0", "\ufffd")


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise _malformed("a file's name is not UTF-8") from error


def _malformed(detail: str) -> Invalid:
    return Invalid(field="multipart", rule="type", detail=detail)
