"""The routes for every key. Source: the vendor's page, and the wire specification ``xspace.md``, sections 1.1, 5, 7."""

from __future__ import annotations

from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Forbidden, Invalid, NotFound
from palaver.core.types import Agent, Conversation, Principal
from palaver.dialects.xspace import legacy, openapi
from palaver.dialects.xspace.access import Handle, own_conversation, personal, unrestricted
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
    fitting_topic,
    history_query,
    list_query,
    parts_of,
    topic_of,
    wanted_topic,
)
from palaver.dialects.xspace.responses import conversation_dto, message_dto
from palaver.wire.bodies import as_id, idempotency_key
from palaver.wire.contract import Method, Request, Response, Route, Services, StreamingResponse
from palaver.wire.idempotent import Subject, answer_once
from palaver.wire.list_response import history_response, split_around
from palaver.wire.operation import Operation


async def update(call: Request, who: Principal, room: Services) -> Response:
    """Set the topic: the one given, else one made of the first message."""
    request = body_of(TopicRequest, call)
    found, agent = await own_conversation(call, who, room)
    topic = wanted_topic(request)
    if topic is None:
        topic = await _made_topic(request.firstMessage or "", found, agent, room)
    renamed = await room.chat.rename(who, found.id, topic, icon=request.icon)
    return success(call, conversation_dto(renamed, agent, call))


async def _made_topic(first_message: str, found: Conversation, agent: Agent, room: Services) -> str:
    """The message's content, unless the agent's model is to name the conversation and does."""
    named = ""
    if agent.spec.auto_title == "model":
        named = await room.chat.title(agent, first_message, found.summary)
    return topic_of(first_message if blank(named) else named)


async def add(call: Request, who: Principal, room: Services) -> Response:
    """Make a conversation."""
    request = body_of(AddRequest, call)
    claim = idempotency_key(call, "POST /api/v1/chat/conversation/add")
    if request.agentId is None:
        raise Invalid(field="agentId", rule="required")
    agent = await room.chat.agent(unrestricted(who), as_id(request.agentId) or 0)
    if not who.may_use(agent):
        raise Forbidden(reason="agent")
    topic = fitting_topic(request.topic)

    async def work() -> tuple[Response, Subject]:
        made = await room.chat.create(who, agent, title=topic, variables=request.variables)
        return success(call, made.id), made

    return await answer_once(room, who, claim, work)


async def detail(call: Request, who: Principal, room: Services) -> Response:
    found, agent = await own_conversation(call, who, room)
    return success(call, conversation_dto(found, agent, call))


async def listing(call: Request, who: Principal, room: Services) -> Response:
    """The user's titled conversations with an agent, the one changed last first."""
    query = list_query(call)
    try:
        agent = await room.chat.any_agent(who, as_id(query.agentId) or 0)
    except NotFound:
        return success(call, [])
    wanted = ConversationQuery(agent=agent.id, titled=True, containing=query.topic, limit=query.limit)
    found = await room.chat.conversations(who, await _behind(wanted, query.lastId, who, room))
    return success(call, [conversation_dto(one, agent, call, listed=True) for one in found])


async def _behind(wanted: ConversationQuery, last: int | None, who: Principal, room: Services) -> ConversationQuery:
    """``wanted`` from behind the conversation ``last`` on."""
    if last is None or last <= 0:
        return wanted
    after, below = None, None
    try:
        found = await room.chat.conversation(who, last)
        after = (found.modified, found.id)
    except NotFound:
        below = last
    return ConversationQuery(
        agent=wanted.agent, titled=True, containing=wanted.containing, after=after, below=below, limit=wanted.limit
    )


async def delete(call: Request, who: Principal, room: Services) -> Response:
    found, _ = await own_conversation(call, who, room)
    await room.chat.delete(who, found.id)
    return done(call)


async def chat(call: Request, who: Principal, room: Services) -> Response | StreamingResponse:
    """Say something and follow the answer; what stands in the way of that is told in the stream."""
    request = body_of(XSpaceChatRequest, call)
    idempotency_key(call, "")
    parts = parts_of(request, call)
    try:
        found = await room.chat.conversation(who, conversation_ref(call.params["conversationId"]))
        agent = await room.chat.agent(who, found.agent)
    except NotFound as problem:
        return refused(problem, call)
    claim = idempotency_key(call, f"POST /api/v1/chat/{found.id}")
    return await converse(call, who, room, to=(found, agent), request=request, parts=parts, claim=claim)


async def stop(call: Request, who: Principal, room: Services) -> Response:
    """End the running turn and drop the waiting ones."""
    found, _ = await own_conversation(call, who, room)
    await room.chat.stop(who, found.id)
    return done(call)


async def messages(call: Request, who: Principal, room: Services) -> Response:
    query = history_query(call)
    found, _ = await own_conversation(call, who, room)
    said = await room.chat.told(who, found.id, before=query.index, newest=query.limit)
    return await history_response(said, lambda one: message_dto(one, found, call), split_around(success(call, []).body))


def _route(
    method: Method, path: str, handle: Handle, purpose: str, told: Operation, *, creating: bool = False
) -> Route:
    return Route(
        method=method, path=path, handle=personal(handle), purpose=purpose, idempotent=creating, operation=told
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
        handle=personal(upload),
        purpose="upload a file to attach",
        idempotent=True,
        upload=True,
        operation=openapi.UPLOAD,
    ),
    _route("GET", "/api/v1/file/ak", address, "a file's address for a page to show", openapi.ADDRESS),
    Route(
        method="GET",
        path=STORED_FILE,
        handle=personal(stored),
        purpose="an uploaded file's bytes, for its owner",
        capability=True,
        operation=openapi.STORED,
    ),
    Route(
        method="GET",
        path="/api/logo/agent/{name}",
        handle=logo,
        purpose="the picture of an agent that has none of its own",
        public=True,
        operation=openapi.LOGO,
    ),
    *legacy.ROUTES,
)
