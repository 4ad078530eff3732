"""The route table; agents, conversations and what was said in them. Source: ``docs/native.md``, sections 1 and 5."""

from __future__ import annotations

from typing import Any

from palaver.core.ports.store import ConversationQuery
from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Agent, Conversation, Principal
from palaver.dialects.native import chat, files, openapi
from palaver.dialects.native.access import agent_ref, own_conversation, route
from palaver.dialects.native.errors import CODES, ROOT
from palaver.dialects.native.requests import (
    CreateConversationRequest,
    SetTitleRequest,
    conversations_query,
    cursor_after,
    messages_query,
    parse_cursor,
    ref_of,
    title_of,
)
from palaver.dialects.native.responses import (
    AgentListResponse,
    ConversationListResponse,
    MessageListResponse,
    ProblemCode,
    ProblemCodesResponse,
    agent_response,
    conversation_response,
    message_response,
)
from palaver.wire.bodies import idempotency_key, json_object, parse
from palaver.wire.contract import Request, Response, Route, Services
from palaver.wire.framing import compact_json
from palaver.wire.idempotent import Subject, answer_once
from palaver.wire.list_response import list_response, split_at_placeholder

LIST_BYTES = 4_194_304
"""Bytes of variables, as they are stored, that a page of conversations has at most."""


def _reply(content: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status=status, body=compact_json(content), headers=headers)


async def problems(_call: Request, _who: Principal, _room: Services) -> Response:
    """Every code there is: what a problem's ``type`` leads to."""
    codes = (
        ProblemCode(code=name, status=code.status, title=code.title, meaning=code.meaning)
        for name, code in CODES.items()
    )
    return _reply(ProblemCodesResponse(problems=tuple(codes)))


# Agents -------------------------------------------------------------------------------------------------------------


async def agents(_call: Request, who: Principal, services: Services) -> Response:
    return _reply(AgentListResponse(agents=tuple(map(agent_response, await services.chat.agents(who)))))


async def agent(request: Request, who: Principal, services: Services) -> Response:
    return _reply(agent_response(await services.chat.agent(who, ref_of(request.path_params["agent"], "agent"))))


# Conversations ------------------------------------------------------------------------------------------------------


async def create(request: Request, who: Principal, services: Services) -> Response:
    body = parse(CreateConversationRequest, json_object(request.body))
    ref, title = agent_ref(body.agent), title_of(body.title)
    its_agent = await services.chat.agent(who, ref)

    async def work() -> tuple[Response, Subject]:
        created = await services.chat.create_conversation(who, its_agent, title=title, variables=body.variables)
        location = ("Location", f"{ROOT}/conversations/{created.uid.hex}")
        return _reply(conversation_response(created, its_agent), status=201, headers=(location,)), created

    return await answer_once(services, who, idempotency_key(request, f"POST {ROOT}/conversations"), work)


async def conversations(request: Request, who: Principal, services: Services) -> Response:
    """A page of the user's conversations, the one changed last first."""
    query = conversations_query(request)
    after, limit = parse_cursor(query.after), query.limit
    its_agent = None if query.agent is None else await services.chat.any_agent(who, ref_of(query.agent, "agent"))
    # One more than asked for, to know whether there is another page.
    conversation_query = ConversationQuery(
        agent=None if its_agent is None else its_agent.id,
        containing=query.q,
        after=after,
        limit=limit + 1,
        max_variables_bytes=LIST_BYTES,
    )
    rows = list(await services.chat.conversations(who, conversation_query))
    page = [one for one in rows[:limit] if one.with_variables]
    return _reply(
        ConversationListResponse(
            conversations=tuple(conversation_response(*one) for one in await _usable(page, who, services)),
            next=cursor_after(page[-1]) if len(rows) > len(page) else None,
        )
    )


async def _usable(page: list[Conversation], who: Principal, services: Services) -> list[tuple[Conversation, Agent]]:
    """Those whose agent the credential may use, each with its agent."""
    known: dict[int, Agent | None] = {}
    for number in {one.agent for one in page}:
        try:
            known[number] = await services.chat.any_agent(who, number)
        except NotFound:
            known[number] = None
    return [(one, its_agent) for one in page if (its_agent := known[one.agent]) is not None]


async def conversation(request: Request, who: Principal, services: Services) -> Response:
    return _reply(conversation_response(*await own_conversation(request.path_params["conversation"], who, services)))


async def rename(request: Request, who: Principal, services: Services) -> Response:
    title = title_of(parse(SetTitleRequest, json_object(request.body)).title)
    if title is None:
        raise Invalid(field="title", rule="required")
    conversation, its_agent = await own_conversation(request.path_params["conversation"], who, services)
    return _reply(
        conversation_response(await services.chat.rename_conversation(who, conversation.id, title), its_agent)
    )


async def delete(request: Request, who: Principal, services: Services) -> Response:
    conversation, _ = await own_conversation(request.path_params["conversation"], who, services)
    await services.chat.delete_conversation(who, conversation.id)
    return Response(status=204)


async def messages(request: Request, who: Principal, services: Services) -> Response:
    """The newest messages, or those beside the one that the call names; oldest first."""
    query = messages_query(request)
    conversation, _ = await own_conversation(request.path_params["conversation"], who, services)
    async with services.chat.history_page(
        who, conversation, before=query.before, after=query.after, limit=query.limit
    ) as page:
        ends = split_at_placeholder(compact_json(MessageListResponse(messages=(), more=page.next is not None)))
        return await list_response((message_response(one, conversation) for one in page.messages), *ends)


ROUTES = (
    Route(method="GET", path=f"{ROOT}/agents", endpoint=agents, summary="list agents", operation=openapi.AGENTS),
    Route(method="GET", path=f"{ROOT}/agents/{{agent}}", endpoint=agent, summary="one agent", operation=openapi.AGENT),
    route("POST", "conversations", create, "create a conversation", openapi.CREATE, creating=True),
    route("GET", "conversations", conversations, "list conversations", openapi.CONVERSATIONS),
    route("GET", "conversations/{conversation}", conversation, "one conversation", openapi.CONVERSATION),
    route("PUT", "conversations/{conversation}/title", rename, "set the title", openapi.TITLE),
    route("DELETE", "conversations/{conversation}", delete, "delete a conversation with its messages", openapi.DELETE),
    route("GET", "conversations/{conversation}/messages", messages, "read a conversation", openapi.MESSAGES),
    *chat.ROUTES,
    *files.ROUTES,
    Route(
        method="GET",
        path=f"{ROOT}/problems",
        endpoint=problems,
        summary="every code that a problem may have",
        public=True,
        operation=openapi.PROBLEMS,
    ),
)
