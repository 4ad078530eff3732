"""Executing a call once per ``Idempotency-Key``, for routes that create something other than a run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from palaver.core.ports.store import IdempotencyKey, StoredResponse
from palaver.core.types import Conversation, Principal, StoredFile
from palaver.wire.contract import Response, Services

REPLAYED = ("Idempotency-Replayed", "true")


Subject = Conversation | StoredFile | None
"""The subject of a response; ``None``: only its end user. A stored response is deleted together with its subject."""


async def answer_once(
    services: Services,
    principal: Principal,
    key: IdempotencyKey | None,
    work: Callable[[], Awaitable[tuple[Response, Subject]]],
) -> Response:
    """The response of ``work``, or a byte-for-byte replay of an earlier identical call's; waits for an identical call
    in progress. An error that ``work`` raises releases the key. Raises ``Conflict`` for a different request."""
    if key is None:
        response, _ = await work()
        return response

    async def stored_response() -> StoredResponse:
        response, subject = await work()
        return StoredResponse(
            status=response.status,
            media_type=response.media_type,
            headers=response.headers,
            body=response.body,
            conversation=subject.id if isinstance(subject, Conversation) else None,
            file=subject.id if isinstance(subject, StoredFile) else None,
        )

    stored, replayed = await services.idempotency.run_once(principal, key, stored_response)
    headers = (*stored.headers, REPLAYED) if replayed else stored.headers
    return Response(status=stored.status, body=stored.body, media_type=stored.media_type, headers=headers)
