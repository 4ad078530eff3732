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
    behind,
    conversations_query,
    messages_query,
    place_behind,
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
from palaver.wire.list_response import list_response, split_around

LIST_BYTES = 4_194_304
"""Bytes of variables, as they are stored, that a page of conversations has at most."""


def _reply(shown: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status=status, body=compact_json(shown), headers=headers)


async def problems(_call: Request, _who: Principal, _room: Services) -> Response:
    """Every code there is: what a problem's ``type`` leads to."""
    codes = (
        ProblemCode(code=name, status=code.status, title=code.title, meaning=code.meaning)
        for name, code in CODES.items()
    )
    return _reply(ProblemCodesResponse(problems=tuple(codes)))


# Agents -------------------------------------------------------------------------------------------------------------


async def agents(_call: Request, who: Principal, room: Services) -> Response:
    return _reply(AgentListResponse(agents=tuple(map(agent_response, await room.chat.agents(who)))))


async def agent(call: Request, who: Principal, room: Services) -> Response:
    return _reply(agent_response(await room.chat.agent(who, ref_of(call.params["agent"], "agent"))))


# Conversations ------------------------------------------------------------------------------------------------------


async def create(call: Request, who: Principal, room: Services) -> Response:
    request = parse(CreateConversationRequest, json_object(call.body))
    ref, title = agent_ref(request.agent), title_of(request.title)
    its_agent = await room.chat.agent(who, ref)

    async def work() -> tuple[Response, Subject]:
        made = await room.chat.create(who, its_agent, title=title, variables=request.variables)
        place = ("Location", f"{ROOT}/conversations/{made.uid.hex}")
        return _reply(conversation_response(made, its_agent), status=201, headers=(place,)), made

    return await answer_once(room, who, idempotency_key(call, f"POST {ROOT}/conversations"), work)


async def conversations(call: Request, who: Principal, room: Services) -> Response:
    """A page of the user's conversations, the one changed last first."""
    asked = conversations_query(call)
    after, limit = behind(asked.after), asked.limit
    its_agent = None if asked.agent is None else await room.chat.any_agent(who, ref_of(asked.agent, "agent"))
    # One more than asked for, to know whether there is another page.
    listing = ConversationQuery(
        agent=None if its_agent is None else its_agent.id,
        containing=asked.q,
        after=after,
        limit=limit + 1,
        variables=LIST_BYTES,
    )
    found = list(await room.chat.conversations(who, listing))
    page = [one for one in found[:limit] if one.with_variables]
    return _reply(
        ConversationListResponse(
            conversations=tuple(conversation_response(*one) for one in await _usable(page, who, room)),
            next=place_behind(page[-1]) if len(found) > len(page) else None,
        )
    )


async def _usable(page: list[Conversation], who: Principal, room: Services) -> list[tuple[Conversation, Agent]]:
    """Those whose agent the credential may use, each with its agent."""
    known: dict[int, Agent | None] = {}
    for number in {one.agent for one in page}:
        try:
            known[number] = await room.chat.any_agent(who, number)
        except NotFound:
            known[number] = None
    return [(one, its_agent) for one in page if (its_agent := known[one.agent]) is not None]


async def conversation(call: Request, who: Principal, room: Services) -> Response:
    return _reply(conversation_response(*await own_conversation(call.params["conversation"], who, room)))


async def rename(call: Request, who: Principal, room: Services) -> Response:
    title = title_of(parse(SetTitleRequest, json_object(call.body)).title)
    if title is None:
        raise Invalid(field="title", rule="required")
    found, its_agent = await own_conversation(call.params["conversation"], who, room)
    return _reply(conversation_response(await room.chat.rename(who, found.id, title), its_agent))


async def delete(call: Request, who: Principal, room: Services) -> Response:
    found, _ = await own_conversation(call.params["conversation"], who, room)
    await room.chat.delete(who, found.id)
    return Response(status=204)


async def messages(call: Request, who: Principal, room: Services) -> Response:
    """The newest messages, or those beside the one that the call names; oldest first."""
    asked = messages_query(call)
    found, _ = await own_conversation(call.params["conversation"], who, room)
    async with room.chat.page(who, found.id, before=asked.before, after=asked.after, limit=asked.limit) as page:
        ends = split_around(compact_json(MessageListResponse(messages=(), more=page.next is not None)))
        return await list_response((message_response(one, found) for one in page.messages), *ends)


ROUTES = (
    Route(method="GET", path=f"{ROOT}/agents", handle=agents, purpose="list agents", operation=openapi.AGENTS),
    Route(method="GET", path=f"{ROOT}/agents/{{agent}}", handle=agent, purpose="one agent", operation=openapi.AGENT),
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
        handle=problems,
        purpose="every code that a problem may have",
        public=True,
        operation=openapi.PROBLEMS,
    ),
)
