"""The caller's end user, and the resources it names."""

from __future__ import annotations

from palaver.core.problems import Invalid
from palaver.core.types import Agent, Conversation, Principal, Ref
from palaver.dialects.native.requests import ref_of
from palaver.wire.contract import Request, Services
from palaver.wire.user_header import USER


async def require_user(_request: Request, principal: Principal, _services: Services) -> Principal:
    """The principal, if the request or the credential names an end user. Otherwise raises ``Invalid``: one end user
    shared by all callers would mix up their conversations."""
    if principal.user is None:
        raise Invalid(field=USER, rule="required")
    return principal


async def open_conversation(request: Request, principal: Principal, services: Services) -> tuple[Conversation, Agent]:
    """The user's conversation that the path names, and its agent, enabled or not. Raises ``NotFound``."""
    return await services.chat.open_conversation(principal, ref_of(request.path_params["conversation"], "conversation"))


def agent_ref(value: int | str | None) -> Ref:
    """The agent that a body names. Raises ``Invalid`` if it names none."""
    if value is None or value == "":
        raise Invalid(field="agent", rule="required")
    return ref_of(value, "agent")
