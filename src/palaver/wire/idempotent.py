"""An answer that is given once for one ``Idempotency-Key``: for creating calls that begin no run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from palaver.core.ports.store import IdempotencyKey, StoredResponse
from palaver.core.types import Conversation, Principal, StoredFile
from palaver.wire.contract import Response, Services

REPLAYED = ("Idempotency-Replayed", "true")


Subject = Conversation | StoredFile | None
"""What an answer is about; ``None``: its end user alone. A kept answer goes when its subject goes."""


async def answer_once(
    room: Services,
    who: Principal,
    claim: IdempotencyKey | None,
    work: Callable[[], Awaitable[tuple[Response, Subject]]],
) -> Response:
    """What ``work`` answers, or what it answered to an equal call before, byte for byte; an equal call that still
    works is waited for. An error that ``work`` raises leaves the key free. Raises ``Conflict``."""
    if claim is None:
        reply, _ = await work()
        return reply

    async def answer() -> StoredResponse:
        reply, subject = await work()
        return StoredResponse(
            status=reply.status,
            media_type=reply.media_type,
            headers=reply.headers,
            body=reply.body,
            conversation=subject.id if isinstance(subject, Conversation) else None,
            file=subject.id if isinstance(subject, StoredFile) else None,
        )

    given, replayed = await room.idempotency.run_once(who, claim, answer)
    headers = (*given.headers, REPLAYED) if replayed else given.headers
    return Response(status=given.status, body=given.body, media_type=given.media_type, headers=headers)
