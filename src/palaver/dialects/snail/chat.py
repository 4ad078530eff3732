"""Surfaces B and C: conversations, messages and chat.

Source: wire specification ``snail.md``, sections 6 to 8.
"""

from __future__ import annotations

from contextlib import suppress

from palaver.core.chat import NewMessage, Turn
from palaver.core.events import fold
from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Invalid, NotFound
from palaver.core.runs import read_to_end
from palaver.core.types import MAX_ID, Agent, Conversation, Message, Principal, RunEnded, Text
from palaver.dialects.snail import openapi
from palaver.dialects.snail.agents import agent_of
from palaver.dialects.snail.errors import EVENT_STREAM, TIMED_OUT, B, SnailError, error_body, failure_reason, on_c
from palaver.dialects.snail.requests import (
    ConversationIdRequest,
    ListConversationsRequest,
    MessagesRequest,
    SnailNewConversationRequest,
    SurfaceBChatRequest,
    check_sid,
    conversation_name,
    disabled_tools,
    json_request,
    page_bounds,
    query_request,
    require,
)
from palaver.dialects.snail.responses import (
    DONE,
    SnailConversation,
    SnailMessage,
    SnailPage,
    SyncChatResponse,
    conversation_response,
    message_response,
    name_of,
    ok_response,
    page_envelope,
    success_or_error,
    success_page,
)
from palaver.dialects.snail.stream import SnailSseEncoder
from palaver.dialects.snail.users import find_user, open_id_of
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Route, Services, StreamingResponse
from palaver.wire.framing import header_value
from palaver.wire.idempotent import REPLAYED, Subject
from palaver.wire.list_response import encode_history
from palaver.wire.responses import STREAM, IdempotentResponse, JSONResponse, ListResponse

CONVERSATIONS = f"{B}/agent/conversations"
PAGE_SIZE, PAGE_SIZE_ON_C = 20, 50
SYNC_TIMEOUT_S = 300.0
"""How long ``/agent/chat/sync`` waits for the end of a run."""


async def _acting(principal: Principal, services: Services, open_id: str) -> Principal:
    return principal.acting_for((await find_user(principal, services, open_id)).name)


async def _agent_if_any(principal: Principal, services: Services, number: int) -> Agent | None:
    """The agent, for calls that treat an unknown agent like one without conversations."""
    with suppress(NotFound):
        return await agent_of(principal, services, number, enabled=False)
    return None


async def _conversation_if_any(
    principal: Principal, services: Services, agent: Agent | None, name: str
) -> Conversation | None:
    """The user's conversation with that name, if it is with the agent."""
    with suppress(NotFound):
        conversation, _ = await services.chat.open_conversation(principal, name)
        return conversation if agent is not None and conversation.agent == agent.id else None
    return None


# Conversations ------------------------------------------------------------------------------------------------------


async def list_conversations(
    request: Request, body: ListConversationsRequest, principal: Principal, services: Services
) -> SnailPage[list[SnailConversation]]:
    number, open_id = require(body.agent_id, "agentId"), open_id_of(principal, body.open_id)
    page, size = page_bounds(body.page, body.size, PAGE_SIZE_ON_C if on_c(request) else PAGE_SIZE)
    principal = await _acting(principal, services, open_id)
    agent = await _agent_if_any(principal, services, number)
    if agent is None:
        return page_envelope([], page=page, size=size, total=0)
    query = ConversationQuery(agent=agent.id, offset=min((page - 1) * size, MAX_ID), limit=size)
    conversations = await services.chat.conversations(principal, query)
    total = await services.chat.count_conversations(principal, query)
    items = [conversation_response(conversation, services.settings.timezone) for conversation in conversations]
    return page_envelope(items, page=page, size=size, total=total)


async def create_conversation(
    request: Request, body: SnailNewConversationRequest, principal: Principal, services: Services
) -> IdempotentResponse[SnailConversation]:
    number, open_id = require(body.agent_id, "agentId"), open_id_of(principal, body.open_id)
    title = require(body.title, "title")
    principal = await _acting(principal, services, open_id)
    agent = await agent_of(principal, services, number)

    async def work() -> tuple[SnailConversation, Subject]:
        conversation = await services.chat.create_conversation(principal, agent, title=title)
        return conversation_response(conversation, services.settings.timezone), conversation

    key = idempotency_key(request, f"POST {request.route}")
    return IdempotentResponse(key=key, principal=principal, create=work)


async def delete_conversations(
    _request: Request, body: ConversationIdRequest, principal: Principal, services: Services
) -> None:
    """Delete one of the user's conversations with the agent, or all if none is named. A blank name is an error."""
    number, open_id = require(body.agent_id, "agentId"), open_id_of(principal, body.open_id)
    name = conversation_name(body.conversation_id)
    if name is None and body.conversation_id is not None:
        raise Invalid(field="conversationId", rule="required")
    principal = await _acting(principal, services, open_id)
    agent = await _agent_if_any(principal, services, number)
    if name is None:
        if agent is not None:
            await services.chat.delete_conversations(principal, agent)
        return
    conversation = await _conversation_if_any(principal, services, agent, name)
    if conversation is not None:
        with suppress(NotFound):  # deleted concurrently
            await services.chat.delete_conversation(principal, conversation.uid)


