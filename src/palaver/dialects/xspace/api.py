"""The routes for every key. Source: the vendor's page, and the wire specification ``xspace.md``, sections 1.1, 5, 7."""

from __future__ import annotations

from dataclasses import replace

from palaver.core.chat import require_enabled
from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Forbidden, Invalid, NotFound
from palaver.core.types import Agent, Conversation, Principal
from palaver.dialects.xspace import legacy, openapi
from palaver.dialects.xspace.access import open_conversation, resolve_principal
from palaver.dialects.xspace.chat import rejected, send_message
from palaver.dialects.xspace.envelope import DONE, ok_response
from palaver.dialects.xspace.errors import CONVERSATION_FILE, CONVERSATION_FILES, NO_FILE, STORED_FILE
from palaver.dialects.xspace.files import conversation_file, list_files, stored_file, unnamed_file, upload
from palaver.dialects.xspace.logo import logo
from palaver.dialects.xspace.requests import (
    AddRequest,
    ConversationListQuery,
    HistoryQuery,
    SignedUrlQuery,
    StoredFileQuery,
    TopicRequest,
    XSpaceChatRequest,
    blank,
    conversation_ref,
    history_query,
    json_request,
    list_query,
    parts_of,
    query_request,
    requested_topic,
    signed_url_query,
    stored_file_query,
    topic_from,
    valid_topic,
)
from palaver.dialects.xspace.responses import (
    ChatMessageDto,
    ConversationDto,
    FileList,
    FileRecord,
    conversation_dto,
    message_dto,
)
from palaver.dialects.xspace.signed_urls import signed_url
from palaver.wire.bodies import idempotency_key, idempotency_key_header, valid_id
from palaver.wire.contract import Request, Response, Route, Services, StreamingResponse
from palaver.wire.idempotent import Subject
from palaver.wire.list_response import encode_history
from palaver.wire.responses import RAW, IdempotentResponse, ListResponse, or_stream


async def update(request: Request, body: TopicRequest, principal: Principal, services: Services) -> ConversationDto:
    """Set the topic: the requested one, or one derived from the first message."""
    conversation, agent = await open_conversation(request, principal, services)
    topic = requested_topic(body)
    if topic is None:
        topic = await _derived_topic(body.first_message or "", conversation, agent, services)
    conversation = await services.chat.rename_conversation(principal, conversation.id, topic, icon=body.icon)
    return conversation_dto(conversation, agent, request)


async def _derived_topic(first_message: str, conversation: Conversation, agent: Agent, services: Services) -> str:
    """A title by the agent's model if the agent wants one, or else the text of the message."""
    title = ""
    if agent.spec.auto_title == "model":
        title = await services.chat.generate_title(agent, first_message, conversation.summary)
    return topic_from(first_message if blank(title) else title)


async def add(request: Request, body: AddRequest, principal: Principal, services: Services) -> IdempotentResponse[int]:
    """Create a conversation."""
    key = idempotency_key(request, "POST /api/v1/chat/conversation/add")
    if body.agent_id is None:
        raise Invalid(field="agentId", rule="required")
    agent = await services.chat.agent(principal.as_unrestricted(), valid_id(body.agent_id) or 0)
    if not principal.may_use(agent):
        raise Forbidden(reason="agent")
    topic = valid_topic(body.topic)

    async def work() -> tuple[int, Subject]:
        conversation = await services.chat.create_conversation(principal, agent, title=topic, variables=body.variables)
        return conversation.id, conversation

    return IdempotentResponse(key=key, create=work)


async def detail(request: Request, principal: Principal, services: Services) -> ConversationDto:
    conversation, agent = await open_conversation(request, principal, services)
    return conversation_dto(conversation, agent, request)


async def list_conversations(
    request: Request, query: ConversationListQuery, principal: Principal, services: Services
) -> list[ConversationDto]:
    """List the user's conversations with an agent that have a topic, most recently modified first."""
    try:
        agent = await services.chat.agent_including_disabled(principal, valid_id(query.agent_id) or 0)
    except NotFound:
        return []
    conversation_query = await _conversation_query(query, agent, principal, services)
    conversations = await services.chat.conversations(principal, conversation_query)
    return [conversation_dto(conversation, agent, request, in_list=True) for conversation in conversations]


async def _conversation_query(
    query: ConversationListQuery, agent: Agent, principal: Principal, services: Services
) -> ConversationQuery:
    """The page after ``lastId``; if that conversation no longer exists, the conversations with lower ids."""
    after, below = None, None
    if query.last_id is not None and query.last_id > 0:
        try:
            last, _ = await services.chat.open_conversation(principal, query.last_id)
            after = (last.modified, last.id)
        except NotFound:
            below = query.last_id
    return ConversationQuery(
        agent=agent.id, titled=True, containing=query.topic, after=after, below=below, limit=query.limit
    )


async def delete(request: Request, principal: Principal, services: Services) -> None:
    conversation, _ = await open_conversation(request, principal, services)
    await services.chat.delete_conversation(principal, conversation.id)


