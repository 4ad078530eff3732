"""Surfaces B and C: conversations, and what is said in them.

Source: wire specification ``snail.md``, sections 6 to 8.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from palaver.core.chat import NewMessage, Turn
from palaver.core.events import fold
from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Invalid, NotFound
from palaver.core.runs import collect
from palaver.core.types import MAX_ID, Agent, Conversation, Message, Principal, RunEnded, Text
from palaver.dialects.snail import openapi
from palaver.dialects.snail.agents import agent_of
from palaver.dialects.snail.errors import EVENT_STREAM, NO_TIME, B, failed, on_c, success, why
from palaver.dialects.snail.requests import (
    ConversationIdRequest,
    ListConversationsRequest,
    MessagesRequest,
    SnailNewConversationRequest,
    SurfaceBChatRequest,
    asked,
    conversation_name,
    members,
    need,
    short_sid,
    stretch,
    switched_off,
)
from palaver.dialects.snail.responses import conversation_shown, message_shown, name_of
from palaver.dialects.snail.stream import SnailSseEncoder
from palaver.dialects.snail.users import person
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.framing import header_value
from palaver.wire.idempotent import REPLAYED, Subject, answer_once
from palaver.wire.list_response import history_response, split_around

CONVERSATIONS = f"{B}/agent/conversations"
PAGE, PAGE_OF_C = 20, 50
WAIT_S = 300.0
"""How long ``/agent/chat/sync`` waits for a run's end."""


async def _acting(who: Principal, room: Services, open_id: str) -> Principal:
    return who.acting_for((await person(who, room, open_id)).name)


async def _agent_if_any(who: Principal, room: Services, number: int) -> Agent | None:
    """For calls that answer an agent there is not like one without conversations."""
    with suppress(NotFound):
        return await agent_of(who, room, number, enabled=False)
    return None


async def _conversation_if_any(who: Principal, room: Services, agent: Agent | None, name: str) -> Conversation | None:
    """The user's conversation of that name, if it is the agent's."""
    with suppress(NotFound):
        found = await room.chat.conversation(who, name)
        return found if agent is not None and found.agent == agent.id else None
    return None


# Conversations ------------------------------------------------------------------------------------------------------


async def list_conversations(call: Request, who: Principal, room: Services) -> Response:
    request = asked(ListConversationsRequest, members(call, who))
    number, open_id = need(request.agentId, "agentId"), need(request.openId, "openId")
    page, size = stretch(request.page, request.size, PAGE_OF_C if on_c(call) else PAGE)
    who = await _acting(who, room, open_id)
    agent = await _agent_if_any(who, room, number)
    if agent is None:
        return success([], page=page, size=size, total=0)
    listing = ConversationQuery(agent=agent.id, offset=min((page - 1) * size, MAX_ID), limit=size)
    found = await room.chat.conversations(who, listing)
    total = await room.chat.count(who, listing)
    return success(
        [conversation_shown(one, room.settings.timezone) for one in found], page=page, size=size, total=total
    )


async def create_conversation(call: Request, who: Principal, room: Services) -> Response:
    request = asked(SnailNewConversationRequest, members(call, who))
    number, open_id = need(request.agentId, "agentId"), need(request.openId, "openId")
    title = need(request.title, "title")
    who = await _acting(who, room, open_id)
    agent = await agent_of(who, room, number)

    async def work() -> tuple[Response, Subject]:
        made = await room.chat.create(who, agent, title=title)
        return success(conversation_shown(made, room.settings.timezone)), made

    return await answer_once(room, who, idempotency_key(call, f"POST {call.route}"), work)


async def delete_conversations(call: Request, who: Principal, room: Services) -> Response:
    """One conversation, or all that the user has with the agent. Whoever names a blank one does not mean all."""
    given = members(call, who)
    request = asked(ConversationIdRequest, given)
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


