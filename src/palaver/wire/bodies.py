"""Parsing requests: the rules shared by all dialects, so that no dialect needs its own parser.

Source: the wire specification, section "Requests, all dialects".
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar, cast

import msgspec

from palaver.core.ports.store import IdempotencyKey
from palaver.core.problems import Invalid
from palaver.core.types import MAX_ID, clean_json
from palaver.wire.contract import Request

MAX_DEPTH = 64
MAX_NODES = 20_000
"""Maximum number of objects, arrays and members in one body. Each takes up to 50 times its bytes in memory, and adds
to garbage collection."""
_BLANK = b" \t\r\n"
_decode = msgspec.json.Decoder().decode
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_INTEGER = re.compile(r"-?[0-9]{1,4300}", re.ASCII)

S = TypeVar("S", bound=msgspec.Struct)


def json_object(body: bytes, *, empty_is_object: bool = False) -> dict[str, Any]:
    """Parse ``body`` as a JSON object: UTF-8, at most 64 levels deep, at most 20,000 objects, arrays and members, no
    lone surrogates. The last of repeated members wins; U+0000 becomes U+FFFD. Raises
    ``Invalid(field="body", rule="json")``, or ``rule="required"`` if it is empty."""
    if not body.strip(_BLANK):
        if empty_is_object:
            return {}
        raise Invalid(field="body", rule="required", detail="the body is empty")
    if _nodes(body) > MAX_NODES and _nodes(_STRING.sub(b"", body)) > MAX_NODES:
        raise Invalid(field="body", rule="json", detail=f"more than {MAX_NODES} objects, arrays and members")
    try:
        value: Any = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(field="body", rule="json", detail=str(error)) from error
    if not isinstance(value, dict):
        raise Invalid(field="body", rule="json", detail="not an object")
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise Invalid(field="body", rule="json", detail=f"nested deeper than {MAX_DEPTH}")
    return cast("dict[str, Any]", clean_json(value) if b"\\u0000" in body else value)


def _nodes(body: bytes) -> int:
    return body.count(b"{") + body.count(b"[") + body.count(b":")


def _depth(value: Any) -> int:
    """The nesting depth of ``value``; the outermost container is level 1. Iterates by level, without recursion."""
    depth = 0
    level: list[Any] = [value]
    while level:
        children: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                children.extend(cast("dict[str, Any]", item).values())
            elif isinstance(item, list):
                children.extend(cast("list[Any]", item))
        if not any(isinstance(item, dict | list) for item in level):
            break
        depth += 1
        level = children
    return depth


fields = cache(msgspec.structs.fields)
"""The fields of a ``Struct``, cached: msgspec recomputes them on every call."""


def parse(shape: type[S], members: dict[str, Any], *, digits_are_numbers: bool = False) -> S:
    """Convert ``members`` to a ``shape``. ``null`` equals absent; unknown members are ignored.

    Fields are checked in the order of their declaration. Raises ``Invalid(field, rule="type")`` for the first wrong
    one.
    """
    values: dict[str, Any] = {}
    for field in fields(shape):
        value = members.get(field.encode_name)
        if value is None:
            continue
        if digits_are_numbers:
            value = _from_digits(value)
        try:
            values[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            if digits_are_numbers and value is not members[field.encode_name]:
                try:  # the field may be a string
                    values[field.name] = msgspec.convert(members[field.encode_name], field.type)
                    continue
                except msgspec.ValidationError:
                    pass
            raise Invalid(field=field.encode_name, rule="type", detail=str(error)) from error
    return shape(**values)


def _from_digits(value: Any) -> Any:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_from_digits(item) for item in cast("list[Any]", value)]
    return value


def valid_id(number: int) -> int | None:
    """``number`` if it is in the range of ids, else ``None``."""
    return number if 0 < number <= MAX_ID else None


_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


def idempotency_key_header(request: Request) -> str | None:
    """The request's ``Idempotency-Key``, or ``None`` without one. Raises ``Invalid(field="Idempotency-Key")``."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Invalid(field="Idempotency-Key", rule="range", detail="1 to 255 characters from 0x21 to 0x7E")
    return key


def idempotency_key(request: Request, scope: str) -> IdempotencyKey | None:
    """The request's ``Idempotency-Key``, or ``None`` without one. ``scope`` is the method and path, normalized to one
    form per call. Raises ``Invalid(field="Idempotency-Key")``."""
    key = idempotency_key_header(request)
    if key is None:
        return None
    body = sha256(request.body).digest() if request.upload is None else request.upload.digest
    return IdempotencyKey(scope=scope, key=key, digest=sha256(request.query_string.encode() + b"\0" + body).digest())
