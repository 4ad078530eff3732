"""The ``Range`` header, limited to a single byte range. Source: RFC 9110, section 14."""

from __future__ import annotations

import re

_RANGES = re.compile(r"bytes[ \t]*=[ \t]*(.*)", re.ASCII | re.IGNORECASE)
_ONE = re.compile(r"([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18})", re.ASCII)


class RangeNotSatisfiable(Exception):  # noqa: N818  the caller's error, not palaver's
    """The range is outside of the file, or the header is malformed."""


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of the requested range in bytes; ``None`` to send the whole file: without the header, for other
    units, or for several ranges. Raises ``RangeNotSatisfiable``."""
    match = _RANGES.fullmatch(header or "")
    if match is None:
        return None
    ranges = [text.strip(" \t") for text in match[1].split(",")]
    spans = [_span(text, size) for text in ranges if text]
    if not spans:
        raise RangeNotSatisfiable
    return spans[0] if len(spans) == 1 else None


def _span(text: str, size: int) -> tuple[int, int]:
    match = _ONE.fullmatch(text)
    if match is None:
        raise RangeNotSatisfiable
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        if length == 0:
            raise RangeNotSatisfiable
        return size - length, length
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if start >= size or end < start:
        raise RangeNotSatisfiable
    return start, end - start + 1
