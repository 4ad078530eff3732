"""Surface A. Source: the vendor's page, and the wire specification ``snail.md``, sections 4 and 5."""

from __future__ import annotations

from palaver.core.chat import NewMessage
from palaver.core.problems import NotFound, Unauthenticated
from palaver.core.types import Principal, Text
from palaver.dialects.snail import openapi
from palaver.dialects.snail.errors import CHAT, EVENT_STREAM, NDJSON, SEARCH, success, wants_events
from palaver.dialects.snail.requests import SearchRequest, SnailChatRequest, checked, wanted
from palaver.dialects.snail.responses import found_shown, name_of
from palaver.dialects.snail.stream import SnailNdjsonEncoder, SnailSseEncoder
from palaver.wire.bodies import as_id, idempotency_key, json_object, parse
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.framing import header_value

PASSAGES = 10
"""How many passages a search answers at most."""


async def chat(call: Request, who: Principal, room: Services) -> StreamingResponse:
    """Say something to an agent and follow the answer."""
    members = json_object(call.body)
    request = checked(parse(SnailChatRequest, members, digits_are_numbers=True))
    if who.user is not None and who.user != request.user:
        raise Unauthenticated(reason="user", subject=request.user)
    who = who.acting_for(request.user)
    number = as_id(request.agent)
    if number is None:
        raise NotFound(noun="agent", ref=str(request.agent))
    agent = await room.chat.agent(who, number)
    claim = idempotency_key(call, f"POST {CHAT}")
    said = NewMessage(
        parts=(Text(text=request.content),),
        disabled_tools=request.off,
        idempotency_key=claim,
        trace=call.trace,
        stop_abandoned=True,
    )
    sent = await room.chat.send(who, agent, said, conversation=request.conversation, create_as=request.conversation)
    name = name_of(sent.conversation)
    headers = (("X-Conversation-Id", header_value(name)),)
    if wants_events(call):
        return StreamingResponse(
            reader=sent.reader,
            replayed=sent.replayed,
            encoder=SnailSseEncoder(name, sent.run),
            media_type=EVENT_STREAM,
            headers=headers,
        )
    return StreamingResponse(
        reader=sent.reader, replayed=sent.replayed, encoder=SnailNdjsonEncoder(name), media_type=NDJSON, headers=headers
    )


async def search(call: Request, who: Principal, room: Services) -> Response:
    """The best passages of one knowledge base."""
    request = parse(SearchRequest, json_object(call.body), digits_are_numbers=True)
    base, query = wanted(request)
    number = as_id(base)
    if number is None:
        raise NotFound(noun="knowledge", ref=str(base))
    passages, took_ms = await room.knowledge.search(who, number, query, PASSAGES)
    return success(found_shown(passages, took_ms, debug=request.debug is True))


ROUTES = (
    Route(
        method="POST",
        path=CHAT,
        handle=chat,
        purpose="send a message, read the answer line by line",
        idempotent=True,
        operation=openapi.CHAT,
    ),
    Route(method="POST", path=SEARCH, handle=search, purpose="search one knowledge base", operation=openapi.SEARCH),
)
