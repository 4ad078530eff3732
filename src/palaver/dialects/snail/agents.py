"""Surfaces B and C: agents, and which of them a user subscribed. Source: wire specification ``snail.md``, section 7."""

from __future__ import annotations

from contextlib import suppress

from palaver.core.problems import NotFound
from palaver.core.types import Agent, Principal
from palaver.dialects.snail import openapi
from palaver.dialects.snail.errors import B, success, success_page
from palaver.dialects.snail.requests import (
    AgentIdRequest,
    OpenIdRequest,
    PageRequest,
    SubscriptionRequest,
    page_bounds,
    parse_fields,
    request_fields,
    require,
)
from palaver.dialects.snail.responses import agent_response
from palaver.dialects.snail.users import find_user
from palaver.wire.bodies import as_id
from palaver.wire.contract import Request, Response, Route, Services

PAGE = 50


async def agent_of(who: Principal, services: Services, number: int, *, enabled: bool = True) -> Agent:
    """The agent of that number that the credential may use. Raises ``NotFound``."""
    ref = as_id(number)
    if ref is None:
        raise NotFound(noun="agent", ref=str(number))
    return await (services.chat.agent(who, ref) if enabled else services.chat.any_agent(who, ref))


async def _newest_first(who: Principal, services: Services) -> list[Agent]:
    return sorted(await services.chat.agents(who), key=lambda agent: (agent.modified, agent.id), reverse=True)


async def _subscriptions(who: Principal, services: Services) -> set[int] | None:
    """The agents that the user of a browser's token subscribed; ``None`` for a caller that is no browser."""
    if who.user is None:
        return None
    try:
        return await services.users.subscribed(who, await find_user(who, services, who.user))
    except NotFound:
        return set()


async def list_agents(request: Request, who: Principal, services: Services) -> Response:
    body = parse_fields(PageRequest, request_fields(request, who))
    page, size = page_bounds(body.page, body.size, PAGE)
    agents = await _newest_first(who, services)
    subscriptions = await _subscriptions(who, services)
    items = [
        agent_response(
            agent, services.settings.timezone, subscribed=None if subscriptions is None else agent.id in subscriptions
        )
        for agent in agents[(page - 1) * size : page * size]
    ]
    return success_page(items, page=page, size=size, total=len(agents))


async def one_agent(request: Request, who: Principal, services: Services) -> Response:
    body = parse_fields(AgentIdRequest, request_fields(request, who))
    agent = await agent_of(who, services, require(body.agent_id, "agentId"), enabled=False)
    subscriptions = await _subscriptions(who, services)
    subscribed = None if subscriptions is None else agent.id in subscriptions
    return success(agent_response(agent, services.settings.timezone, subscribed=subscribed))


async def subscribed_agents(request: Request, who: Principal, services: Services) -> Response:
    user = await find_user(who, services, parse_fields(OpenIdRequest, request_fields(request, who)).open_id)
    subscriptions = await services.users.subscribed(who, user)
    agents = [agent for agent in await _newest_first(who, services) if agent.id in subscriptions]
    return success([agent_response(agent, services.settings.timezone, subscribed=True) for agent in agents])


async def subscribe(request: Request, who: Principal, services: Services) -> Response:
    body = parse_fields(SubscriptionRequest, request_fields(request, who))
    open_id, number = require(body.open_id, "openId"), require(body.agent_id, "agentId")
    user = await find_user(who, services, open_id)
    await services.users.subscribe(who, user, await agent_of(who, services, number), on=True)
    return success(None)


async def unsubscribe(request: Request, who: Principal, services: Services) -> Response:
    body = parse_fields(SubscriptionRequest, request_fields(request, who))
    open_id, number = require(body.open_id, "openId"), require(body.agent_id, "agentId")
    user = await find_user(who, services, open_id)
    with suppress(NotFound):  # nobody is subscribed to an agent that is not there
        await services.users.subscribe(who, user, await agent_of(who, services, number, enabled=False), on=False)
    return success(None)


ROUTES = (
    Route(method="GET", path=f"{B}/agents", endpoint=list_agents, summary="list agents", operation=openapi.AGENTS),
    Route(method="GET", path=f"{B}/agent", endpoint=one_agent, summary="show one agent", operation=openapi.AGENT),
    Route(
        method="GET",
        path=f"{B}/user/agents",
        endpoint=subscribed_agents,
        summary="list a user's agents",
        operation=openapi.SUBSCRIBED,
    ),
    Route(
        method="POST",
        path=f"{B}/user/agent",
        endpoint=subscribe,
        summary="subscribe an agent",
        operation=openapi.SUBSCRIBE,
    ),
    Route(
        method="DELETE",
        path=f"{B}/user/agent",
        endpoint=unsubscribe,
        summary="unsubscribe an agent",
        operation=openapi.UNSUBSCRIBE,
    ),
)
