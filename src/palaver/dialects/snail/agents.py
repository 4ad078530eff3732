"""Surfaces B and C: agents, and which of them a user subscribed. Source: wire specification ``snail.md``, section 7."""

from __future__ import annotations

from contextlib import suppress

from palaver.core.problems import NotFound
from palaver.core.types import Agent, Principal
from palaver.dialects.snail import described
from palaver.dialects.snail.shapes import ForAgent, ForUser, Paged, Subscription, asked, members, need, stretch
from palaver.dialects.snail.shown import agent_shown
from palaver.dialects.snail.users import person
from palaver.dialects.snail.words import B, success
from palaver.wire.bodies import as_id
from palaver.wire.contract import Call, Reply, Room, Route

PAGE = 50


async def agent_of(who: Principal, room: Room, number: int, *, enabled: bool = True) -> Agent:
    """The agent of that number that the credential may use. Raises ``NotFound``."""
    ref = as_id(number)
    if ref is None:
        raise NotFound(noun="agent", ref=str(number))
    return await (room.chat.agent(who, ref) if enabled else room.chat.any_agent(who, ref))


async def _newest_first(who: Principal, room: Room) -> list[Agent]:
    return sorted(await room.chat.agents(who), key=lambda agent: (agent.modified, agent.id), reverse=True)


async def _subscriptions(who: Principal, room: Room) -> set[int] | None:
    """The agents that the user of a browser's token subscribed; ``None`` for a caller that is no browser."""
    if who.user is None:
        return None
    try:
        return await room.people.subscribed(who, await person(who, room, who.user))
    except NotFound:
        return set()


async def list_agents(call: Call, who: Principal, room: Room) -> Reply:
    request = asked(Paged, members(call, who))
    page, size = stretch(request.page, request.size, PAGE)
    agents = await _newest_first(who, room)
    chosen = await _subscriptions(who, room)
    shown = [
        agent_shown(agent, room.site.timezone, subscribed=None if chosen is None else agent.id in chosen)
        for agent in agents[(page - 1) * size : page * size]
    ]
    return success(shown, page=page, size=size, total=len(agents))


async def one_agent(call: Call, who: Principal, room: Room) -> Reply:
    request = asked(ForAgent, members(call, who))
    agent = await agent_of(who, room, need(request.agentId, "agentId"), enabled=False)
    chosen = await _subscriptions(who, room)
    subscribed = None if chosen is None else agent.id in chosen
    return success(agent_shown(agent, room.site.timezone, subscribed=subscribed))


async def subscribed_agents(call: Call, who: Principal, room: Room) -> Reply:
    user = await person(who, room, asked(ForUser, members(call, who)).openId)
    chosen = await room.people.subscribed(who, user)
    agents = [agent for agent in await _newest_first(who, room) if agent.id in chosen]
    return success([agent_shown(agent, room.site.timezone, subscribed=True) for agent in agents])


async def subscribe(call: Call, who: Principal, room: Room) -> Reply:
    request = asked(Subscription, members(call, who))
    open_id, number = need(request.openId, "openId"), need(request.agentId, "agentId")
    user = await person(who, room, open_id)
    await room.people.subscribe(who, user, await agent_of(who, room, number), on=True)
    return success(None)


async def unsubscribe(call: Call, who: Principal, room: Room) -> Reply:
    request = asked(Subscription, members(call, who))
    open_id, number = need(request.openId, "openId"), need(request.agentId, "agentId")
    user = await person(who, room, open_id)
    with suppress(NotFound):  # nobody is subscribed to an agent that is not there
        await room.people.subscribe(who, user, await agent_of(who, room, number, enabled=False), on=False)
    return success(None)


ROUTES = (
    Route(method="GET", path=f"{B}/agents", handle=list_agents, purpose="list agents", told=described.AGENTS),
    Route(method="GET", path=f"{B}/agent", handle=one_agent, purpose="show one agent", told=described.AGENT),
    Route(
        method="GET",
        path=f"{B}/user/agents",
        handle=subscribed_agents,
        purpose="list a user's agents",
        told=described.SUBSCRIBED,
    ),
    Route(
        method="POST", path=f"{B}/user/agent", handle=subscribe, purpose="subscribe an agent", told=described.SUBSCRIBE
    ),
    Route(
        method="DELETE",
        path=f"{B}/user/agent",
        handle=unsubscribe,
        purpose="unsubscribe an agent",
        told=described.UNSUBSCRIBE,
    ),
)
