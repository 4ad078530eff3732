"""The route table; agents, conversations and their messages. Source: ``docs/native.md``, sections 1 and 5."""

from __future__ import annotations

from dataclasses import replace

from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Agent, Conversation, Principal
from palaver.dialects.native import chat, files, openapi
from palaver.dialects.native.access import agent_ref, open_conversation, require_user
from palaver.dialects.native.errors import CODES, CONVERSATION, CONVERSATIONS, ROOT
from palaver.dialects.native.requests import (
    CreateConversationRequest,
    NativeConversationsQuery,
    NativeMessagesQuery,
    SetTitleRequest,
    conversations_query,
    cursor_after,
    json_request,
    messages_query,
    parse_cursor,
    query_request,
    ref_of,
    title_of,
)
from palaver.dialects.native.responses import (
    AgentListResponse,
    AgentResponse,
    ConversationListResponse,
    ConversationResponse,
    MessageListResponse,
    ProblemCode,
    ProblemCodesResponse,
    agent_response,
    conversation_response,
    message_response,
    ok_response,
)
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Route, Services
from palaver.wire.idempotent import Subject
from palaver.wire.list_response import encode_items
from palaver.wire.responses import NO_CONTENT, IdempotentResponse, JSONResponse, ListResponse

LIST_BYTES = 4_194_304
"""Maximum size, in stored bytes, of the variables in one page of conversations."""


async def problems(_request: Request, _principal: Principal, _services: Services) -> ProblemCodesResponse:
    """List the codes of problems; a problem's ``type`` is the URL of this list."""
    codes = (
        ProblemCode(code=name, status=code.status, title=code.title, meaning=code.meaning)
        for name, code in CODES.items()
    )
    return ProblemCodesResponse(problems=tuple(codes))


# Agents -------------------------------------------------------------------------------------------------------------


async def agents(_request: Request, principal: Principal, services: Services) -> AgentListResponse:
    return AgentListResponse(agents=tuple(map(agent_response, await services.chat.agents(principal))))


async def agent(request: Request, principal: Principal, services: Services) -> AgentResponse:
    return agent_response(await services.chat.agent(principal, ref_of(request.path_params["agent"], "agent")))


# Conversations ------------------------------------------------------------------------------------------------------


async def create(
    request: Request, body: CreateConversationRequest, principal: Principal, services: Services
) -> IdempotentResponse[ConversationResponse]:
    ref, title = agent_ref(body.agent), title_of(body.title)
    agent = await services.chat.agent(principal, ref)

    async def work() -> tuple[JSONResponse[ConversationResponse], Subject]:
        conversation = await services.chat.create_conversation(principal, agent, title=title, variables=body.variables)
        location = ("Location", f"{CONVERSATIONS}/{conversation.uid.hex}")
        content = conversation_response(conversation, agent)
        return JSONResponse(content=content, status=201, headers=(location,)), conversation

    return IdempotentResponse(key=idempotency_key(request, f"POST {CONVERSATIONS}"), create=work)


async def conversations(
    _request: Request, query: NativeConversationsQuery, principal: Principal, services: Services
) -> ConversationListResponse:
    """List the user's conversations, most recently changed first."""
    after = parse_cursor(query.after)
    agent = (
        None
        if query.agent is None
        else await services.chat.agent_including_disabled(principal, ref_of(query.agent, "agent"))
    )
    # One more than requested, to know whether there is another page.
    conversation_query = ConversationQuery(
        agent=None if agent is None else agent.id,
        containing=query.q,
        after=after,
        limit=query.limit + 1,
        max_variables_bytes=LIST_BYTES,
    )
    rows = list(await services.chat.conversations(principal, conversation_query))
    page = [conversation for conversation in rows[: query.limit] if conversation.with_variables]
    usable = await _with_usable_agents(page, principal, services)
    return ConversationListResponse(
        conversations=tuple(conversation_response(conversation, agent) for conversation, agent in usable),
        next=cursor_after(page[-1]) if len(rows) > len(page) else None,
    )


