"""Surface A. Source: the vendor's page, and the wire specification ``snail.md``, sections 4 and 5."""

from __future__ import annotations

from palaver.core.chat import NewMessage
from palaver.core.problems import NotFound, Unauthenticated
from palaver.core.types import Principal, Text
from palaver.dialects.snail import openapi
from palaver.dialects.snail.errors import CHAT, EVENT_STREAM, NDJSON, SEARCH, wants_events
from palaver.dialects.snail.requests import SearchRequest, SnailChatRequest, search_terms, surface_a_request, validated
from palaver.dialects.snail.responses import SearchResponse, name_of, ok_response, search_response
from palaver.dialects.snail.stream import SnailNdjsonEncoder, SnailSseEncoder
from palaver.wire.bodies import idempotency_key, valid_id
from palaver.wire.contract import Request, Route, Services, StreamingResponse
from palaver.wire.framing import header_value
from palaver.wire.responses import STREAM

MAX_PASSAGES = 10


async def chat(request: Request, body: SnailChatRequest, principal: Principal, services: Services) -> StreamingResponse:
    """Send a message to an agent and stream the answer, as NDJSON or server-sent events."""
    valid = validated(body)
    if principal.user is not None and principal.user != valid.user:
        raise Unauthenticated(reason="user", subject=valid.user)
    principal = principal.acting_for(valid.user)
    number = valid_id(valid.agent)
    if number is None:
        raise NotFound(noun="agent", ref=str(valid.agent))
    agent = await services.chat.agent(principal, number)
    message = NewMessage(
        parts=(Text(text=valid.content),),
        disabled_tools=valid.disabled_tools,
        idempotency_key=idempotency_key(request, f"POST {CHAT}"),
        trace=request.trace,
        stop_abandoned=True,
    )
    turn = await services.chat.send(
        principal, agent, message, conversation=valid.conversation, create_as=valid.conversation
    )
    name = name_of(turn.conversation)
    headers = (("X-Conversation-Id", header_value(name)),)
    if wants_events(request):
        return StreamingResponse(
            reader=turn.reader,
            replayed=turn.replayed,
            encoder=SnailSseEncoder(name, turn.run_uid),
            media_type=EVENT_STREAM,
            headers=headers,
        )
    return StreamingResponse(
        reader=turn.reader, replayed=turn.replayed, encoder=SnailNdjsonEncoder(name), media_type=NDJSON, headers=headers
    )


async def search(_request: Request, body: SearchRequest, principal: Principal, services: Services) -> SearchResponse:
    """Search one knowledge base."""
    base, query = search_terms(body)
    number = valid_id(base)
    if number is None:
        raise NotFound(noun="knowledge", ref=str(base))
    passages, took_ms = await services.knowledge.search(principal, number, query, MAX_PASSAGES)
    return search_response(passages, took_ms, debug=body.debug is True)


ROUTES = (
    Route(
        method="POST",
        path=CHAT,
        endpoint=chat,
        request=surface_a_request(SnailChatRequest),
        response=STREAM,
        summary="send a message, stream the answer",
        idempotent=True,
        operation=openapi.CHAT,
    ),
    Route(
        method="POST",
        path=SEARCH,
        endpoint=search,
        request=surface_a_request(SearchRequest),
        response=ok_response(SearchResponse),
        summary="search one knowledge base",
        operation=openapi.SEARCH,
    ),
)
