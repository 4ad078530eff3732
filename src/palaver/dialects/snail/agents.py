"""Surfaces B and C: agents, and which of them a user subscribed. Source: wire specification ``snail.md``, section 7."""

from __future__ import annotations

from contextlib import suppress

from palaver.core.problems import NotFound
from palaver.core.types import Agent, Principal
from palaver.dialects.snail import openapi
from palaver.dialects.snail.errors import B, success
from palaver.dialects.snail.requests import (
    AgentIdRequest,
    OpenIdRequest,
    PageRequest,
    SubscriptionRequest,
    asked,
    members,
    need,
    stretch,
)
from palaver.dialects.snail.responses import agent_shown
from palaver.dialects.snail.users import person
from palaver.wire.bodies import as_id
from palaver.wire.contract import Request, Response, Route, Services

PAGE = 50


async def agent_of(who: Principal, room: Services, number: int, *, enabled: bool = True) -> Agent:
    """The agent of that number that the credential may use. Raises ``NotFound``."""
    ref = as_id(number)
    if ref is None:
        raise NotFound(noun="agent", ref=str(number))
    return await (room.chat.agent(who, ref) if enabled else room.chat.any_agent(who, ref))


async def _newest_first(who: Principal, room: Services) -> list[Agent]:
    return sorted(await room.chat.agents(who), key=lambda agent: (agent.modified, agent.id), reverse=True)


async def _subscriptions(who: Principal, room: Services) -> set[int] | None:
    """The agents that the user of a browser's token subscribed; ``None`` for a caller that is no browser."""
    if who.user is None:
        return None
    try:
        return await room.users.subscribed(who, await person(who, room, who.user))
    except NotFound:
        return set()


async def list_agents(call: Request, who: Principal, room: Services) -> Response:
    request = asked(PageRequest, members(call, who))
    page, size = stretch(request.page, request.size, PAGE)
    agents = await _newest_first(who, room)
    chosen = await _subscriptions(who, room)
    shown = [
        agent_shown(agent, room.settings.timezone, subscribed=None if chosen is None else agent.id in chosen)
        for agent in agents[(page - 1) * size : page * size]
    ]
    return success(shown, page=page, size=size, total=len(agents))


async def one_agent(call: Request, who: Principal, room: Services) -> Response:
    request = asked(AgentIdRequest, members(call, who))
    agent = await agent_of(who, room, need(request.agentId, "agentId"), enabled=False)
    chosen = await _subscriptions(who, room)
    subscribed = None if chosen is None else agent.id in chosen
    return success(agent_shown(agent, room.settings.timezone, subscribed=subscribed))


async def subscribed_agents(call: Request, who: Principal, room: Services) -> Response:
    user = await person(who, room, asked(OpenIdRequest, members(call, who)).openId)
    chosen = await room.users.subscribed(who, user)
    agents = [agent for agent in await _newest_first(who, room) if agent.id in chosen]
    return success([agent_shown(agent, room.settings.timezone, subscribed=True) for agent in agents])


async def subscribe(call: Request, who: Principal, room: Services) -> Response:
    request = asked(SubscriptionRequest, members(call, who))
    open_id, number = need(request.openId, "openId"), need(request.agentId, "agentId")
    user = await person(who, room, open_id)
    await room.users.subscribe(who, user, await agent_of(who, room, number), on=True)
    return success(None)


async def unsubscribe(call: Request, who: Principal, room: Services) -> Response:
    request = asked(SubscriptionRequest, members(call, who))
    open_id, number = need(request.openId, "openId"), need(request.agentId, "agentId")
    user = await person(who, room, open_id)
    with suppress(NotFound):  # nobody is subscribed to an agent that is not there
        await room.users.subscribe(who, user, await agent_of(who, room, number, enabled=False), on=False)
    return success(None)


ROUTES = (
    Route(method="GET", path=f"{B}/agents", handle=list_agents, purpose="list agents", operation=openapi.AGENTS),
    Route(method="GET", path=f"{B}/agent", handle=one_agent, purpose="show one agent", operation=openapi.AGENT),
    Route(
        method="GET",
        path=f"{B}/user/agents",
        handle=subscribed_agents,
        purpose="list a user's agents",
        operation=openapi.SUBSCRIBED,
    ),
    Route(
        method="POST",
        path=f"{B}/user/agent",
        handle=subscribe,
        purpose="subscribe an agent",
        operation=openapi.SUBSCRIBE,
    ),
    Route(
        method="DELETE",
        path=f"{B}/user/agent",
        handle=unsubscribe,
        purpose="unsubscribe an agent",
        operation=openapi.UNSUBSCRIBE,
    ),
)