async def _with_usable_agents(
    conversations: list[Conversation], principal: Principal, services: Services
) -> list[tuple[Conversation, Agent]]:
    """The conversations whose agent the credential may use, each with its agent."""
    agents: dict[int, Agent | None] = {}
    for agent_id in {conversation.agent for conversation in conversations}:
        try:
            agents[agent_id] = await services.chat.agent_including_disabled(principal, agent_id)
        except NotFound:
            agents[agent_id] = None
    return [
        (conversation, agent) for conversation in conversations if (agent := agents[conversation.agent]) is not None
    ]


async def conversation(request: Request, principal: Principal, services: Services) -> ConversationResponse:
    return conversation_response(*await open_conversation(request, principal, services))


async def rename(
    request: Request, body: SetTitleRequest, principal: Principal, services: Services
) -> ConversationResponse:
    title = title_of(body.title)
    if title is None:
        raise Invalid(field="title", rule="required")
    conversation, agent = await open_conversation(request, principal, services)
    return conversation_response(await services.chat.rename_conversation(principal, conversation.id, title), agent)


async def delete(request: Request, principal: Principal, services: Services) -> None:
    conversation, _ = await open_conversation(request, principal, services)
    await services.chat.delete_conversation(principal, conversation.id)


async def messages(
    request: Request, query: NativeMessagesQuery, principal: Principal, services: Services
) -> ListResponse[MessageListResponse]:
    """List the newest messages, or those before or after a message, oldest first."""
    conversation, _ = await open_conversation(request, principal, services)
    async with services.chat.history_page(
        principal, conversation, before=query.before, after=query.after, limit=query.limit
    ) as page:
        items = await encode_items(message_response(message, conversation) for message in page.messages)
        return ListResponse(content=MessageListResponse(messages=(), more=page.next is not None), items=items)


_USER_ROUTES = (
    Route(
        method="POST",
        path=CONVERSATIONS,
        endpoint=create,
        request=json_request(CreateConversationRequest),
        response=ok_response(ConversationResponse),
        summary="create a conversation",
        idempotent=True,
        operation=openapi.CREATE,
    ),
    Route(
        method="GET",
        path=CONVERSATIONS,
        endpoint=conversations,
        request=query_request(NativeConversationsQuery, conversations_query),
        response=ok_response(ConversationListResponse),
        summary="list conversations",
        operation=openapi.CONVERSATIONS,
    ),
    Route(
        method="GET",
        path=CONVERSATION,
        endpoint=conversation,
        response=ok_response(ConversationResponse),
        summary="one conversation",
        operation=openapi.CONVERSATION,
    ),
    Route(
        method="PUT",
        path=f"{CONVERSATION}/title",
        endpoint=rename,
        request=json_request(SetTitleRequest),
        response=ok_response(ConversationResponse),
        summary="set the title",
        operation=openapi.TITLE,
    ),
    Route(
        method="DELETE",
        path=CONVERSATION,
        endpoint=delete,
        response=NO_CONTENT,
        summary="delete a conversation with its messages",
        operation=openapi.DELETE,
    ),
    Route(
        method="GET",
        path=f"{CONVERSATION}/messages",
        endpoint=messages,
        request=query_request(NativeMessagesQuery, messages_query),
        response=ok_response(MessageListResponse),
        summary="read a conversation",
        operation=openapi.MESSAGES,
    ),
    *chat.ROUTES,
    *files.ROUTES,
)

ROUTES = (
    Route(
        method="GET",
        path=f"{ROOT}/agents",
        endpoint=agents,
        response=ok_response(AgentListResponse),
        summary="list agents",
        operation=openapi.AGENTS,
    ),
    Route(
        method="GET",
        path=f"{ROOT}/agents/{{agent}}",
        endpoint=agent,
        response=ok_response(AgentResponse),
        summary="one agent",
        operation=openapi.AGENT,
    ),
    *(replace(route, resolve_principal=require_user) for route in _USER_ROUTES),
    Route(
        method="GET",
        path=f"{ROOT}/problems",
        endpoint=problems,
        response=ok_response(ProblemCodesResponse),
        summary="every code that a problem may have",
        public=True,
        operation=openapi.PROBLEMS,
    ),
)
