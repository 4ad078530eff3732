"""The legacy routes, for keys that are bound to an agent.

Source: wire specification ``xspace.md``, sections 1.2 and 5.4.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Invalid
from palaver.core.types import Principal
from palaver.dialects.xspace import openapi
from palaver.dialects.xspace.access import bound_agent, bound_conversation, require_agent_key, resolve_principal
from palaver.dialects.xspace.chat import send_message
from palaver.dialects.xspace.envelope import DONE, ok_response
from palaver.dialects.xspace.errors import AGENT, CREATE
from palaver.dialects.xspace.requests import (
    MAX_PAGE,
    XSpaceChatRequest,
    XSpaceCreateRequest,
    json_request,
    parts_of,
)
from palaver.dialects.xspace.responses import (
    AgentDetail,
    ConversationDto,
    agent_detail,
    conversation_dto,
    message_dto,
    opening_dto,
    suggests_replies,
    timestamp,
)
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.framing import compact_json
from palaver.wire.idempotent import Subject
from palaver.wire.list_response import encode_history
from palaver.wire.responses import RAW, IdempotentResponse, ListResponse, or_stream

RECENT_MESSAGES = 20


async def agent(request: Request, principal: Principal, services: Services) -> AgentDetail:
    return agent_detail(await bound_agent(principal, services), request)


async def create(
    request: Request, body: XSpaceCreateRequest, principal: Principal, services: Services
) -> IdempotentResponse[int]:
    """Create a conversation with the bound agent."""
    key = idempotency_key(request, f"POST {CREATE}")
    agent = await bound_agent(principal, services)

    async def work() -> tuple[int, Subject]:
        conversation = await services.chat.create_conversation(principal, agent, variables=body.variables)
        return conversation.id, conversation

    return IdempotentResponse(key=key, create=work)


async def detail(request: Request, principal: Principal, services: Services) -> ListResponse[ConversationDto]:
    """A conversation with the agent's opening message and the newest messages."""
    conversation, agent = await bound_conversation(request.path_params["id"], principal, services)
    history = await services.chat.full_history(principal, conversation, newest=RECENT_MESSAGES)
    # Nothing else in the response can contain the trace id.
    placeholder = [opening_dto(agent, conversation, request.trace)]
    first = history.first[0].created if history.first else datetime.fromtimestamp(request.now, UTC)
    opening = [opening_dto(agent, conversation, timestamp(first))] if agent.spec.opening_message else []
    return ListResponse(
        content=conversation_dto(conversation, agent, request, messages=placeholder),
        items=await encode_history(history, lambda message: message_dto(message, conversation, request), first=opening),
        placeholder=compact_json(placeholder),
    )


async def delete(request: Request, principal: Principal, services: Services) -> None:
    conversation, _ = await bound_conversation(request.path_params["id"], principal, services)
    await services.chat.delete_conversation(principal, conversation.id)


async def list_conversations(request: Request, principal: Principal, services: Services) -> list[ConversationDto]:
    """List the user's conversations with the bound agent that have a topic, most recently modified first."""
    agent = await bound_agent(principal, services)
    query = ConversationQuery(agent=agent.id, titled=True, limit=MAX_PAGE)
    conversations = await services.chat.conversations(principal, query)
    return [conversation_dto(conversation, agent, request, in_list=True) for conversation in conversations]


async def chat(
    request: Request, body: XSpaceChatRequest, principal: Principal, services: Services
) -> Response | StreamingResponse:
    """Send a message and stream the answer. Unlike the newer route, reports a conversation that is not found in an
    envelope."""
    key = idempotency_key(request, "POST /api/v1/chat")
    if body.conversation_id is None:
        parts_of(body, request)
        raise Invalid(field="conversationId", rule="required")
    to = await bound_conversation(body.conversation_id, principal, services)
    parts = parts_of(body, request)
    return await send_message(request, principal, services, to=to, body=body, parts=parts, idempotency_key=key)


async def stop(request: Request, principal: Principal, services: Services) -> None:
    """Stop the running turn and drop the queued ones."""
    conversation, _ = await bound_conversation(request.path_params["conversationId"], principal, services)
    await services.chat.stop(conversation)


async def suggest(request: Request, principal: Principal, services: Services) -> list[str]:
    """Suggest what the user might say next, if the agent's settings allow it."""
    ref = request.path_params["conversationId"]
    conversation, agent = await bound_conversation(ref, principal, services)
    if not suggests_replies(agent):
        return []
    return list(await services.chat.generate_suggestions(principal, conversation, agent))


_ROUTES = (
    Route(
        method="GET",
        path=AGENT,
        endpoint=agent,
        response=ok_response(AgentDetail),
        summary="the bound agent",
        operation=openapi.AGENT,
    ),
    Route(
        method="POST",
        path=CREATE,
        endpoint=create,
        request=json_request(XSpaceCreateRequest, empty_is_object=True),
        response=ok_response(int),
        summary="create a conversation",
        idempotent=True,
        operation=openapi.CREATE,
    ),
    Route(
        method="GET",
        path="/api/v1/conversation/{id}",
        endpoint=detail,
        response=ok_response(ConversationDto),
        summary="one conversation with its newest messages",
        operation=openapi.WITH_MESSAGES,
    ),
    Route(
        method="POST",
        path="/api/v1/conversation/{id}/delete",
        endpoint=delete,
        response=DONE,
        summary="delete a conversation",
        operation=openapi.LEGACY_DELETE,
    ),
    Route(
        method="GET",
        path="/api/v1/conversations",
        endpoint=list_conversations,
        response=ok_response(list[ConversationDto]),
        summary="the titled conversations with the agent",
        operation=openapi.CONVERSATIONS,
    ),
    Route(
        method="POST",
        path="/api/v1/chat",
        endpoint=chat,
        request=json_request(XSpaceChatRequest),
        response=or_stream(RAW),
        summary="send a message, read the answer as events",
        idempotent=True,
        operation=openapi.LEGACY_CHAT,
    ),
    Route(
        method="POST",
        path="/api/v1/chat/stop/{conversationId}",
        endpoint=stop,
        response=DONE,
        summary="stop the running turn",
        operation=openapi.LEGACY_STOP,
    ),
    Route(
        method="GET",
        path="/api/v1/chat/suggest/{conversationId}",
        endpoint=suggest,
        response=ok_response(list[str]),
        summary="suggest what the user might say next",
        operation=openapi.SUGGEST,
    ),
)

ROUTES = tuple(replace(route, authorize=require_agent_key, resolve_principal=resolve_principal) for route in _ROUTES)
