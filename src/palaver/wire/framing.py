"""Bytes from values: JSON as the dialects write it, one event as one piece.

Inside a stream JSON is ASCII: a reader that guesses the charset, cuts inside a character, or breaks lines at U+2028
cannot be harmed.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring_ascii  # pyright: ignore[reportUnknownVariableType]
from typing import Any, cast
from urllib.parse import quote

import msgspec

_compact = msgspec.json.Encoder().encode
_quote = cast("Any", encode_basestring_ascii)
_NON_ASCII = re.compile(r"[^\x00-\x7e]")


def compact(value: Any) -> bytes:
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
        return json.dumps(value, separators=(",", ":")).replace("\x7f", "\\u007f").encode("ascii")
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _NON_ASCII.sub(_escape, encoded.decode()).encode("ascii")


def _escape(match: re.Match[str]) -> str:
    point = ord(match.group())
    if point < 0x10000:
        return f"\\u{point:04x}"
    point -= 0x10000
    return f"\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}"


def line(value: Any) -> bytes:
    """One line of an NDJSON stream."""
    return ascii_json(value) + b"\n"


def sse(event: str, data: bytes) -> bytes:
    """One server-sent event with a name, no space after the colons."""
    return b"event:%s\ndata:%s\n\n" % (event.encode(), data)


_PLAIN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_KEPT = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


def in_header(text: str) -> str:
    """``text`` as a header's value: percent-encoded UTF-8 where it has characters that do not go there."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_KEPT)
