"""Reading ``multipart/form-data``: bytes in, parts out. Strict: what is not well-formed is refused, never guessed.

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
"""White space behind a boundary."""
MAX_FIELD = 1_048_576
"""Bytes of a field that is no file."""
WINDOW = 262_144
"""Bytes of a form that are looked at at once."""
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)
_PARAMETER = re.compile(r';[ \t]*([A-Za-z0-9_-]+\*?)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))[ \t]*', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')


class FormSource(Protocol):
    """Where a form is read from."""

    @property
    def size(self) -> int: ...

    def read(self, start: int, end: int) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FormPart:
    """One field of a form; a file has a ``filename``, which may be empty. Its bytes stay where they are."""

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
        """The value of a field that is no file. Raises ``Invalid`` where it is not UTF-8, or too long for a field."""
        if self.size > MAX_FIELD:
            raise _malformed(f"the field {self.name!r} has more than {MAX_FIELD} bytes")
        try:
            return self.content.decode().replace("\0", "\ufffd")
        except UnicodeDecodeError as error:
            raise _malformed(f"the field {self.name!r} is not UTF-8") from error

    def pieces(self, size: int) -> Iterator[bytes]:
        return _pieces(self.source, self.start, self.end, size)


def parts(content_type: str, body: FormSource) -> list[FormPart]:
    """The parts of ``body``; none where ``content_type`` is not a form's. Raises ``Invalid(field="multipart")``."""
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
    """The same for equal names and contents, whatever the boundary was."""
    whole = sha256()
    for part in form_parts:
        for piece in (part.name.encode(), (part.filename or "").encode()):
            whole.update(sha256(piece).digest())
        whole.update(part.digest)
    return whole.digest()


def _spans(body: FormSource, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Where each part begins and ends."""
    start = -1
    for at, after, closing in _delimiters(body, delimiter):
        if start >= 0:
            yield start, at
        if closing:
            return
        start = after
    raise _malformed("the closing boundary is missing")


def _delimiters(body: FormSource, delimiter: bytes) -> Iterator[tuple[int, int, bool]]:
    """(where a delimiter's line begins, where what is behind it does, whether it is the closing one) of each. One may
    stand at the very beginning, as if behind the end of a line."""
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
    head, there, _ = body.read(start, min(end, start + MAX_HEAD)).partition(b"\r\n\r\n")
    if not there:
        raise _malformed("a part has no head")
    headers = _headers(head)
    disposition = headers.get("content-disposition", "")
    kind, _, _ = disposition.partition(";")
    fields = _parameters(disposition[len(kind) :])
    if kind.strip().lower() != "form-data" or "name" not in fields:
        raise _malformed("a part has no name")
    whole, first = sha256(), start + len(head) + 4
    for piece in _pieces(body, first, end, WINDOW):
        whole.update(piece)
    return FormPart(
        name=fields["name"],
        filename=_filename(fields),
        media_type=headers.get("content-type", ""),
        source=body,
        start=first,
        end=end,
        digest=whole.digest(),
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
            raise _malformed("a part's head has a line that is no header")
        headers[name.lower()] = value.strip(" \t")
    return headers


def _parameters(text: str) -> dict[str, str]:
    """``; name="value"; name=value``, quotes taken off."""
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
    """The file's own name, without folders; browsers write a quote in it as ``%22``."""
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
