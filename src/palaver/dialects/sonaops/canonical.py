"""The canonical text that a signature covers: a body's or query's members in one string. No I/O.

Source: wire specification ``sonaops.md``, section 2.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import msgspec

from palaver.core.problems import Invalid
from palaver.wire.bodies import json_object

BLANK = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
"""The characters that JavaScript's ``trim`` removes; Python's ``strip`` removes a different set."""


def trimmed(text: str) -> str:
    return text.strip(BLANK)


def canonical_body(body: bytes) -> str:
    """The body's members in canonical form; empty for an empty body.

    Raises ``Invalid(field="body", rule="json")`` if the body is not a JSON object.
    """
    if not json_object(body, empty_is_object=True):
        return ""
    try:  # numbers keep their spelling, and a repeated name keeps its first position and last value
        members = json.loads(body, parse_int=_literal, parse_float=_literal)
    except (ValueError, RecursionError) as error:
        raise Invalid(field="body", rule="json", detail=str(error)) from error
    return _joined(cast("dict[str, Any]", members).items())


def canonical_query(query: str) -> str:
    """The query's fields in canonical form; repeated names stay in the order sent."""
    return _joined(fields(query))


def fields(query: str) -> list[tuple[str, str]]:
    """Name and value of every field, decoded, in the order sent."""
    pairs = [piece.partition("=") for piece in query.split("&") if piece]
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("utf-8", "replace")


def _literal(digits: str) -> msgspec.Raw:
    return msgspec.Raw(digits.encode())


def _joined(members: Iterable[tuple[str, Any]]) -> str:
    texts = [(name, _text(value)) for name, value in members]
    return "&".join(f"{name}={text}" for name, text in sorted(texts, key=_name) if text)


def _name(member: tuple[str, str]) -> str:
    return member[0]


def _text(value: Any) -> str:
    """A member's value in canonical form; empty if the member is not signed."""
    if value is None:
        return ""
    if isinstance(value, str):
        return trimmed(value)
    return msgspec.json.encode(value).decode()
