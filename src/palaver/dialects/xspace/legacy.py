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
from palaver.wire.list_response import history_response, split_around

RECENT = 20
MOST = 100


async def agent(call: Request, who: Principal, room: Services) -> Response:
    return success(call, agent_detail(await bound_agent(who, room), call))


async def create(call: Request, who: Principal, room: Services) -> Response:
    request = body_of(XSpaceCreateRequest, call, empty_is_object=True)
    claim = idempotency_key(call, f"POST {CREATE}")
    found = await bound_agent(who, room)

    async def work() -> tuple[Response, Subject]:
        made = await room.chat.create(who, found, variables=request.variables)
        return success(call, made.id), made

    return await answer_once(room, who, claim, work)


async def detail(call: Request, who: Principal, room: Services) -> Response:
    """A conversation with what was said last, the agent's opening text before it."""
    found, its_agent = await bound_conversation(call.params["id"], who, room)
    said = await room.chat.told(who, found.id, newest=RECENT)
    place = [call.trace]  # nothing else of the answer can be that
    ends = split_around(
        success(call, conversation_dto(found, its_agent, call, messages=place)).body, compact_json(place)
    )
    first: list[dict[str, Any]] = []
    if its_agent.spec.opening_message:
        begun = said.first[0].created if said.first else datetime.fromtimestamp(call.now, UTC)
        first.append(opening_dto(its_agent, found, moment(begun)))
    return await history_response(said, lambda one: message_dto(one, found, call), ends, first=first)


async def delete(call: Request, who: Principal, room: Services) -> Response:
    found, _ = await bound_conversation(call.params["id"], who, room)
    await room.chat.delete(who, found.id)
    return done(call)


async def conversations(call: Request, who: Principal, room: Services) -> Response:
    its_agent = await bound_agent(who, room)
    found = await room.chat.conversations(who, ConversationQuery(agent=its_agent.id, titled=True, limit=MOST))
    return success(call, [conversation_dto(one, its_agent, call, listed=True) for one in found])


async def chat(call: Request, who: Principal, room: Services) -> Response | StreamingResponse:
    """The same as the newer path's, except that the body names the conversation, and that one there is not is told
    in an envelope."""
    request = body_of(XSpaceChatRequest, call)
    claim = idempotency_key(call, "POST /api/v1/chat")
    if request.conversationId is None:
        parts_of(request, call)
        raise Invalid(field="conversationId", rule="required")
    to = await bound_conversation(request.conversationId, who, room)
    parts = parts_of(request, call)
    return await converse(call, who, room, to=to, request=request, parts=parts, claim=claim)


async def stop(call: Request, who: Principal, room: Services) -> Response:
    found, _ = await bound_conversation(call.params["conversationId"], who, room)
    await room.chat.stop(who, found.id)
    return done(call)


async def suggest(call: Request, who: Principal, room: Services) -> Response:
    """What the user might say next."""
    found, its_agent = await bound_conversation(call.params["conversationId"], who, room)
    suggestions = await room.chat.suggestions(who, found, its_agent) if suggests(its_agent) else []
    return success(call, suggestions)


ROUTES = (
    Route(
        method="GET",
        path=AGENT,
        handle=personal(agent),
        permit=agent_bound,
        purpose="the bound agent",
        operation=openapi.AGENT,
    ),
    Route(
        method="POST",
        path=CREATE,
        handle=personal(create),
        permit=agent_bound,
        purpose="create a conversation",
        idempotent=True,
        operation=openapi.CREATE,
    ),
    Route(
        method="GET",
        path="/api/v1/conversation/{id}",
        handle=personal(detail),
        permit=agent_bound,
        purpose="one conversation with what was said last",
        operation=openapi.WITH_MESSAGES,
    ),
    Route(
        method="POST",
        path="/api/v1/conversation/{id}/delete",
        handle=personal(delete),
        permit=agent_bound,
        purpose="delete a conversation",
        operation=openapi.OLDER_DELETE,
    ),
    Route(
        method="GET",
        path="/api/v1/conversations",
        handle=personal(conversations),
        permit=agent_bound,
        purpose="the titled conversations with the agent",
        operation=openapi.CONVERSATIONS,
    ),
    Route(
        method="POST",
        path="/api/v1/chat",
        handle=personal(chat),
        permit=agent_bound,
        purpose="send a message, read the answer as events",
        idempotent=True,
        operation=openapi.OLDER_CHAT,
    ),
    Route(
        method="POST",
        path="/api/v1/chat/stop/{conversationId}",
        handle=personal(stop),
        permit=agent_bound,
        purpose="stop the running turn",
        operation=openapi.OLDER_STOP,
    ),
    Route(
        method="GET",
        path="/api/v1/chat/suggest/{conversationId}",
        handle=personal(suggest),
        permit=agent_bound,
        purpose="what the user might say next",
        operation=openapi.SUGGEST,
    ),
)