async def list_messages(call: Request, who: Principal, room: Services) -> Response:
    """Everything said in a conversation; an answer from its end on."""
    request = asked(MessagesRequest, members(call, who))
    number = need(request.agentId, "agentId")
    name = need(conversation_name(request.conversationId), "conversationId")
    who = await _acting(who, room, need(request.openId, "openId"))
    agent = await _agent_if_any(who, room, number)
    found = await _conversation_if_any(who, room, agent, name)
    if found is None:
        return success([])

    def show(message: Message) -> dict[str, Any] | None:
        return message_shown(message, room.settings.timezone) if message.role == "user" or message.ended else None

    return await history_response(await room.chat.told(who, found.uid), show, split_around(success([]).body))


# Chat ---------------------------------------------------------------------------------------------------------------


async def _send(call: Request, who: Principal, room: Services, request: SurfaceBChatRequest) -> Turn:
    number, open_id = need(request.agentId, "agentId"), need(request.openId, "openId")
    content = need(request.content, "content")
    name = conversation_name(request.conversationId)
    short_sid(request.sid)
    who = await _acting(who, room, open_id)
    agent = await agent_of(who, room, number)
    said = NewMessage(
        parts=(Text(text=content),),
        disabled_tools=switched_off(request.disabledMcpServerIds, request.disabledSkillIds),
        idempotency_key=idempotency_key(call, f"POST {call.route}"),
        trace=call.trace,
        stop_abandoned=True,  # the only stop of the vendor's page and SDK is to close the connection
    )
    return await room.chat.send(who, agent, said, conversation=name, create_as=name)


async def chat(call: Request, who: Principal, room: Services) -> StreamingResponse:
    """Say something to an agent and follow the answer."""
    request = asked(SurfaceBChatRequest, members(call, who))
    sent = await _send(call, who, room, request)
    name = name_of(sent.conversation)
    # The run's id is random, and the same for a replay.
    encoder = SnailSseEncoder(name, sent.run if request.sid is None else request.sid)
    headers = (("X-Conversation-Id", header_value(name)),)
    return StreamingResponse(
        reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=EVENT_STREAM, headers=headers
    )


async def chat_sync(call: Request, who: Principal, room: Services) -> Response:
    """Say something to an agent and wait for the answer."""
    sent = await _send(call, who, room, asked(SurfaceBChatRequest, members(call, who)))
    events = await collect(sent.reader, WAIT_S)
    headers = (REPLAYED,) if sent.replayed else ()
    if events is None:
        return failed(NO_TIME, headers)
    parts, ended = fold(events)
    assert ended is not None, "collected to its end"
    if ended.status.failed:
        return failed(why(ended.problem), headers)
    answer = {
        "conversationId": name_of(sent.conversation),
        "content": "".join(part.text for part in parts if isinstance(part, Text)),
        "durationMs": _duration_ms(sent, ended),
    }
    return success(answer, headers=headers)


def _duration_ms(sent: Turn, ended: RunEnded) -> int:
    """From the stored beginning to the stored end, so that a replay says the same."""
    return max(0, ended.at - round(sent.answer.created.timestamp() * 1000))


ROUTES = (
    Route(
        method="GET",
        path=CONVERSATIONS,
        handle=list_conversations,
        purpose="list conversations",
        operation=openapi.CONVERSATIONS,
    ),
    Route(
        method="POST",
        path=CONVERSATIONS,
        handle=create_conversation,
        purpose="create a conversation",
        idempotent=True,
        operation=openapi.NEW_CONVERSATION,
    ),
    Route(
        method="DELETE",
        path=CONVERSATIONS,
        handle=delete_conversations,
        purpose="delete one conversation, or all",
        operation=openapi.OLD_CONVERSATIONS,
    ),
    Route(
        method="GET",
        path=f"{CONVERSATIONS}/messages",
        handle=list_messages,
        purpose="read a conversation",
        operation=openapi.MESSAGES,
    ),
    Route(
        method="POST",
        path=f"{B}/agent/chat",
        handle=chat,
        purpose="send a message, follow the answer",
        idempotent=True,
        operation=openapi.TALK,
    ),
    Route(
        method="POST",
        path=f"{B}/agent/chat/sync",
        handle=chat_sync,
        purpose="send a message, wait for the answer",
        idempotent=True,
        operation=openapi.TALK_SYNC,
    ),
)
