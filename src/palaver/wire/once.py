"""An answer that is given once for one ``Idempotency-Key``: for creating calls that begin no run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from palaver.core.ports import Answer, Claim
from palaver.core.types import Principal
from palaver.wire.contract import Reply, Room

REPLAYED = ("Idempotency-Replayed", "true")


async def once(room: Room, who: Principal, claim: Claim | None, work: Callable[[], Awaitable[Reply]]) -> Reply:
    """What ``work`` answers, or what it answered to an equal call before, byte for byte; an equal call that still
    works is waited for. An error that ``work`` raises leaves the key free. Raises ``Conflict``."""
    if claim is None:
        return await work()

    async def answer() -> Answer:
        reply = await work()
        return Answer(status=reply.status, media_type=reply.media_type, headers=reply.headers, body=reply.body)

    given, replayed = await room.answers.once(who, claim, answer)
    headers = (*given.headers, REPLAYED) if replayed else given.headers
    return Reply(status=given.status, body=given.body, media_type=given.media_type, headers=headers)
