"""Serialization: JSON as the dialects write it, and streaming events.

JSON in streams is ASCII: this protects clients that guess the charset, split inside a character, or break lines at
U+2028.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii  # pyright: ignore[reportUnknownVariableType]
from typing import Any, cast
from urllib.parse import quote

import msgspec

WRITE_BYTES = 65_536
"""Bytes of a long text sent as one write."""

_compact = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_quote = cast("Any", encode_basestring_ascii)
_ascii = json.JSONEncoder(separators=(",", ":")).encode


def compact_json(value: Any) -> bytes:
    """``value`` as compact UTF-8 JSON, with members in order and non-ASCII characters unescaped."""
    return _compact(value)


def ascii_text(text: str) -> str:
    """``text`` as an ASCII JSON string, including quotes: everything above U+007E is escaped as ``\\uXXXX``."""
    quoted: str = _quote(text)
    return quoted.replace("\x7f", "\\u007f") if "\x7f" in quoted else quoted


def ascii_json(value: Any) -> bytes:
    """``value`` as compact ASCII JSON; lone surrogates are escaped, as in ``ascii_text``."""
    try:
        encoded = _compact(value)
    except UnicodeEncodeError:
        text = _ascii(value)
    else:
        if encoded.isascii() and b"\x7f" not in encoded:
            return encoded
        # The standard library escapes in C, but only takes plain values: decode whatever type ``value`` has.
        text = _ascii(_decode(encoded))
    return text.replace("\x7f", "\\u007f").encode("ascii")


class EscapedText:
    """A growing text as the content of an ASCII JSON string: each piece is escaped once, however often it is sent."""

    __slots__ = ("_blocks", "_pieces", "_size")

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._pieces: list[bytes] = []
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._blocks or self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        """The whole text in pieces."""
        yield from self._blocks
        yield from self._pieces

    def add(self, text: str) -> bytes:
        """Append ``text``, and return it as a complete JSON string."""
        quoted = ascii_text(text).encode("ascii")
        if not text:
            return quoted
        self._pieces.append(quoted[1:-1])
        self._size += len(quoted)
        if self._size > WRITE_BYTES:
            self._blocks.append(b"".join(self._pieces))
            self._pieces.clear()
            self._size = 0
        return quoted


def split_writes(*parts: bytes | EscapedText) -> list[bytes]:
    """Concatenate ``parts``: one write if they are short, otherwise several, so that a long answer is neither copied
    nor sent all at once."""
    writes: list[bytes] = []
    buffer: list[bytes] = []
    size = 0
    for part in parts:
        for piece in (part,) if isinstance(part, bytes) else part:
            buffer.append(piece)
            size += len(piece)
            if size > WRITE_BYTES:
                writes.append(buffer[0] if len(buffer) == 1 else b"".join(buffer))
                buffer.clear()
                size = 0
    if buffer:
        writes.append(b"".join(buffer))
    return writes


def ndjson_line(value: Any) -> bytes:
    """One line of an NDJSON stream."""
    return ascii_json(value) + b"\n"


def sse(event: str, data: bytes) -> bytes:
    """One named server-sent event, without a space after the colons."""
    return b"event:%s\ndata:%s\n\n" % (event.encode(), data)


_URL_SAFE = "!#$%&'()*+,/:;=?@[]~"


def encode_url(text: str) -> str:
    """A URL as a header value: characters not allowed in URLs are percent-encoded; existing escapes are kept."""
    return quote(text, safe=_URL_SAFE)


_PLAIN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_HEADER_SAFE = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def header_value(text: str) -> str:
    """``text`` as a header value: as percent-encoded UTF-8 if it is not plain visible ASCII."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_HEADER_SAFE)
