"""Surface A. Source: the vendor's page, and the wire specification ``snail.md``, sections 4 and 5."""

from __future__ import annotations

from palaver.core.chat import Said
from palaver.core.problems import NotFound, Unauthenticated
from palaver.core.types import Principal, Text
from palaver.dialects.snail import described
from palaver.dialects.snail.shapes import ChatRequest, SearchRequest, checked, wanted
from palaver.dialects.snail.shown import found_shown, name_of
from palaver.dialects.snail.stream import Frames, Lines
from palaver.dialects.snail.words import CHAT, EVENT_STREAM, NDJSON, SEARCH, success, wants_events
from palaver.wire.bodies import as_id, idempotency, json_object, read
from palaver.wire.contract import Call, Reply, Room, Route, Stream
from palaver.wire.framing import in_header

PASSAGES = 10
"""How many passages a search answers at most."""


async def chat(call: Call, who: Principal, room: Room) -> Stream:
    """Say something to an agent and follow the answer."""
    members = json_object(call.body)
    request = checked(read(ChatRequest, members, digits_are_numbers=True))
    if who.user is not None and who.user != request.user:
        raise Unauthenticated(reason="user", subject=request.user)
    who = who.acting_for(request.user)
    number = as_id(request.agent)
    if number is None:
        raise NotFound(noun="agent", ref=str(request.agent))
    agent = await room.chat.agent(who, number)
    claim = idempotency(call, f"POST {CHAT}")
    said = Said(
        parts=(Text(text=request.content),), off=request.off, claim=claim, trace=call.trace, stop_abandoned=True
    )
    sent = await room.chat.send(who, agent, said, conversation=request.conversation, create_as=request.conversation)
    name = name_of(sent.conversation)
    headers = (("X-Conversation-Id", in_header(name)),)
    if wants_events(call):
        return Stream(
            reader=sent.reader,
            replayed=sent.replayed,
            encoder=Frames(name, sent.run),
            media_type=EVENT_STREAM,
            headers=headers,
        )
    return Stream(reader=sent.reader, replayed=sent.replayed, encoder=Lines(name), media_type=NDJSON, headers=headers)


async def search(call: Call, who: Principal, room: Room) -> Reply:
    """The best passages of one knowledge base."""
    request = read(SearchRequest, json_object(call.body), digits_are_numbers=True)
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
        creating=True,
        told=described.CHAT,
    ),
    Route(method="POST", path=SEARCH, handle=search, purpose="search one knowledge base", told=described.SEARCH),
)
