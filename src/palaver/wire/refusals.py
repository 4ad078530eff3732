"""Every refusal that a route can answer, found by refusing: each kind of problem the route may meet goes through the
dialect's own ``refuse``, so that what is documented is what is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import msgspec

from palaver.core.problems import (
    AnyProblem,
    AuthReason,
    Busy,
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    NotFound,
    Noun,
    Rule,
    Unauthenticated,
    Upstream,
)
from palaver.core.types import ApiKey
from palaver.wire.contract import JSON, Dialect, Headers, Request, Response, Route

_EXAMPLE = "example"
_NOUNS: tuple[Noun, ...] = tuple(noun for noun in get_args(Noun) if noun not in {"route", "method"})
_RULES: tuple[Rule, ...] = ("required", "type", "range", "length")
_REASONS: tuple[AuthReason, ...] = get_args(AuthReason)
_ACCEPTS = ("*/*", "text/event-stream")
"""What decides over the form of a refusal: callers who read events get it as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal, called by the problem it is the answer to."""

    name: str
    reply: Response


def refusals(dialect: Dialect, route: Route) -> list[Refusal]:
    """The route's refusals, each text once."""
    found: dict[tuple[int, str, bytes], Refusal] = {}
    for call in _calls(route):
        for name, problem in _problems(dialect, route):
            for key in _keys(dialect):
                reply = dialect.refuse(problem, call, key)
                found.setdefault((reply.status, reply.media_type, reply.body), Refusal(name=name, reply=reply))
    return list(found.values())


def _problems(dialect: Dialect, route: Route) -> Iterator[tuple[str, AnyProblem]]:
    """What the route may meet, with a name for each."""
    if not route.public:
        for reason in _REASONS:
            yield f"unauthenticated, {reason}", Unauthenticated(reason=reason, subject=_EXAMPLE)
        yield "forbidden", Forbidden(reason="scope")
        for limit in ("rate", "usage"):
            yield f"busy, {limit}", Busy(reason=limit)
    nouns = _NOUNS if route.operation is None else route.operation.not_found
    for noun in nouns:
        yield f"not found, {noun}", NotFound(noun=noun, ref="1")
    if {"agent", "conversation"} <= {*nouns}:
        yield "conflict, agent", Conflict(reason="agent")
    yield from _invalid(dialect, route)
    if route.method != "GET":
        yield "upstream, connect", Upstream(reason="connect")
        yield "upstream, configuration", Upstream(reason="configuration")
    if route.idempotent:
        yield "conflict, idempotency", Conflict(reason="idempotency")
        yield "busy, waiting", Busy(reason="waiting")
        yield "busy, full", Busy(reason="full")
    yield "internal", Internal(reason="database")


def _invalid(dialect: Dialect, route: Route) -> Iterator[tuple[str, Invalid]]:
    yield "invalid, body too large", Invalid(field="body", rule="size")
    told = route.operation
    if told is not None and told.body is not None:
        if told.body.media_type == "multipart/form-data":
            yield "invalid, multipart", Invalid(field="multipart", rule="type")
        elif told.body.media_type == JSON:
            yield "invalid, body", Invalid(field="body", rule="json")
            if not told.body.empty:
                yield "invalid, body missing", Invalid(field="body", rule="required")
    if route.idempotent:
        yield "invalid, Idempotency-Key", Invalid(field="Idempotency-Key", rule="range")
    if dialect.info is not None and not route.public:
        for header in dialect.info.headers:
            if "maxLength" in msgspec.json.schema(header.shape):
                yield f"invalid, {header.name}", Invalid(field=header.name, rule="length")
    for field, required in () if route.public else _members(route):  # a public route says by itself what is wrong
        for rule in _RULES:
            if rule != "required" or field in required:
                yield f"invalid, {field} {rule}", Invalid(field=field, rule=rule)


def _members(route: Route) -> Iterator[tuple[str, Sequence[str]]]:
    """The fields of body and query, each beside the required ones."""
    for given in () if route.operation is None else (route.operation.body, route.operation.query):
        if given is not None and given.shape is not None:
            for field in msgspec.structs.fields(given.shape):
                yield field.encode_name, given.required


def _calls(route: Route) -> Iterator[Request]:
    """A call of the route by each kind of reader, at a moment and with a trace that are always the same."""
    for accept in _ACCEPTS:
        yield Request(
            method=route.method,
            path=route.path,
            target=route.path,
            headers=Headers([(b"accept", accept.encode())]),
            route=route.path,
            params={},
            body=b"",
            now=1_776_085_642.0,
            trace="0123456789abcdef" * 2,
            origin="https://example.com",
        )


def _keys(dialect: Dialect) -> list[ApiKey | None]:
    """No credential, and one of each kind whose refusals have statuses of their own."""
    kinds = () if dialect.info is None else dialect.info.keys
    return [
        None,
        *(
            ApiKey(
                app=1, number=1, dialect=dialect.name, id=_EXAMPLE, secret=_EXAMPLE, enabled=True, settings=dict(given)
            )
            for given in kinds
        ),
    ]
