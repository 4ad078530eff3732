"""What callers send. Source: the vendor's page, and the wire specification ``wps.md``, sections 4.1 and 6."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from palaver.core.problems import Invalid
from palaver.wire.bodies import read

MAX_NAME = 255
MAX_PAGE = 100
MAX_FIELDS = 1000


class Pair(msgspec.Struct, kw_only=True):
    key: str
    value: str | None = None


class CreateChat(msgspec.Struct, kw_only=True):
    """The body of create chat."""

    text: str | None = None
    stream: bool | None = None
    session_id: str | None = None
    files: list[str] | None = None
    variables: list[Pair] | None = None

    @property
    def session(self) -> str | None:
        return self.session_id if self.session_id is not None and self.session_id.strip() else None

    @property
    def values(self) -> dict[str, Any]:
        """The run's variables; of a repeated key the last counts."""
        return {pair.key: pair.value for pair in self.variables or () if pair.value is not None}


class CreateSession(msgspec.Struct, kw_only=True):
    """The body of create session."""

    name: str | None = None


def create_chat(members: dict[str, Any]) -> CreateChat:
    """Raises ``Invalid``: what is missing comes before what is wrong."""
    required(members, "text")
    return read(CreateChat, members)


def create_session(members: dict[str, Any]) -> CreateSession:
    request = read(CreateSession, members)
    if request.name is not None and len(request.name) > MAX_NAME:
        raise Invalid(field="name", rule="length", detail=f"more than {MAX_NAME} characters")
    return request


def required(members: Mapping[str, Any], name: str) -> Any:
    """The member of that name. Raises ``Invalid`` where it is absent, null or blank."""
    value = members.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Invalid(field=name, rule="required")
    return value


def form(encoded: str) -> dict[str, str]:
    """The members of a query or a form; of a repeated one the last counts. Raises ``Invalid`` for too many."""
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, errors="replace", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise Invalid(field="query", rule="length", detail=str(error)) from error
    return {name: value.replace("\0", "\ufffd") for name, value in pairs}


def page_size(query: Mapping[str, str], default: int | None = None) -> int:
    """How many items a page has. Raises ``Invalid``, also where there is none and no ``default``."""
    text = query.get("page_size", "").strip()
    if not text and default is not None:
        return default
    required(query, "page_size")
    if not text.isascii() or not text.isdigit() or len(text) > 3 or not 1 <= int(text) <= MAX_PAGE:
        raise Invalid(field="page_size", rule="range", detail=f"1 to {MAX_PAGE}")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A member that is ``true`` or ``false``, and false where it is absent."""
    match query.get(name, "").strip().lower():
        case "true":
            return True
        case "" | "false":
            return False
        case text:
            raise Invalid(field=name, rule="choice", detail=f"{text[:40]!r} is neither true nor false")
