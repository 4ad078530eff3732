"""The older paths, for keys that are bound to an agent.

Source: wire specification ``xspace.md``, sections 1.2 and 5.4.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Invalid
from palaver.core.types import Principal
from palaver.dialects.xspace import openapi
from palaver.dialects.xspace.access import agent_bound, bound_agent, bound_conversation, personal
from palaver.dialects.xspace.chat import converse
from palaver.dialects.xspace.errors import AGENT, CREATE, done, success
from palaver.dialects.xspace.requests import XSpaceChatRequest, XSpaceCreateRequest, body_of, parts_of
from palaver.dialects.xspace.responses import (
    agent_detail,
    conversation_dto,
    message_dto,
    moment,
    opening_dto,
    suggests,
)
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.framing import compact_json
from palaver.wire.idempotent import Subject, answer_once
from palaver.wire.list_response import history_response, split_at_placeholder

RECENT = 20
MOST = 100


async def agent(request: Request, who: Principal, services: Services) -> Response:
    return success(request, agent_detail(await bound_agent(who, services), request))


async def create(request: Request, who: Principal, services: Services) -> Response:
    body = body_of(XSpaceCreateRequest, request, empty_is_object=True)
    claim = idempotency_key(request, f"POST {CREATE}")
    bound = await bound_agent(who, services)

    async def work() -> tuple[Response, Subject]:
        created = await services.chat.create_conversation(who, bound, variables=body.variables)
        return success(request, created.id), created

    return await answer_once(services, who, claim, work)


async def detail(request: Request, who: Principal, services: Services) -> Response:
    """A conversation with what was said last, the agent's opening text before it."""
    conversation, its_agent = await bound_conversation(request.path_params["id"], who, services)
    history = await services.chat.full_history(who, conversation, newest=RECENT)
    placeholder = [request.trace]  # nothing else of the answer can be that
    ends = split_at_placeholder(
        success(request, conversation_dto(conversation, its_agent, request, messages=placeholder)).body,
        compact_json(placeholder),
    )
    first: list[dict[str, Any]] = []
    if its_agent.spec.opening_message:
        begun = history.first[0].created if history.first else datetime.fromtimestamp(request.now, UTC)
        first.append(opening_dto(its_agent, conversation, moment(begun)))
    return await history_response(history, lambda one: message_dto(one, conversation, request), ends, first=first)


async def delete(request: Request, who: Principal, services: Services) -> Response:
    conversation, _ = await bound_conversation(request.path_params["id"], who, services)
    await services.chat.delete_conversation(who, conversation.id)
    return done(request)


async def conversations(request: Request, who: Principal, services: Services) -> Response:
    its_agent = await bound_agent(who, services)
    rows = await services.chat.conversations(who, ConversationQuery(agent=its_agent.id, titled=True, limit=MOST))
    return success(request, [conversation_dto(one, its_agent, request, listed=True) for one in rows])


async def chat(request: Request, who: Principal, services: Services) -> Response | StreamingResponse:
    """The same as the newer path's, except that the body names the conversation, and that one there is not is told
    in an envelope."""
    body = body_of(XSpaceChatRequest, request)
    claim = idempotency_key(request, "POST /api/v1/chat")
    if body.conversationId is None:
        parts_of(body, request)
        raise Invalid(field="conversationId", rule="required")
    to = await bound_conversation(body.conversationId, who, services)
    parts = parts_of(body, request)
    return await converse(request, who, services, to=to, body=body, parts=parts, claim=claim)


async def stop(request: Request, who: Principal, services: Services) -> Response:
    conversation, _ = await bound_conversation(request.path_params["conversationId"], who, services)
    await services.chat.stop(conversation)
    return done(request)


async def suggest(request: Request, who: Principal, services: Services) -> Response:
    """What the user might say next."""
    conversation, its_agent = await bound_conversation(request.path_params["conversationId"], who, services)
    suggestions = await services.chat.generate_suggestions(who, conversation, its_agent) if suggests(its_agent) else []
    return success(request, suggestions)


ROUTES = (
    Route(
        method="GET",
        path=AGENT,
        endpoint=personal(agent),
        authorize=agent_bound,
        summary="the bound agent",
        operation=openapi.AGENT,
    ),
    Route(
        method="POST",
        path=CREATE,
        endpoint=personal(create),
        authorize=agent_bound,
        summary="create a conversation",
        idempotent=True,
        operation=openapi.CREATE,
    ),
    Route(
        method="GET",
        path="/api/v1/conversation/{id}",
        endpoint=personal(detail),
        authorize=agent_bound,
        summary="one conversation with what was said last",
        operation=openapi.WITH_MESSAGES,
    ),
    Route(
        method="POST",
        path="/api/v1/conversation/{id}/delete",
        endpoint=personal(delete),
        authorize=agent_bound,
        summary="delete a conversation",
        operation=openapi.OLDER_DELETE,
    ),
    Route(
        method="GET",
        path="/api/v1/conversations",
        endpoint=personal(conversations),
        authorize=agent_bound,
        summary="the titled conversations with the agent",
        operation=openapi.CONVERSATIONS,
    ),
    Route(
        method="POST",
        path="/api/v1/chat",
        endpoint=personal(chat),
        authorize=agent_bound,
        summary="send a message, read the answer as events",
        idempotent=True,
        operation=openapi.OLDER_CHAT,
    ),
    Route(
        method="POST",
        path="/api/v1/chat/stop/{conversationId}",
        endpoint=personal(stop),
        authorize=agent_bound,
        summary="stop the running turn",
        operation=openapi.OLDER_STOP,
    ),
    Route(
        method="GET",
        path="/api/v1/chat/suggest/{conversationId}",
        endpoint=personal(suggest),
        authorize=agent_bound,
        summary="what the user might say next",
        operation=openapi.SUGGEST,
    ),
)
