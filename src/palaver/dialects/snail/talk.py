"""Surfaces B and C: conversations, and what is said in them.

Source: wire specification ``snail.md``, sections 6 to 8.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from palaver.core.chat import Said, Sent
from palaver.core.events import fold
from palaver.core.ports import Listing
from palaver.core.problems import Invalid, NotFound
from palaver.core.runs import collect
from palaver.core.types import MAX_ID, Agent, Conversation, Ended, Message, Principal, Text
from palaver.dialects.snail import described
from palaver.dialects.snail.agents import agent_of
from palaver.dialects.snail.shapes import (
    ListedConversations,
    Messages,
    NewConversation,
    OldConversations,
    Talk,
    asked,
    conversation_name,
    members,
    need,
    short_sid,
    stretch,
    switched_off,
)
from palaver.dialects.snail.shown import conversation_shown, message_shown, name_of
from palaver.dialects.snail.stream import FAILED, Frames
from palaver.dialects.snail.users import person
from palaver.dialects.snail.words import EVENT_STREAM, NO_TIME, B, failed, on_c, success, why
from palaver.wire.bodies import idempotency
from palaver.wire.contract import Call, Reply, Room, Route, Stream
from palaver.wire.framing import in_header
from palaver.wire.lists import around, told
from palaver.wire.once import REPLAYED, Subject, once

CONVERSATIONS = f"{B}/agent/conversations"
PAGE, PAGE_OF_C = 20, 50
WAIT_S = 300.0
"""How long ``/agent/chat/sync`` waits for a run's end."""


async def _acting(who: Principal, room: Room, open_id: str) -> Principal:
    return who.acting_for((await person(who, room, open_id)).name)


async def _agent_if_any(who: Principal, room: Room, number: int) -> Agent | None:
    """For calls that answer an agent there is not like one without conversations."""
    with suppress(NotFound):
        return await agent_of(who, room, number, enabled=False)
    return None


async def _conversation_if_any(who: Principal, room: Room, agent: Agent | None, name: str) -> Conversation | None:
    """The user's conversation of that name, if it is the agent's."""
    with suppress(NotFound):
        found = await room.chat.conversation(who, name)
        return found if agent is not None and found.agent == agent.id else None
    return None


# Conversations ------------------------------------------------------------------------------------------------------


async def list_conversations(call: Call, who: Principal, room: Room) -> Reply:
    request = asked(ListedConversations, members(call, who))
    number, open_id = need(request.agentId, "agentId"), need(request.openId, "openId")
    page, size = stretch(request.page, request.size, PAGE_OF_C if on_c(call) else PAGE)
    who = await _acting(who, room, open_id)
    agent = await _agent_if_any(who, room, number)
    if agent is None:
        return success([], page=page, size=size, total=0)
    listing = Listing(agent=agent.id, offset=min((page - 1) * size, MAX_ID), limit=size)
    found = await room.chat.conversations(who, listing)
    total = await room.chat.count(who, listing)
    return success([conversation_shown(one, room.site.timezone) for one in found], page=page, size=size, total=total)


async def create_conversation(call: Call, who: Principal, room: Room) -> Reply:
    request = asked(NewConversation, members(call, who))
    number, open_id = need(request.agentId, "agentId"), need(request.openId, "openId")
    title = need(request.title, "title")
    who = await _acting(who, room, open_id)
    agent = await agent_of(who, room, number)

    async def work() -> tuple[Reply, Subject]:
        made = await room.chat.create(who, agent, title=title)
        return success(conversation_shown(made, room.site.timezone)), made

    return await once(room, who, idempotency(call, f"POST {call.route}"), work)


async def delete_conversations(call: Call, who: Principal, room: Room) -> Reply:
    """One conversation, or all that the user has with the agent. Whoever names a blank one does not mean all."""
    given = members(call, who)
    request = asked(OldConversations, given)
    number, open_id = need(request.agentId, "agentId"), need(request.openId, "openId")
    name = conversation_name(request.conversationId)
    if name is None and "conversationId" in given:
        raise Invalid(field="conversationId", rule="required")
    who = await _acting(who, room, open_id)
    agent = await _agent_if_any(who, room, number)
    if name is None:
        if agent is not None:
            await room.chat.clear(who, agent)
        return success(None)
    found = await _conversation_if_any(who, room, agent, name)
    if found is not None:
        with suppress(NotFound):  # somebody else was faster
            await room.chat.delete(who, found.uid)
    return success(None)


