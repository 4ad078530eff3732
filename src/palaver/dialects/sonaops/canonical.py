"""What a signature is over: a body's or a query's members as one text. Pure.

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
"""What JavaScript's ``trim`` takes away; Python's ``strip`` knows another set."""


def trimmed(text: str) -> str:
    return text.strip(BLANK)


def canonical_body(body: bytes) -> str:
    """The body's members as they are signed; an empty body has none.

    Raises ``Invalid(field="body", rule="json")`` for what is no JSON object.
    """
    if not json_object(body, empty_is_object=True):
        return ""
    try:  # numbers stay as they are written, and a repeated name keeps its first place and its last value
        members = json.loads(body, parse_int=_literal, parse_float=_literal)
    except (ValueError, RecursionError) as error:
        raise Invalid(field="body", rule="json", detail=str(error)) from error
    return _joined(cast("dict[str, Any]", members).items())


def canonical_query(query: str) -> str:
    """The query's fields as they are signed; a repeated name joins in the order sent."""
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
    """A member's value as it is signed, empty where it takes no part."""
    if value is None:
        return ""
    if isinstance(value, str):
        return trimmed(value)
    return msgspec.json.encode(value).decode()
