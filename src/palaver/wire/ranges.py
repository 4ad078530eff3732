"""The ``Range`` header, as far as it is heeded: one range of bytes. Source: RFC 9110, section 14."""

from __future__ import annotations

import re

_RANGES = re.compile(r"bytes[ \t]*=[ \t]*(.*)", re.ASCII | re.IGNORECASE)
_ONE = re.compile(r"([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18})", re.ASCII)


class RangeNotSatisfiable(Exception):  # noqa: N818  the caller's error, not ours
    """The file has no such bytes, or the header is malformed."""


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) of the bytes asked for; ``None`` for all of them: without a header, in another unit, or for
    several ranges at once. Raises ``RangeNotSatisfiable``."""
    match = _RANGES.fullmatch(header or "")
    if match is None:
        return None
    ranges = [one.strip(" \t") for one in match[1].split(",")]
    found = [_span(one, size) for one in ranges if one]
    if not found:
        raise RangeNotSatisfiable
    return found[0] if len(found) == 1 else None


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
