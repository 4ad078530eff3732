"""Sending messages, for both chat routes."""

from __future__ import annotations

from palaver.core.chat import NewMessage
from palaver.core.ports.store import IdempotencyKey
from palaver.core.problems import Busy, NotFound
from palaver.core.types import Agent, AnyPart, Conversation, Principal
from palaver.dialects.xspace.errors import EVENT_STREAM, rejection_reason
from palaver.dialects.xspace.requests import XSpaceChatRequest
from palaver.dialects.xspace.stream import XSpaceEncoder, rejection
from palaver.wire.contract import Request, Response, Services, StreamingResponse


async def send_message(
    request: Request,
    principal: Principal,
    services: Services,
    *,
    to: tuple[Conversation, Agent],
    body: XSpaceChatRequest,
    parts: tuple[AnyPart, ...],
    idempotency_key: IdempotencyKey | None,
) -> Response | StreamingResponse:
    """Send ``parts`` in a conversation and stream the answer."""
    conversation, agent = to
    message = NewMessage(
        parts=parts,
        variables=body.variable_params or {},
        variables_field="variableParams",
        idempotency_key=idempotency_key,
        trace=request.trace,
    )
    try:
        sent = await services.chat.send(principal, agent, message, conversation=conversation.id)
    except (NotFound, Busy) as problem:
        return rejected(problem, request)
    started = round(sent.answer.created.timestamp() * 1000)
    return StreamingResponse(
        reader=sent.reader,
        replayed=sent.replayed,
        encoder=XSpaceEncoder(sent.run_uid, started),
        media_type=EVENT_STREAM,
    )


def rejected(problem: NotFound | Busy, request: Request) -> Response:
    """The stream of a message that is not accepted."""
    return Response(media_type=EVENT_STREAM, chunks=rejection(rejection_reason(problem, request)))
