"""Messages and their answers, whichever path they come by."""

from __future__ import annotations

from palaver.core.chat import NewMessage
from palaver.core.ports.store import IdempotencyKey
from palaver.core.problems import Busy, NotFound
from palaver.core.types import Agent, AnyPart, Conversation, Principal
from palaver.dialects.xspace.errors import EVENT_STREAM, reason
from palaver.dialects.xspace.requests import XSpaceChatRequest
from palaver.dialects.xspace.stream import XSpaceEncoder, refusal
from palaver.wire.contract import Request, Response, Services, StreamingResponse


async def converse(
    request: Request,
    who: Principal,
    services: Services,
    *,
    to: tuple[Conversation, Agent],
    body: XSpaceChatRequest,
    parts: tuple[AnyPart, ...],
    claim: IdempotencyKey | None,
) -> Response | StreamingResponse:
    """Say ``parts`` in a conversation and follow the answer."""
    conversation, agent = to
    message = NewMessage(
        parts=parts,
        variables=body.variableParams or {},
        variables_field="variableParams",
        idempotency_key=claim,
        trace=request.trace,
    )
    try:
        sent = await services.chat.send(who, agent, message, conversation=conversation.id)
    except (NotFound, Busy) as problem:
        return refused(problem, request)
    started = round(sent.answer.created.timestamp() * 1000)
    return StreamingResponse(
        reader=sent.reader,
        replayed=sent.replayed,
        encoder=XSpaceEncoder(sent.run_uid, started),
        media_type=EVENT_STREAM,
    )


def refused(problem: NotFound | Busy, request: Request) -> Response:
    """The stream of a message that is not accepted."""
    return Response(media_type=EVENT_STREAM, chunks=refusal(reason(problem, request)))