async def chat(
    request: Request, body: XSpaceChatRequest, principal: Principal, services: Services
) -> Response | StreamingResponse:
    """Send a message and stream the answer. If the conversation is not found, the stream contains the error."""
    idempotency_key_header(request)
    parts = parts_of(body, request)
    try:
        ref = conversation_ref(request.path_params["conversationId"])
        conversation, agent = await services.chat.open_conversation(principal, ref)
        require_enabled(agent, agent.id)
    except NotFound as problem:
        return rejected(problem, request)
    key = idempotency_key(request, f"POST /api/v1/chat/{conversation.id}")
    return await send_message(
        request, principal, services, to=(conversation, agent), body=body, parts=parts, idempotency_key=key
    )


async def stop(request: Request, principal: Principal, services: Services) -> None:
    """Stop the running turn and drop the queued ones."""
    conversation, _ = await open_conversation(request, principal, services)
    await services.chat.stop(conversation)


async def messages(
    request: Request, query: HistoryQuery, principal: Principal, services: Services
) -> ListResponse[list[ChatMessageDto]]:
    """List the newest messages, or those before ``index``, oldest first."""
    conversation, _ = await open_conversation(request, principal, services)
    history = await services.chat.full_history(principal, conversation, before=query.index, newest=query.limit)
    items = await encode_history(history, lambda message: message_dto(message, conversation, request))
    return ListResponse(content=[], items=items)


_ROUTES = (
    Route(
        method="POST",
        path="/api/v1/chat/conversation/{conversationId}/update",
        endpoint=update,
        request=json_request(TopicRequest),
        response=ok_response(ConversationDto),
        summary="set the topic",
        operation=openapi.UPDATE,
    ),
    Route(
        method="POST",
        path="/api/v1/chat/conversation/add",
        endpoint=add,
        request=json_request(AddRequest),
        response=ok_response(int),
        summary="create a conversation",
        idempotent=True,
        operation=openapi.ADD,
    ),
    Route(
        method="GET",
        path="/api/v1/chat/conversation/{id}",
        endpoint=detail,
        response=ok_response(ConversationDto),
        summary="one conversation",
        operation=openapi.DETAIL,
    ),
    Route(
        method="GET",
        path="/api/v1/chat/conversation/list",
        endpoint=list_conversations,
        request=query_request(ConversationListQuery, list_query),
        response=ok_response(list[ConversationDto]),
        summary="the titled conversations with an agent",
        operation=openapi.LIST,
    ),
    Route(
        method="POST",
        path="/api/v1/chat/conversation/{id}/delete",
        endpoint=delete,
        response=DONE,
        summary="delete a conversation",
        operation=openapi.DELETE,
    ),
    Route(
        method="POST",
        path="/api/v1/chat/{conversationId}",
        endpoint=chat,
        request=json_request(XSpaceChatRequest),
        response=or_stream(RAW),
        summary="send a message, read the answer as events",
        idempotent=True,
        operation=openapi.CHAT,
    ),
    Route(
        method="POST",
        path="/api/v1/chat/{conversationId}/stop",
        endpoint=stop,
        response=DONE,
        summary="stop the running turn",
        operation=openapi.STOP,
    ),
    Route(
        method="GET",
        path="/api/v1/chat/{conversationId}/messages",
        endpoint=messages,
        request=query_request(HistoryQuery, history_query),
        response=ok_response(list[ChatMessageDto]),
        summary="list messages",
        operation=openapi.MESSAGES,
    ),
    Route(
        method="GET",
        path=CONVERSATION_FILES,
        endpoint=list_files,
        response=ok_response(FileList),
        summary="the files of a conversation",
        operation=openapi.FILES,
    ),
    Route(
        method="GET",
        path=CONVERSATION_FILE,
        endpoint=conversation_file,
        response=RAW,
        summary="the content of one of a conversation's files",
        operation=openapi.FILE,
    ),
    Route(
        method="GET",
        path=NO_FILE,
        endpoint=unnamed_file,
        response=RAW,
        summary="rejected: the file's name is missing",
        operation=openapi.NO_FILE,
    ),
    Route(
        method="POST",
        path="/api/v1/file/upload",
        endpoint=upload,
        response=ok_response(FileRecord),
        summary="upload a file to attach",
        idempotent=True,
        upload=True,
        operation=openapi.UPLOAD,
    ),
    Route(
        method="GET",
        path="/api/v1/file/ak",
        endpoint=signed_url,
        request=query_request(SignedUrlQuery, signed_url_query),
        response=ok_response(str),
        summary="sign a file's URL",
        operation=openapi.SIGNED_URL,
    ),
    Route(
        method="GET",
        path=STORED_FILE,
        endpoint=stored_file,
        request=query_request(StoredFileQuery, stored_file_query),
        response=RAW,
        summary="the content of an uploaded file, for its owner",
        secret_path=True,
        operation=openapi.STORED_FILE,
    ),
)

ROUTES = (
    *(replace(route, resolve_principal=resolve_principal) for route in _ROUTES),
    Route(
        method="GET",
        path="/api/logo/agent/{name}",
        endpoint=logo,
        response=RAW,
        summary="the default icon of an agent",
        public=True,
        operation=openapi.LOGO,
    ),
    *legacy.ROUTES,
)
