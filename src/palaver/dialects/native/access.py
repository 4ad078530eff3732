"""For whom a call is, and what it may reach. A conversation with an agent that the credential may not use is as good as
none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from palaver.core.problems import Invalid
from palaver.core.types import Agent, Conversation, Principal, Ref
from palaver.dialects.native.errors import ROOT
from palaver.dialects.native.requests import ref_of
from palaver.wire.contract import Handler, Method, Request, Response, Route, Services, StreamingResponse
from palaver.wire.operation import Operation
from palaver.wire.user_header import USER

Handle = Callable[[Request, Principal, Services], Awaitable[Response | StreamingResponse]]


def for_user(handle: Handle) -> Handler:
    """``handle`` for calls that name an end user. The others are refused: one user for all would mix people up."""

    async def handled(request: Request, who: Principal, services: Services) -> Response | StreamingResponse:
        if who.user is None:
            raise Invalid(field=USER, rule="required")
        return await handle(request, who, services)

    return handled


def route(
    method: Method,
    path: str,
    handle: Handle,
    purpose: str,
    operation: Operation,
    *,
    creating: bool = False,
    upload: bool = False,
) -> Route:
    """A route for an end user; ``path`` is below ``/palaver/v1``."""
    return Route(
        method=method,
        path=f"{ROOT}/{path}",
        endpoint=for_user(handle),
        summary=purpose,
        idempotent=creating,
        upload=upload,
        operation=operation,
    )


async def own_conversation(ref: str, who: Principal, services: Services) -> tuple[Conversation, Agent]:
    """The user's conversation with that id, and its agent, enabled or not."""
    return await services.chat.open_conversation(who, ref_of(ref, "conversation"))


def agent_ref(value: int | str | None) -> Ref:
    """The agent that a body names. Raises ``Invalid`` where it names none."""
    if value is None or value == "":
        raise Invalid(field="agent", rule="required")
    return ref_of(value, "agent")
