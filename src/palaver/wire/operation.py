"""What routes and dialects say of themselves, so that a document can be made of it: values that serve no call.

A shape is a type that ``msgspec`` can describe: for requests the very ``Struct`` that the handler reads with, for
answers one of what it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from palaver.core.events import Event, PartStarted, TextDelta
from palaver.core.problems import Noun
from palaver.core.types import RunEnded, Status, Text, Thinking

Shape = Any
"""A ``Struct``, or another type that ``msgspec.json.schema`` takes."""
Examples = Mapping[str, Any]
"""By the name that a reader sees."""
JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A segment of a path, or a header."""

    name: str
    meaning: str
    shape: Shape = str
    example: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BodySpec:
    """What a call brings; without a ``shape`` it is bytes. ``required`` are the members without which it is refused,
    ``without`` those that its credential says instead; ``empty`` says that no body at all is as good as one without
    members. ``files`` are the fields of a form that are files."""

    shape: type[msgspec.Struct] | None = None
    required: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    examples: Examples = field(default_factory=dict[str, Any])
    media_type: str = JSON
    empty: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySpec:
    """What a call brings behind its question mark."""

    shape: type[msgspec.Struct]
    required: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    example: Examples = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSpec:
    """One answer of a call that went well, or a refusal that is the route's own. ``shape`` is ``None`` for text and
    bytes; ``media_type`` is empty where there is no body."""

    meaning: str
    status: int = 200
    media_type: str = JSON
    shape: Shape | None = None
    examples: Examples = field(default_factory=dict[str, Any])
    headers: tuple[Parameter, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one route takes and gives, beside the refusals that its dialect has for every route."""

    source: str
    """The vendor's page or the section of the wire specification that it comes from."""
    responses: tuple[ResponseSpec, ...] = ()
    body: BodySpec | None = None
    query: QuerySpec | None = None
    not_found: tuple[Noun, ...] = ()
    """What it may look for in vain."""
    more: str = ""
    """What its purpose leaves open, in Markdown."""
    needs: tuple[tuple[str, ...], ...] | None = None
    """Credentials other than the dialect's usual ones; see ``DialectInfo.needs``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityScheme:
    """One part of a credential: ``Authorization: Bearer …``, or a header of the vendor's own."""

    name: str
    meaning: str
    kind: Literal["bearer", "header"] = "header"
    header: str = "Authorization"


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectInfo:
    """What is the same on all routes of a dialect."""

    title: str
    meaning: str
    refusal: Shape
    """The form of ``Dialect.refuse`` where it is JSON."""
    schemes: tuple[SecurityScheme, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()
    """The schemes that let a caller in: one of these groups, every scheme of it. None: all schemes together."""
    path: tuple[Parameter, ...] = ()
    """The ``{name}`` segments of its paths."""
    headers: tuple[Parameter, ...] = ()
    """What calls with a credential may carry beside it."""
    keys: tuple[Mapping[str, Any], ...] = ()
    """Settings of credentials whose refusals have different statuses."""


def example_run() -> list[Event]:
    """A short run, for examples of streams that an encoder itself has written."""
    return [
        PartStarted(part=Thinking()),
        TextDelta(text="look it up"),
        PartStarted(part=Text()),
        TextDelta(text="It is "),
        TextDelta(text="sunny."),
        RunEnded(status=Status.COMPLETE, at=1_776_085_642_000),
    ]