async def list_messages(
    _request: Request, body: MessagesRequest, principal: Principal, services: Services
) -> list[SnailMessage] | ListResponse[list[SnailMessage]]:
    """All messages of a conversation, except an answer in progress."""
    number = require(body.agent_id, "agentId")
    name = require(conversation_name(body.conversation_id), "conversationId")
    principal = await _acting(principal, services, open_id_of(principal, body.open_id))
    agent = await _agent_if_any(principal, services, number)
    conversation = await _conversation_if_any(principal, services, agent, name)
    if conversation is None:
        return []

    def convert(message: Message) -> SnailMessage | None:
        return (
            message_response(message, services.settings.timezone) if message.role == "user" or message.ended else None
        )

    history = await services.chat.full_history(principal, conversation)
    return ListResponse(content=[], items=await encode_history(history, convert))


# Chat ---------------------------------------------------------------------------------------------------------------


async def _send(request: Request, body: SurfaceBChatRequest, principal: Principal, services: Services) -> Turn:
    number, open_id = require(body.agent_id, "agentId"), open_id_of(principal, body.open_id)
    content = require(body.content, "content")
    name = conversation_name(body.conversation_id)
    check_sid(body.sid)
    principal = await _acting(principal, services, open_id)
    agent = await agent_of(principal, services, number)
    message = NewMessage(
        parts=(Text(text=content),),
        disabled_tools=disabled_tools(body.disabled_mcp_server_ids, body.disabled_skill_ids),
        idempotency_key=idempotency_key(request, f"POST {request.route}"),
        trace=request.trace,
        stop_abandoned=True,  # the vendor's page and SDK can stop an answer only by closing the connection
    )
    return await services.chat.send(principal, agent, message, conversation=name, create_as=name)


async def chat(
    request: Request, body: SurfaceBChatRequest, principal: Principal, services: Services
) -> StreamingResponse:
    """Send a message to an agent and stream the answer."""
    turn = await _send(request, body, principal, services)
    name = name_of(turn.conversation)
    # Without a sid, the run's id: it is random, and the same in a replay.
    encoder = SnailSseEncoder(name, turn.run_uid if body.sid is None else body.sid)
    headers = (("X-Conversation-Id", header_value(name)),)
    return StreamingResponse(
        reader=turn.reader, replayed=turn.replayed, encoder=encoder, media_type=EVENT_STREAM, headers=headers
    )


async def chat_sync(
    request: Request, body: SurfaceBChatRequest, principal: Principal, services: Services
) -> JSONResponse[SyncChatResponse | SnailError]:
    """Send a message to an agent and wait for the answer."""
    turn = await _send(request, body, principal, services)
    events = await read_to_end(turn.reader, SYNC_TIMEOUT_S)
    headers = (REPLAYED,) if turn.replayed else ()
    if events is None:
        return JSONResponse(content=error_body(TIMED_OUT), headers=headers)
    parts, ended = fold(events)
    assert ended is not None, "collected to its end"
    if ended.status.failed:
        return JSONResponse(content=error_body(failure_reason(ended.problem)), headers=headers)
    answer = SyncChatResponse(
        conversation_id=name_of(turn.conversation),
        content="".join(part.text for part in parts if isinstance(part, Text)),
        duration_ms=_duration_ms(turn, ended),
    )
    return JSONResponse(content=answer, headers=headers)


def _duration_ms(turn: Turn, ended: RunEnded) -> int:
    """The duration between the stored times, so that a replay has the same value."""
    return max(0, ended.at - round(turn.answer.created.timestamp() * 1000))


ROUTES = (
    Route(
        method="GET",
        path=CONVERSATIONS,
        endpoint=list_conversations,
        request=query_request(ListConversationsRequest),
        response=success_page(SnailConversation),
        summary="list conversations",
        operation=openapi.CONVERSATIONS,
    ),
    Route(
        method="POST",
        path=CONVERSATIONS,
        endpoint=create_conversation,
        request=json_request(SnailNewConversationRequest),
        response=ok_response(SnailConversation),
        summary="create a conversation",
        idempotent=True,
        operation=openapi.CREATE_CONVERSATION,
    ),
    Route(
        method="DELETE",
        path=CONVERSATIONS,
        endpoint=delete_conversations,
        request=query_request(ConversationIdRequest, keep_blank="conversationId"),
        response=DONE,
        summary="delete one conversation, or all",
        operation=openapi.DELETE_CONVERSATIONS,
    ),
    Route(
        method="GET",
        path=f"{CONVERSATIONS}/messages",
        endpoint=list_messages,
        request=query_request(MessagesRequest),
        response=ok_response(list[SnailMessage]),
        summary="read a conversation",
        operation=openapi.MESSAGES,
    ),
    Route(
        method="POST",
        path=f"{B}/agent/chat",
        endpoint=chat,
        request=json_request(SurfaceBChatRequest),
        response=STREAM,
        summary="send a message, stream the answer",
        idempotent=True,
        operation=openapi.SURFACE_B_CHAT,
    ),
    Route(
        method="POST",
        path=f"{B}/agent/chat/sync",
        endpoint=chat_sync,
        request=json_request(SurfaceBChatRequest),
        response=success_or_error(SyncChatResponse),
        summary="send a message, wait for the answer",
        idempotent=True,
        operation=openapi.CHAT_SYNC,
    ),
)
