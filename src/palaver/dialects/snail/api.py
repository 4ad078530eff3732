"""The routes. Source: the vendor's page, and the wire specification ``snail.md``, section 4."""

from __future__ import annotations

import re
from urllib.parse import quote

from palaver.core.chat import Said
from palaver.core.problems import NotFound, Unauthenticated
from palaver.core.types import Conversation, Principal, Text
from palaver.dialects.snail.shapes import ChatRequest, checked
from palaver.dialects.snail.stream import Frames, Lines
from palaver.dialects.snail.words import EVENT_STREAM, NDJSON, wants_events
from palaver.wire.bodies import as_id, idempotency, json_object, read
from palaver.wire.contract import Call, Room, Route, Stream

_PLAIN = re.compile(r"[\x21-\x7e]+", re.ASCII)
_KEPT = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


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
    claim = idempotency(call, "POST /snail-ai/open-api/chat")
    said = Said(parts=(Text(text=request.content),), off=request.off, claim=claim, trace=call.trace)
    sent = await room.chat.send(who, agent, said, conversation=request.conversation, create_as=request.conversation)
    name = shown(sent.conversation)
    headers = (("X-Conversation-Id", in_header(name)),)
    if wants_events(call):
        return Stream(sent=sent, encoder=Frames(name, sent.run), media_type=EVENT_STREAM, headers=headers)
    return Stream(sent=sent, encoder=Lines(name), media_type=NDJSON, headers=headers)


def shown(conversation: Conversation) -> str:
    """The id a caller sees: the one it chose, else the UUID."""
    return conversation.alias if conversation.alias is not None else str(conversation.uid)


def in_header(name: str) -> str:
    """``name`` as a header's value: percent-encoded UTF-8 where it has characters that do not go there."""
    return name if _PLAIN.fullmatch(name) else quote(name, safe=_KEPT)


ROUTES = (
    Route(
        method="POST",
        path="/snail-ai/open-api/chat",
        handle=chat,
        purpose="send a message, read the answer line by line",
        creating=True,
    ),
)
