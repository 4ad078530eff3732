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
from palaver.dialects.snail.errors import EVENT_STREAM, NO_TIME, B, failed, failure_reason, on_c, success
from palaver.dialects.snail.requests import (
    ConversationIdRequest,
    ListConversationsRequest,
    MessagesRequest,
    SnailNewConversationRequest,
    SurfaceBChatRequest,
    check_sid,
    conversation_name,
    disabled_tools,
    page_bounds,
    parse_fields,
    request_fields,
    require,
)
from palaver.dialects.snail.responses import conversation_response, message_response, name_of
from palaver.dialects.snail.stream import SnailSseEncoder
from palaver.dialects.snail.users import find_user
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.framing import header_value
from palaver.wire.idempotent import REPLAYED, Subject, answer_once
from palaver.wire.list_response import history_response, split_at_placeholder

CONVERSATIONS = f"{B}/agent/conversations"
PAGE, PAGE_OF_C = 20, 50
WAIT_S = 300.0
"""How long ``/agent/chat/sync`` waits for a run's end."""


async def _acting(who: Principal, services: Services, open_id: str) -> Principal:
    return who.acting_for((await find_user(who, services, open_id)).name)


async def _agent_if_any(who: Principal, services: Services, number: int) -> Agent | None:
    """For calls that answer an agent there is not like one without conversations."""
    with suppress(NotFound):
        return await agent_of(who, services, number, enabled=False)
    return None


async def _conversation_if_any(
    who: Principal, services: Services, agent: Agent | None, name: str
) -> Conversation | None:
    """The user's conversation of that name, if it is the agent's."""
    with suppress(NotFound):
        conversation, _ = await services.chat.open_conversation(who, name)
        return conversation if agent is not None and conversation.agent == agent.id else None
    return None


# Conversations ------------------------------------------------------------------------------------------------------


async def list_conversations(request: Request, who: Principal, services: Services) -> Response:
    body = parse_fields(ListConversationsRequest, request_fields(request, who))
    number, open_id = require(body.agentId, "agentId"), require(body.openId, "openId")
    page, size = page_bounds(body.page, body.size, PAGE_OF_C if on_c(request) else PAGE)
    who = await _acting(who, services, open_id)
    agent = await _agent_if_any(who, services, number)
    if agent is None:
        return success([], page=page, size=size, total=0)
    query = ConversationQuery(agent=agent.id, offset=min((page - 1) * size, MAX_ID), limit=size)
    conversations = await services.chat.conversations(who, query)
    total = await services.chat.count_conversations(who, query)
    return success(
        [conversation_response(one, services.settings.timezone) for one in conversations],
        page=page,
        size=size,
        total=total,
    )


async def create_conversation(request: Request, who: Principal, services: Services) -> Response:
    body = parse_fields(SnailNewConversationRequest, request_fields(request, who))
    number, open_id = require(body.agentId, "agentId"), require(body.openId, "openId")
    title = require(body.title, "title")
    who = await _acting(who, services, open_id)
    agent = await agent_of(who, services, number)

    async def work() -> tuple[Response, Subject]:
        created = await services.chat.create_conversation(who, agent, title=title)
        return success(conversation_response(created, services.settings.timezone)), created

    return await answer_once(services, who, idempotency_key(request, f"POST {request.route}"), work)


async def delete_conversations(request: Request, who: Principal, services: Services) -> Response:
    """One conversation, or all that the user has with the agent. Whoever names a blank one does not mean all."""
    fields = request_fields(request, who)
    body = parse_fields(ConversationIdRequest, fields)
    number, open_id = require(body.agentId, "agentId"), require(body.openId, "openId")
    name = conversation_name(body.conversationId)
    if name is None and "conversationId" in fields:
        raise Invalid(field="conversationId", rule="required")
    who = await _acting(who, services, open_id)
    agent = await _agent_if_any(who, services, number)
    if name is None:
        if agent is not None:
            await services.chat.delete_conversations(who, agent)
        return success(None)
    conversation = await _conversation_if_any(who, services, agent, name)
    if conversation is not None:
        with suppress(NotFound):  # somebody else was faster
            await services.chat.delete_conversation(who, conversation.uid)
    return success(None)


