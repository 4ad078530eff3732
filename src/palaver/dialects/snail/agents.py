"""Surfaces B and C: agents, and users' subscriptions to them. Source: wire specification ``snail.md``, section 7."""

from __future__ import annotations

from contextlib import suppress

from palaver.core.problems import NotFound
from palaver.core.types import Agent, Principal
from palaver.dialects.snail import openapi
from palaver.dialects.snail.errors import B
from palaver.dialects.snail.requests import (
    AgentIdRequest,
    OpenIdRequest,
    PageRequest,
    SubscriptionRequest,
    json_request,
    page_bounds,
    query_request,
    require,
)
from palaver.dialects.snail.responses import (
    DONE,
    SnailAgent,
    SnailPage,
    agent_response,
    ok_response,
    page_envelope,
    success_page,
)
from palaver.dialects.snail.users import find_user, open_id_of
from palaver.wire.bodies import valid_id
from palaver.wire.contract import Request, Route, Services

PAGE_SIZE = 50


async def agent_of(principal: Principal, services: Services, number: int, *, enabled: bool = True) -> Agent:
    """The agent with that number, if the credential may use it. Raises ``NotFound``."""
    ref = valid_id(number)
    if ref is None:
        raise NotFound(noun="agent", ref=str(number))
    return await (
        services.chat.agent(principal, ref) if enabled else services.chat.agent_including_disabled(principal, ref)
    )


async def _recent_agents(principal: Principal, services: Services) -> list[Agent]:
    """The agents that the credential may use, most recently changed first."""
    agents = await services.chat.agents(principal)
    return sorted(agents, key=lambda agent: (agent.modified, agent.id), reverse=True)


async def _subscriptions(principal: Principal, services: Services) -> set[int] | None:
    """The ids of the agents that the token's user is subscribed to; ``None`` on surface B."""
    if principal.user is None:
        return None
    try:
        return await services.users.subscriptions(principal, await find_user(principal, services, principal.user))
    except NotFound:
        return set()


async def list_agents(
    _request: Request, body: PageRequest, principal: Principal, services: Services
) -> SnailPage[list[SnailAgent]]:
    page, size = page_bounds(body.page, body.size, PAGE_SIZE)
    agents = await _recent_agents(principal, services)
    subscriptions = await _subscriptions(principal, services)
    items = [
        agent_response(
            agent, services.settings.timezone, subscribed=None if subscriptions is None else agent.id in subscriptions
        )
        for agent in agents[(page - 1) * size : page * size]
    ]
    return page_envelope(items, page=page, size=size, total=len(agents))


async def show_agent(_request: Request, body: AgentIdRequest, principal: Principal, services: Services) -> SnailAgent:
    agent = await agent_of(principal, services, require(body.agent_id, "agentId"), enabled=False)
    subscriptions = await _subscriptions(principal, services)
    subscribed = None if subscriptions is None else agent.id in subscriptions
    return agent_response(agent, services.settings.timezone, subscribed=subscribed)


async def list_subscribed_agents(
    _request: Request, body: OpenIdRequest, principal: Principal, services: Services
) -> list[SnailAgent]:
    user = await find_user(principal, services, open_id_of(principal, body.open_id))
    subscriptions = await services.users.subscriptions(principal, user)
    agents = [agent for agent in await _recent_agents(principal, services) if agent.id in subscriptions]
    return [agent_response(agent, services.settings.timezone, subscribed=True) for agent in agents]


async def subscribe(_request: Request, body: SubscriptionRequest, principal: Principal, services: Services) -> None:
    open_id, number = open_id_of(principal, body.open_id), require(body.agent_id, "agentId")
    user = await find_user(principal, services, open_id)
    await services.users.set_subscribed(principal, user, await agent_of(principal, services, number), on=True)


async def unsubscribe(_request: Request, body: SubscriptionRequest, principal: Principal, services: Services) -> None:
    """Unsubscribe the user. Nobody is subscribed to an unknown agent, so that is not an error."""
    open_id, number = open_id_of(principal, body.open_id), require(body.agent_id, "agentId")
    user = await find_user(principal, services, open_id)
    with suppress(NotFound):
        agent = await agent_of(principal, services, number, enabled=False)
        await services.users.set_subscribed(principal, user, agent, on=False)


ROUTES = (
    Route(
        method="GET",
        path=f"{B}/agents",
        endpoint=list_agents,
        request=query_request(PageRequest),
        response=success_page(SnailAgent),
        summary="list agents",
        operation=openapi.AGENTS,
    ),
    Route(
        method="GET",
        path=f"{B}/agent",
        endpoint=show_agent,
        request=query_request(AgentIdRequest),
        response=ok_response(SnailAgent),
        summary="show one agent",
        operation=openapi.AGENT,
    ),
    Route(
        method="GET",
        path=f"{B}/user/agents",
        endpoint=list_subscribed_agents,
        request=query_request(OpenIdRequest),
        response=ok_response(list[SnailAgent]),
        summary="list a user's agents",
        operation=openapi.SUBSCRIBED,
    ),
    Route(
        method="POST",
        path=f"{B}/user/agent",
        endpoint=subscribe,
        request=json_request(SubscriptionRequest),
        response=DONE,
        summary="subscribe to an agent",
        operation=openapi.SUBSCRIBE,
    ),
    Route(
        method="DELETE",
        path=f"{B}/user/agent",
        endpoint=unsubscribe,
        request=query_request(SubscriptionRequest),
        response=DONE,
        summary="unsubscribe from an agent",
        operation=openapi.UNSUBSCRIBE,
    ),
)
