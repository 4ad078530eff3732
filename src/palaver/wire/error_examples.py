"""The error responses of a route, for its documentation: every problem that the route may raise is passed through the
dialect's own ``refuse``, so that the documentation matches the actual responses."""

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
"""The ``Accept`` headers that affect the form of a refusal: callers that read events receive it as an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorExample:
    """One error response, named after its problem."""

    name: str
    reply: Response


def error_examples(dialect: Dialect, route: Route) -> list[ErrorExample]:
    """The route's distinct error responses."""
    distinct: dict[tuple[int, str, bytes], ErrorExample] = {}
    for request in _requests(route):
        for name, problem in _problems(dialect, route):
            for credential in _credentials(dialect):
                reply = dialect.refuse(problem, request, credential)
                distinct.setdefault((reply.status, reply.media_type, reply.body), ErrorExample(name=name, reply=reply))
    return list(distinct.values())


def _problems(dialect: Dialect, route: Route) -> Iterator[tuple[str, AnyProblem]]:
    """The problems that the route may raise, with a name for each."""
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
    operation = route.operation
    if operation is not None and operation.body is not None:
        if operation.body.media_type == "multipart/form-data":
            yield "invalid, multipart", Invalid(field="multipart", rule="type")
        elif operation.body.media_type == JSON:
            yield "invalid, body", Invalid(field="body", rule="json")
            if not operation.body.empty:
                yield "invalid, body missing", Invalid(field="body", rule="required")
    if route.idempotent:
        yield "invalid, Idempotency-Key", Invalid(field="Idempotency-Key", rule="range")
    if dialect.info is not None and not route.public:
        for header in dialect.info.headers:
            if "maxLength" in msgspec.json.schema(header.shape):
                yield f"invalid, {header.name}", Invalid(field=header.name, rule="length")
    for field, required in () if route.public else _members(route):  # public routes document their own errors
        for rule in _RULES:
            if rule != "required" or field in required:
                yield f"invalid, {field} {rule}", Invalid(field=field, rule=rule)


def _members(route: Route) -> Iterator[tuple[str, Sequence[str]]]:
    """The fields of body and query, each with the names of the required fields."""
    for spec in () if route.operation is None else (route.operation.body, route.operation.query):
        if spec is not None and spec.shape is not None:
            for field in msgspec.structs.fields(spec.shape):
                yield field.encode_name, spec.required


def _requests(route: Route) -> Iterator[Request]:
    """A request to the route with each ``Accept`` header, with a constant time and trace."""
    for accept in _ACCEPTS:
        yield Request(
            method=route.method,
            path=route.path,
            target=route.path,
            headers=Headers([(b"accept", accept.encode())]),
            route=route.path,
            path_params={},
            body=b"",
            now=1_776_085_642.0,
            trace="0123456789abcdef" * 2,
            base_url="https://example.com",
        )


def _credentials(dialect: Dialect) -> list[ApiKey | None]:
    """No credential, and one for each settings variant that changes the status of error responses."""
    variants = () if dialect.info is None else dialect.info.credential_variants
    return [
        None,
        *(
            ApiKey(
                app=1,
                number=1,
                dialect=dialect.name,
                id=_EXAMPLE,
                secret=_EXAMPLE,
                enabled=True,
                settings=dict(variant),
            )
            for variant in variants
        ),
    ]