async def list_messages(request: Request, who: Principal, services: Services) -> Response:
    """Everything said in a conversation; an answer from its end on."""
    body = parse_fields(MessagesRequest, request_fields(request, who))
    number = require(body.agentId, "agentId")
    name = require(conversation_name(body.conversationId), "conversationId")
    who = await _acting(who, services, require(body.openId, "openId"))
    agent = await _agent_if_any(who, services, number)
    conversation = await _conversation_if_any(who, services, agent, name)
    if conversation is None:
        return success([])

    def show(message: Message) -> dict[str, Any] | None:
        return (
            message_response(message, services.settings.timezone) if message.role == "user" or message.ended else None
        )

    return await history_response(
        await services.chat.full_history(who, conversation), show, split_at_placeholder(success([]).body)
    )


# Chat ---------------------------------------------------------------------------------------------------------------


async def _send(request: Request, who: Principal, services: Services, body: SurfaceBChatRequest) -> Turn:
    number, open_id = require(body.agentId, "agentId"), require(body.openId, "openId")
    content = require(body.content, "content")
    name = conversation_name(body.conversationId)
    check_sid(body.sid)
    who = await _acting(who, services, open_id)
    agent = await agent_of(who, services, number)
    message = NewMessage(
        parts=(Text(text=content),),
        disabled_tools=disabled_tools(body.disabledMcpServerIds, body.disabledSkillIds),
        idempotency_key=idempotency_key(request, f"POST {request.route}"),
        trace=request.trace,
        stop_abandoned=True,  # the only stop of the vendor's page and SDK is to close the connection
    )
    return await services.chat.send(who, agent, message, conversation=name, create_as=name)


async def chat(request: Request, who: Principal, services: Services) -> StreamingResponse:
    """Say something to an agent and follow the answer."""
    body = parse_fields(SurfaceBChatRequest, request_fields(request, who))
    sent = await _send(request, who, services, body)
    name = name_of(sent.conversation)
    # The run's id is random, and the same for a replay.
    encoder = SnailSseEncoder(name, sent.run_uid if body.sid is None else body.sid)
    headers = (("X-Conversation-Id", header_value(name)),)
    return StreamingResponse(
        reader=sent.reader, replayed=sent.replayed, encoder=encoder, media_type=EVENT_STREAM, headers=headers
    )


async def chat_sync(request: Request, who: Principal, services: Services) -> Response:
    """Say something to an agent and wait for the answer."""
    sent = await _send(request, who, services, parse_fields(SurfaceBChatRequest, request_fields(request, who)))
    events = await collect(sent.reader, WAIT_S)
    headers = (REPLAYED,) if sent.replayed else ()
    if events is None:
        return failed(NO_TIME, headers)
    parts, ended = fold(events)
    assert ended is not None, "collected to its end"
    if ended.status.failed:
        return failed(failure_reason(ended.problem), headers)
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
        endpoint=list_conversations,
        summary="list conversations",
        operation=openapi.CONVERSATIONS,
    ),
    Route(
        method="POST",
        path=CONVERSATIONS,
        endpoint=create_conversation,
        summary="create a conversation",
        idempotent=True,
        operation=openapi.NEW_CONVERSATION,
    ),
    Route(
        method="DELETE",
        path=CONVERSATIONS,
        endpoint=delete_conversations,
        summary="delete one conversation, or all",
        operation=openapi.OLD_CONVERSATIONS,
    ),
    Route(
        method="GET",
        path=f"{CONVERSATIONS}/messages",
        endpoint=list_messages,
        summary="read a conversation",
        operation=openapi.MESSAGES,
    ),
    Route(
        method="POST",
        path=f"{B}/agent/chat",
        endpoint=chat,
        summary="send a message, follow the answer",
        idempotent=True,
        operation=openapi.TALK,
    ),
    Route(
        method="POST",
        path=f"{B}/agent/chat/sync",
        endpoint=chat_sync,
        summary="send a message, wait for the answer",
        idempotent=True,
        operation=openapi.TALK_SYNC,
    ),
)
