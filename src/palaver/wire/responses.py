"""The values that endpoints return, and how they are rendered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from palaver.core.ports.store import IdempotencyKey
from palaver.core.types import Principal
from palaver.wire.contract import Request, Response, ResponseType, Services, StreamingResponse
from palaver.wire.framing import compact_json
from palaver.wire.idempotent import Subject, answer_once
from palaver.wire.list_response import EMPTY, EncodedItems, split_at_placeholder
from palaver.wire.operation import Shape

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONResponse(Generic[T]):
    """A value with a status and headers of its own."""

    content: T
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    counts_toward_quota: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ListResponse(Generic[T]):
    """A value with ``items`` at the first occurrence of ``placeholder`` in its JSON."""

    content: T
    items: EncodedItems
    placeholder: bytes = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentResponse(Generic[T]):
    """The value of ``create``, which is called once per ``key``, or a replay of the response to an earlier identical
    call. ``key`` is ``None`` for calls without an ``Idempotency-Key``. It is the key of the ``principal``'s end user;
    ``None``: the one that the endpoint was called with."""

    key: IdempotencyKey | None
    principal: Principal | None = None
    create: Callable[[], Awaitable[tuple[T | JSONResponse[T], Subject]]]


JSONValue = T | JSONResponse[T] | ListResponse[T] | IdempotentResponse[T]
"""What the endpoint of a route with a JSON response of type ``T`` may return."""


def json_response(shape: Shape, envelope: Callable[[Request, T], Any]) -> ResponseType[JSONValue[T]]:
    """A JSON response: the endpoint's value in the dialect's ``envelope``, of which ``shape`` is the type."""

    def encode(request: Request, value: Any) -> Response:
        match value:
            case JSONResponse():
                response = cast("JSONResponse[T]", value)
                return Response(
                    status=response.status,
                    body=compact_json(envelope(request, response.content)),
                    headers=response.headers,
                    counts_toward_quota=response.counts_toward_quota,
                )
            case ListResponse():
                array = cast("ListResponse[T]", value)
                body = compact_json(envelope(request, array.content))
                return array.items.response(*split_at_placeholder(body, array.placeholder))
            case _:
                return Response(body=compact_json(envelope(request, value)))

    async def render(request: Request, principal: Principal, services: Services, value: Any) -> Response:
        if not isinstance(value, IdempotentResponse):
            return encode(request, value)
        call = cast("IdempotentResponse[T]", value)

        async def work() -> tuple[Response, Subject]:
            created, subject = await call.create()
            return encode(request, created), subject

        return await answer_once(services, call.principal or principal, call.key, work)

    return ResponseType(shape=shape, render=render)


async def _render_raw(_request: Request, _principal: Principal, _services: Services, response: Any) -> Any:
    return response


async def _render_nothing(_request: Request, _principal: Principal, _services: Services, _value: None) -> Response:
    return Response(status=204)


RAW: ResponseType[Response] = ResponseType(render=_render_raw)
"""Bytes, text, or a redirect: the endpoint returns the ``Response`` itself."""
NO_CONTENT: ResponseType[None] = ResponseType(render=_render_nothing)
"""Status 204."""
STREAM: ResponseType[StreamingResponse] = ResponseType(render=_render_raw)
"""A run's events, in the media type that the endpoint's encoder writes."""


def or_stream(response: ResponseType[T]) -> ResponseType[T | StreamingResponse]:
    """``response``, or a run's events."""

    async def render(
        request: Request, principal: Principal, services: Services, value: Any
    ) -> Response | StreamingResponse:
        if isinstance(value, StreamingResponse):
            return value
        return await response.render(request, principal, services, value)

    return ResponseType(shape=response.shape, render=render)
