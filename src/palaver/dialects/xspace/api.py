"""The routes for every key. Source: the vendor's page, and the wire specification ``xspace.md``, sections 1.1, 5, 7."""

from __future__ import annotations

from palaver.core.chat import require_enabled
from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Forbidden, Invalid, NotFound
from palaver.core.types import Agent, Conversation, Principal
from palaver.dialects.xspace import legacy, openapi
from palaver.dialects.xspace.access import Handle, own_conversation, personal
from palaver.dialects.xspace.addresses import address
from palaver.dialects.xspace.chat import converse, refused
from palaver.dialects.xspace.errors import CONVERSATION_FILE, CONVERSATION_FILES, NO_FILE, STORED_FILE, done, success
from palaver.dialects.xspace.files import attached, empty_path, produced, stored, upload
from palaver.dialects.xspace.logo import logo
from palaver.dialects.xspace.requests import (
    AddRequest,
    TopicRequest,
    XSpaceChatRequest,
    blank,
    body_of,
    conversation_ref,
    history_query,
    list_query,
    parts_of,
    requested_topic,
    topic_of,
    valid_topic,
)
from palaver.dialects.xspace.responses import conversation_dto, message_dto
from palaver.wire.bodies import as_id, idempotency_key
from palaver.wire.contract import Method, Request, Response, Route, Services, StreamingResponse
from palaver.wire.idempotent import Subject, answer_once
from palaver.wire.list_response import history_response, split_at_placeholder
from palaver.wire.operation import Operation


async def update(request: Request, who: Principal, services: Services) -> Response:
    """Set the topic: the one given, else one made of the first message."""
    body = body_of(TopicRequest, request)
    conversation, agent = await own_conversation(request, who, services)
    topic = requested_topic(body)
    if topic is None:
        topic = await _made_topic(body.firstMessage or "", conversation, agent, services)
    renamed = await services.chat.rename_conversation(who, conversation.id, topic, icon=body.icon)
    return success(request, conversation_dto(renamed, agent, request))


async def _made_topic(first_message: str, conversation: Conversation, agent: Agent, services: Services) -> str:
    """The message's content, unless the agent's model is to name the conversation and does."""
    named = ""
    if agent.spec.auto_title == "model":
        named = await services.chat.generate_title(agent, first_message, conversation.summary)
    return topic_of(first_message if blank(named) else named)


async def add(request: Request, who: Principal, services: Services) -> Response:
    """Make a conversation."""
    body = body_of(AddRequest, request)
    claim = idempotency_key(request, "POST /api/v1/chat/conversation/add")
    if body.agentId is None:
        raise Invalid(field="agentId", rule="required")
    agent = await services.chat.agent(who.unrestricted(), as_id(body.agentId) or 0)
    if not who.may_use(agent):
        raise Forbidden(reason="agent")
    topic = valid_topic(body.topic)

    async def work() -> tuple[Response, Subject]:
        created = await services.chat.create_conversation(who, agent, title=topic, variables=body.variables)
        return success(request, created.id), created

    return await answer_once(services, who, claim, work)


async def detail(request: Request, who: Principal, services: Services) -> Response:
    conversation, agent = await own_conversation(request, who, services)
    return success(request, conversation_dto(conversation, agent, request))


async def listing(request: Request, who: Principal, services: Services) -> Response:
    """The user's titled conversations with an agent, the one changed last first."""
    query = list_query(request)
    try:
        agent = await services.chat.any_agent(who, as_id(query.agentId) or 0)
    except NotFound:
        return success(request, [])
    conversation_query = ConversationQuery(agent=agent.id, titled=True, containing=query.topic, limit=query.limit)
    rows = await services.chat.conversations(who, await _behind(conversation_query, query.lastId, who, services))
    return success(request, [conversation_dto(one, agent, request, listed=True) for one in rows])


async def _behind(query: ConversationQuery, last: int | None, who: Principal, services: Services) -> ConversationQuery:
    """``wanted`` from behind the conversation ``last`` on."""
    if last is None or last <= 0:
        return query
    after, below = None, None
    try:
        conversation, _ = await services.chat.open_conversation(who, last)
        after = (conversation.modified, conversation.id)
    except NotFound:
        below = last
    return ConversationQuery(
        agent=query.agent, titled=True, containing=query.containing, after=after, below=below, limit=query.limit
    )


