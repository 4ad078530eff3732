"""The end user of a request, and the agents and conversations that the request may use."""

from __future__ import annotations

from palaver.core.chat import require_enabled
from palaver.core.problems import Conflict, Forbidden, NotFound
from palaver.core.types import Agent, Conversation, Principal
from palaver.dialects.xspace.auth import user_number
from palaver.dialects.xspace.requests import conversation_ref
from palaver.wire.contract import Request, Services


async def resolve_principal(request: Request, principal: Principal, services: Services) -> Principal:
    """The principal with its end user, who is looked up if a header names them by number. Raises ``NotFound``."""
    number = None if principal.user is not None else user_number(request, principal.key)
    if number is None:
        return principal
    return principal.acting_for((await services.users.get(principal, number)).name)


def require_agent_key(principal: Principal) -> None:
    """Raises ``Forbidden`` for a key that is not bound to an agent."""
    if principal.key.setting("kind") != "agent":
        raise Forbidden(reason="kind")


async def open_conversation(request: Request, principal: Principal, services: Services) -> tuple[Conversation, Agent]:
    """The user's conversation that the path names, and its agent. Raises ``NotFound``, also if the agent is
    disabled."""
    ref = request.path_params.get("conversationId") or request.path_params["id"]
    return await services.chat.open_conversation(principal, conversation_ref(ref), enabled=True)


async def bound_agent(principal: Principal, services: Services) -> Agent:
    """The agent that the key is bound to. Raises ``NotFound``, also if the agent is disabled."""
    ref = str(principal.key.setting("agent", ""))
    for agent in await services.chat.agents(principal):
        if ref in agent.identifiers:
            return agent
    raise NotFound(noun="agent", ref=ref)


async def bound_conversation(ref: str | int, principal: Principal, services: Services) -> tuple[Conversation, Agent]:
    """The user's conversation, and its agent. Raises ``NotFound``, also if the agent is disabled, and ``Conflict`` if
    it is not the agent that the key is bound to."""
    conversation, agent = await services.chat.open_conversation(principal, conversation_ref(str(ref)))
    require_enabled(agent, agent.id)
    if str(principal.key.setting("agent", "")) not in agent.identifiers:
        raise Conflict(reason="agent")
    return conversation, agent
