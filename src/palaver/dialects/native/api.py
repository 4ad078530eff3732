"""The route table; agents, conversations and what was said in them. Source: ``docs/native.md``, sections 1 and 5."""

from __future__ import annotations

from typing import Any

from palaver.core.ports import Listing
from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Agent, Conversation, Principal
from palaver.dialects.native import described, files, talk
from palaver.dialects.native.callers import agent_ref, own_conversation, route
from palaver.dialects.native.shapes import (
    Naming,
    NewConversation,
    behind,
    conversations_query,
    messages_query,
    place_behind,
    ref_of,
    title_of,
)
from palaver.dialects.native.shown import (
    AgentsShown,
    CodeShown,
    CodesShown,
    ConversationsShown,
    MessagesShown,
    agent_shown,
    conversation_shown,
    message_shown,
)
from palaver.dialects.native.words import CODES, ROOT
from palaver.wire.bodies import idempotency, json_object, read
from palaver.wire.contract import Call, Reply, Room, Route
from palaver.wire.framing import compact
from palaver.wire.lists import around, listed
from palaver.wire.once import Subject, once

LIST_BYTES = 4_194_304
"""Bytes of variables, as they are stored, that a page of conversations has at most."""


def _reply(shown: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(status=status, body=compact(shown), headers=headers)


async def problems(_call: Call, _who: Principal, _room: Room) -> Reply:
    """Every code there is: what a problem's ``type`` leads to."""
    codes = (
        CodeShown(code=name, status=code.status, title=code.title, meaning=code.meaning) for name, code in CODES.items()
    )
    return _reply(CodesShown(problems=tuple(codes)))


# Agents -------------------------------------------------------------------------------------------------------------


async def agents(_call: Call, who: Principal, room: Room) -> Reply:
    return _reply(AgentsShown(agents=tuple(map(agent_shown, await room.chat.agents(who)))))


async def agent(call: Call, who: Principal, room: Room) -> Reply:
    return _reply(agent_shown(await room.chat.agent(who, ref_of(call.params["agent"], "agent"))))


# Conversations ------------------------------------------------------------------------------------------------------


async def create(call: Call, who: Principal, room: Room) -> Reply:
    request = read(NewConversation, json_object(call.body))
    ref, title = agent_ref(request.agent), title_of(request.title)
    its_agent = await room.chat.agent(who, ref)

    async def work() -> tuple[Reply, Subject]:
        made = await room.chat.create(who, its_agent, title=title, variables=request.variables)
        place = ("Location", f"{ROOT}/conversations/{made.uid.hex}")
        return _reply(conversation_shown(made, its_agent), status=201, headers=(place,)), made

    return await once(room, who, idempotency(call, f"POST {ROOT}/conversations"), work)


async def conversations(call: Call, who: Principal, room: Room) -> Reply:
    """A page of the user's conversations, the one changed last first."""
    asked = conversations_query(call)
    after, limit = behind(asked.after), asked.limit
    its_agent = None if asked.agent is None else await room.chat.any_agent(who, ref_of(asked.agent, "agent"))
    # One more than asked for, to know whether there is another page.
    listing = Listing(
        agent=None if its_agent is None else its_agent.id,
        containing=asked.q,
        after=after,
        limit=limit + 1,
        variables=LIST_BYTES,
    )
    found = list(await room.chat.conversations(who, listing))
    page = [one for one in found[:limit] if one.with_variables]
    return _reply(
        ConversationsShown(
            conversations=tuple(conversation_shown(*one) for one in await _usable(page, who, room)),
            next=place_behind(page[-1]) if len(found) > len(page) else None,
        )
    )


async def _usable(page: list[Conversation], who: Principal, room: Room) -> list[tuple[Conversation, Agent]]:
    """Those whose agent the credential may use, each with its agent."""
    known: dict[int, Agent | None] = {}
    for number in {one.agent for one in page}:
        try:
            known[number] = await room.chat.any_agent(who, number)
        except NotFound:
            known[number] = None
    return [(one, its_agent) for one in page if (its_agent := known[one.agent]) is not None]


async def conversation(call: Call, who: Principal, room: Room) -> Reply:
    return _reply(conversation_shown(*await own_conversation(call.params["conversation"], who, room)))


async def rename(call: Call, who: Principal, room: Room) -> Reply:
    title = title_of(read(Naming, json_object(call.body)).title)
    if title is None:
        raise Invalid(field="title", rule="required")
    found, its_agent = await own_conversation(call.params["conversation"], who, room)
    return _reply(conversation_shown(await room.chat.rename(who, found.id, title), its_agent))


async def delete(call: Call, who: Principal, room: Room) -> Reply:
    found, _ = await own_conversation(call.params["conversation"], who, room)
    await room.chat.delete(who, found.id)
    return Reply(status=204)


async def messages(call: Call, who: Principal, room: Room) -> Reply:
    """The newest messages, or those beside the one that the call names; oldest first."""
    asked = messages_query(call)
    found, _ = await own_conversation(call.params["conversation"], who, room)
    async with room.chat.page(who, found.id, before=asked.before, after=asked.after, limit=asked.limit) as page:
        ends = around(compact(MessagesShown(messages=(), more=page.next is not None)))
        return await listed((message_shown(one, found) for one in page.messages), *ends)


ROUTES = (
    Route(method="GET", path=f"{ROOT}/agents", handle=agents, purpose="list agents", told=described.AGENTS),
    Route(method="GET", path=f"{ROOT}/agents/{{agent}}", handle=agent, purpose="one agent", told=described.AGENT),
    route("POST", "conversations", create, "create a conversation", described.CREATE, creating=True),
    route("GET", "conversations", conversations, "list conversations", described.CONVERSATIONS),
    route("GET", "conversations/{conversation}", conversation, "one conversation", described.CONVERSATION),
    route("PUT", "conversations/{conversation}/title", rename, "set the title", described.TITLE),
    route(
        "DELETE", "conversations/{conversation}", delete, "delete a conversation with its messages", described.DELETE
    ),
    route("GET", "conversations/{conversation}/messages", messages, "read a conversation", described.MESSAGES),
    *talk.ROUTES,
    *files.ROUTES,
    Route(
        method="GET",
        path=f"{ROOT}/problems",
        handle=problems,
        purpose="every code that a problem may have",
        public=True,
        told=described.PROBLEMS,
    ),
)
