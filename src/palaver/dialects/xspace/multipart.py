"""Reading ``multipart/form-data``: bytes in, parts out. Strict: what is not well-formed is refused, never guessed.

Source: RFC 7578 and RFC 2046, section 5.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import unquote_to_bytes

from palaver.core.problems import Invalid

MAX_PARTS = 100
MAX_HEAD = 16_384
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]", re.ASCII)
_PARAMETER = re.compile(r';[ \t]*([A-Za-z0-9_-]+\*?)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^;"\s]*))[ \t]*', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field of a form; a file has a ``filename``, which may be empty."""

    name: str
    filename: str | None
    media_type: str
    content: bytes

    @property
    def text(self) -> str:
        """The value of a field that is no file. Raises ``Invalid`` where it is not UTF-8."""
        try:
            return self.content.decode().replace("\0", "\ufffd")
        except UnicodeDecodeError as error:
            raise _malformed(f"the field {self.name!r} is not UTF-8") from error


def parts(content_type: str, body: bytes) -> list[Part]:
    """The parts of ``body``; none where ``content_type`` is not a form's. Raises ``Invalid(field="multipart")``."""
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return []
    boundary = _parameters(content_type[len(kind) :]).get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise _malformed("no boundary")
    found: list[Part] = []
    for start, end in _spans(body, b"--" + boundary.encode()):
        if len(found) == MAX_PARTS:
            raise _malformed(f"more than {MAX_PARTS} parts")
        found.append(_part(body, start, end))
    return found


def digest(found: list[Part]) -> bytes:
    """The same for equal names and contents, whatever the boundary was."""
    whole = sha256()
    for part in found:
        for piece in (part.name.encode(), (part.filename or "").encode(), part.content):
            whole.update(sha256(piece).digest())
    return whole.digest()


def _spans(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """Where each part begins and ends."""
    at = _after(body, 0, delimiter) if body.startswith(delimiter) else None
    if at is None:
        at = _next(body, 0, delimiter)[1]
    while at >= 0:
        start = at
        end, at = _next(body, start, delimiter)
        yield start, end


def _next(body: bytes, start: int, delimiter: bytes) -> tuple[int, int]:
    """(where the delimiter's line begins, where the next part does; -1 behind the last one)."""
    line = b"\r\n" + delimiter
    at = body.find(line, start)
    while at >= 0:
        following = _after(body, at + 2, delimiter)
        if following is not None:
            return at, following
        at = body.find(line, at + 2)
    raise _malformed("the closing boundary is missing")


def _after(body: bytes, at: int, delimiter: bytes) -> int | None:
    """Where the part behind the delimiter at ``at`` begins; -1 for the closing one, ``None``: it is none at all."""
    at += len(delimiter)
    if body.startswith(b"--", at):
        return -1
    while body[at : at + 1] in {b" ", b"\t"}:
        at += 1
    return at + 2 if body.startswith(b"\r\n", at) else None


def _part(body: bytes, start: int, end: int) -> Part:
    split = body.find(b"\r\n\r\n", start, min(end, start + MAX_HEAD))
    if split < 0:
        raise _malformed("a part has no head")
    headers = _headers(body[start:split])
    disposition = headers.get("content-disposition", "")
    kind, _, _ = disposition.partition(";")
    fields = _parameters(disposition[len(kind) :])
    if kind.strip().lower() != "form-data" or "name" not in fields:
        raise _malformed("a part has no name")
    return Part(
        name=fields["name"],
        filename=_filename(fields),
        media_type=headers.get("content-type", ""),
        content=body[split + 4 : end],
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