async def list_messages(call: Call, who: Principal, room: Room) -> Reply:
    """Everything said in a conversation; an answer from its end on."""
    request = asked(Messages, members(call, who))
    number = need(request.agentId, "agentId")
    name = need(conversation_name(request.conversationId), "conversationId")
    who = await _acting(who, room, need(request.openId, "openId"))
    agent = await _agent_if_any(who, room, number)
    found = await _conversation_if_any(who, room, agent, name)
    if found is None:
        return success([])

    def show(message: Message) -> dict[str, Any] | None:
        return message_shown(message, room.site.timezone) if message.role == "user" or message.ended else None

    return await told(await room.chat.told(who, found.uid), show, around(success([]).body))


# Chat ---------------------------------------------------------------------------------------------------------------


async def _send(call: Call, who: Principal, room: Room, request: Talk) -> Sent:
    number, open_id = need(request.agentId, "agentId"), need(request.openId, "openId")
    content = need(request.content, "content")
    name = conversation_name(request.conversationId)
    short_sid(request.sid)
    who = await _acting(who, room, open_id)
    agent = await agent_of(who, room, number)
    said = Said(
        parts=(Text(text=content),),
        off=switched_off(request.disabledMcpServerIds, request.disabledSkillIds),
        claim=idempotency(call, f"POST {call.route}"),
        trace=call.trace,
        stop_abandoned=True,  # the only stop of the vendor's page and SDK is to close the connection
    )
    return await room.chat.send(who, agent, said, conversation=name, create_as=name)


async def chat(call: Call, who: Principal, room: Room) -> Stream:
    """Say something to an agent and follow the answer."""
    request = asked(Talk, members(call, who))
    sent = await _send(call, who, room, request)
    name = name_of(sent.conversation)
    # The run's id is random, and the same for a replay.
    encoder = Frames(name, sent.run if request.sid is None else request.sid)
    headers = (("X-Conversation-Id", in_header(name)),)
    return Stream(reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=EVENT_STREAM, headers=headers)


async def chat_sync(call: Call, who: Principal, room: Room) -> Reply:
    """Say something to an agent and wait for the answer."""
    sent = await _send(call, who, room, asked(Talk, members(call, who)))
    events = await collect(sent.reader, WAIT_S)
    headers = (REPLAYED,) if sent.replayed else ()
    if events is None:
        return failed(NO_TIME, headers)
    parts, ended = fold(events)
    assert ended is not None, "collected to its end"
    if ended.status in FAILED:
        return failed(why(ended.problem), headers)
    answer = {
        "conversationId": name_of(sent.conversation),
        "content": "".join(part.text for part in parts if isinstance(part, Text)),
        "durationMs": _duration_ms(sent, ended),
    }
    return success(answer, headers=headers)


def _duration_ms(sent: Sent, ended: Ended) -> int:
    """From the stored beginning to the stored end, so that a replay says the same."""
    return max(0, ended.at - round(sent.answer.created.timestamp() * 1000))


ROUTES = (
    Route(
        method="GET",
        path=CONVERSATIONS,
        handle=list_conversations,
        purpose="list conversations",
        told=described.CONVERSATIONS,
    ),
    Route(
        method="POST",
        path=CONVERSATIONS,
        handle=create_conversation,
        purpose="create a conversation",
        creating=True,
        told=described.NEW_CONVERSATION,
    ),
    Route(
        method="DELETE",
        path=CONVERSATIONS,
        handle=delete_conversations,
        purpose="delete one conversation, or all",
        told=described.OLD_CONVERSATIONS,
    ),
    Route(
        method="GET",
        path=f"{CONVERSATIONS}/messages",
        handle=list_messages,
        purpose="read a conversation",
        told=described.MESSAGES,
    ),
    Route(
        method="POST",
        path=f"{B}/agent/chat",
        handle=chat,
        purpose="send a message, follow the answer",
        creating=True,
        told=described.TALK,
    ),
    Route(
        method="POST",
        path=f"{B}/agent/chat/sync",
        handle=chat_sync,
        purpose="send a message, wait for the answer",
        creating=True,
        told=described.TALK_SYNC,
    ),
)
