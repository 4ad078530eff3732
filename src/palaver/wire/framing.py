"""Bytes from values: JSON as the dialects write it, one event as one piece.

Inside a stream JSON is ASCII: a reader that guesses the charset, cuts inside a character, or breaks lines at U+2028
cannot be harmed.
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
"""Bytes of a long text that go out as one write."""

_compact = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_quote = cast("Any", encode_basestring_ascii)
_ascii = json.JSONEncoder(separators=(",", ":")).encode


def compact_json(value: Any) -> bytes:
    """``value`` as compact UTF-8 JSON, members in their order, non-ASCII as it is."""
    return _compact(value)


def ascii_text(text: str) -> str:
    """``text`` as a JSON string in ASCII, quotes included: above U+007E everything is ``\\uXXXX``."""
    quoted: str = _quote(text)
    return quoted.replace("\x7f", "\\u007f") if "\x7f" in quoted else quoted


def ascii_json(value: Any) -> bytes:
    """``value`` as compact JSON in ASCII; half of a surrogate pair stays what it is, as ``ascii_text`` has it."""
    try:
        encoded = _compact(value)
    except UnicodeEncodeError:
        written = _ascii(value)
    else:
        if encoded.isascii() and b"\x7f" not in encoded:
            return encoded
        # The standard library escapes in C; it is given plain values, whatever kind ``value`` was of.
        written = _ascii(_decode(encoded))
    return written.replace("\x7f", "\\u007f").encode("ascii")


class EscapedText:
    """A text that grows, as the inside of a JSON string in ASCII: written once, however often it is repeated."""

    __slots__ = ("_blocks", "_pieces", "_size")

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._pieces: list[bytes] = []
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._blocks or self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        """All of it in pieces."""
        yield from self._blocks
        yield from self._pieces

    def add(self, text: str) -> bytes:
        """Append; what was appended as a whole JSON string."""
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
    """``parts`` one behind the other: in one write as long as they are short, else in several, so that a long answer
    is neither copied nor sent at once."""
    done: list[bytes] = []
    held: list[bytes] = []
    size = 0
    for part in parts:
        for piece in (part,) if isinstance(part, bytes) else part:
            held.append(piece)
            size += len(piece)
            if size > WRITE_BYTES:
                done.append(held[0] if len(held) == 1 else b"".join(held))
                held.clear()
                size = 0
    if held:
        done.append(b"".join(held))
    return done


def ndjson_line(value: Any) -> bytes:
    """One line of an NDJSON stream."""
    return ascii_json(value) + b"\n"


def sse(event: str, data: bytes) -> bytes:
    """One server-sent event with a name, no space after the colons."""
    return b"event:%s\ndata:%s\n\n" % (event.encode(), data)


_ADDRESS = "!#$%&'()*+,/:;=?@[]~"


def address(text: str) -> str:
    """An address as a header has it: what may not stand in one is percent-encoded, what is encoded stays so."""
    return quote(text, safe=_ADDRESS)


_PLAIN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_KEPT = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def header_value(text: str) -> str:
    """``text`` as a header's value: percent-encoded UTF-8 where it has characters that do not go there."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_KEPT)
