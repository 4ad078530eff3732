"""Surface A. Source: the vendor's page, and the wire specification ``snail.md``, sections 4 and 5."""

from __future__ import annotations

from palaver.core.chat import NewMessage
from palaver.core.problems import NotFound, Unauthenticated
from palaver.core.types import Principal, Text
from palaver.dialects.snail import openapi
from palaver.dialects.snail.errors import CHAT, EVENT_STREAM, NDJSON, SEARCH, success, wants_events
from palaver.dialects.snail.requests import SearchRequest, SnailChatRequest, search_terms, validated
from palaver.dialects.snail.responses import name_of, search_response
from palaver.dialects.snail.stream import SnailNdjsonEncoder, SnailSseEncoder
from palaver.wire.bodies import as_id, idempotency_key, json_object, parse
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.framing import header_value

PASSAGES = 10
"""How many passages a search answers at most."""


async def chat(request: Request, who: Principal, services: Services) -> StreamingResponse:
    """Say something to an agent and follow the answer."""
    members = json_object(request.body)
    body = validated(parse(SnailChatRequest, members, digits_are_numbers=True))
    if who.user is not None and who.user != body.user:
        raise Unauthenticated(reason="user", subject=body.user)
    who = who.acting_for(body.user)
    number = as_id(body.agent)
    if number is None:
        raise NotFound(noun="agent", ref=str(body.agent))
    agent = await services.chat.agent(who, number)
    claim = idempotency_key(request, f"POST {CHAT}")
    message = NewMessage(
        parts=(Text(text=body.content),),
        disabled_tools=body.off,
        idempotency_key=claim,
        trace=request.trace,
        stop_abandoned=True,
    )
    sent = await services.chat.send(who, agent, message, conversation=body.conversation, create_as=body.conversation)
    name = name_of(sent.conversation)
    headers = (("X-Conversation-Id", header_value(name)),)
    if wants_events(request):
        return StreamingResponse(
            reader=sent.reader,
            replayed=sent.replayed,
            encoder=SnailSseEncoder(name, sent.run_uid),
            media_type=EVENT_STREAM,
            headers=headers,
        )
    return StreamingResponse(
        reader=sent.reader, replayed=sent.replayed, encoder=SnailNdjsonEncoder(name), media_type=NDJSON, headers=headers
    )


async def search(request: Request, who: Principal, services: Services) -> Response:
    """The best passages of one knowledge base."""
    body = parse(SearchRequest, json_object(request.body), digits_are_numbers=True)
    base, query = search_terms(body)
    number = as_id(base)
    if number is None:
        raise NotFound(noun="knowledge", ref=str(base))
    passages, took_ms = await services.knowledge.search(who, number, query, PASSAGES)
    return success(search_response(passages, took_ms, debug=body.debug is True))


ROUTES = (
    Route(
        method="POST",
        path=CHAT,
        endpoint=chat,
        summary="send a message, read the answer line by line",
        idempotent=True,
        operation=openapi.CHAT,
    ),
    Route(method="POST", path=SEARCH, endpoint=search, summary="search one knowledge base", operation=openapi.SEARCH),
)
