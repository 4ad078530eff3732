"""For whom a call is, and what it may reach. Every look-up is by the caller's end user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from palaver.core.chat import require_enabled
from palaver.core.problems import Conflict, Forbidden, NotFound
from palaver.core.types import Agent, Conversation, Principal
from palaver.dialects.xspace.auth import user_number
from palaver.dialects.xspace.requests import conversation_ref
from palaver.wire.contract import Handler, Request, Response, Services, StreamingResponse

Handle = Callable[[Request, Principal, Services], Awaitable[Response | StreamingResponse]]


def personal(handle: Handle) -> Handler:
    """``handle`` for every key, once its end user is known."""

    async def handled(request: Request, who: Principal, services: Services) -> Response | StreamingResponse:
        return await handle(request, await _for_user(request, who, services), services)

    return handled


def agent_bound(who: Principal) -> None:
    """Raises ``Forbidden`` for a key that is bound to no agent."""
    if who.key.setting("kind") != "agent":
        raise Forbidden(reason="kind")


async def _for_user(request: Request, who: Principal, services: Services) -> Principal:
    number = None if who.user is not None else user_number(request, who.key)
    if number is None:
        return who
    return who.acting_for((await services.users.find(who, number)).name)


async def own_conversation(request: Request, who: Principal, services: Services) -> tuple[Conversation, Agent]:
    """The conversation that the path names, and its enabled agent; without either there is no conversation."""
    ref = request.path_params.get("conversationId") or request.path_params["id"]
    return await services.chat.open_conversation(who, conversation_ref(ref), enabled=True)


async def bound_agent(who: Principal, services: Services) -> Agent:
    """The agent the key is bound to. Raises ``NotFound``, for a disabled one as well."""
    ref = str(who.key.setting("agent", ""))
    for agent in await services.chat.agents(who):
        if ref in agent.names:
            return agent
    raise NotFound(noun="agent", ref=ref)


async def bound_conversation(ref: str | int, who: Principal, services: Services) -> tuple[Conversation, Agent]:
    """A conversation of the user's with the key's agent, as the older paths find it."""
    conversation, agent = await services.chat.open_conversation(who, conversation_ref(str(ref)))
    require_enabled(agent, agent.id)
    if str(who.key.setting("agent", "")) not in agent.names:
        raise Conflict(reason="agent")
    return conversation, agent