async def delete(request: Request, who: Principal, services: Services) -> Response:
    conversation, _ = await own_conversation(request, who, services)
    await services.chat.delete_conversation(who, conversation.id)
    return done(request)


async def chat(request: Request, who: Principal, services: Services) -> Response | StreamingResponse:
    """Say something and follow the answer; what stands in the way of that is told in the stream."""
    body = body_of(XSpaceChatRequest, request)
    idempotency_key(request, "")
    parts = parts_of(body, request)
    try:
        ref = conversation_ref(request.path_params["conversationId"])
        conversation, agent = await services.chat.open_conversation(who, ref)
        require_enabled(agent, agent.id)
    except NotFound as problem:
        return refused(problem, request)
    claim = idempotency_key(request, f"POST /api/v1/chat/{conversation.id}")
    return await converse(request, who, services, to=(conversation, agent), body=body, parts=parts, claim=claim)


async def stop(request: Request, who: Principal, services: Services) -> Response:
    """End the running turn and drop the waiting ones."""
    conversation, _ = await own_conversation(request, who, services)
    await services.chat.stop(conversation)
    return done(request)


async def messages(request: Request, who: Principal, services: Services) -> Response:
    query = history_query(request)
    conversation, _ = await own_conversation(request, who, services)
    history = await services.chat.full_history(who, conversation, before=query.index, newest=query.limit)
    return await history_response(
        history, lambda one: message_dto(one, conversation, request), split_at_placeholder(success(request, []).body)
    )


def _route(
    method: Method, path: str, handle: Handle, purpose: str, operation: Operation, *, creating: bool = False
) -> Route:
    return Route(
        method=method, path=path, endpoint=personal(handle), summary=purpose, idempotent=creating, operation=operation
    )


ROUTES = (
    _route("POST", "/api/v1/chat/conversation/{conversationId}/update", update, "set the topic", openapi.UPDATE),
    _route("POST", "/api/v1/chat/conversation/add", add, "create a conversation", openapi.ADD, creating=True),
    _route("GET", "/api/v1/chat/conversation/{id}", detail, "one conversation", openapi.DETAIL),
    _route("GET", "/api/v1/chat/conversation/list", listing, "the titled conversations with an agent", openapi.LIST),
    _route("POST", "/api/v1/chat/conversation/{id}/delete", delete, "delete a conversation", openapi.DELETE),
    _route(
        "POST",
        "/api/v1/chat/{conversationId}",
        chat,
        "send a message, read the answer as events",
        openapi.CHAT,
        creating=True,
    ),
    _route("POST", "/api/v1/chat/{conversationId}/stop", stop, "stop the running turn", openapi.STOP),
    _route("GET", "/api/v1/chat/{conversationId}/messages", messages, "what was said", openapi.MESSAGES),
    _route("GET", CONVERSATION_FILES, produced, "the files of a conversation", openapi.FILES),
    _route("GET", CONVERSATION_FILE, attached, "one of them, its bytes", openapi.FILE),
    _route("GET", NO_FILE, empty_path, "refused: the file's name is missing", openapi.NO_FILE),
    Route(
        method="POST",
        path="/api/v1/file/upload",
        endpoint=personal(upload),
        summary="upload a file to attach",
        idempotent=True,
        upload=True,
        operation=openapi.UPLOAD,
    ),
    _route("GET", "/api/v1/file/ak", address, "a file's address for a page to show", openapi.ADDRESS),
    Route(
        method="GET",
        path=STORED_FILE,
        endpoint=personal(stored),
        summary="an uploaded file's bytes, for its owner",
        secret_path=True,
        operation=openapi.STORED,
    ),
    Route(
        method="GET",
        path="/api/logo/agent/{name}",
        endpoint=logo,
        summary="the picture of an agent that has none of its own",
        public=True,
        operation=openapi.LOGO,
    ),
    *legacy.ROUTES,
)
