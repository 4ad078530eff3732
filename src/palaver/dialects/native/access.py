"""For whom a call is, and what it may reach. A conversation with an agent that the credential may not use is as good as
none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Agent, Conversation, Message, Principal, Ref
from palaver.dialects.native.errors import ROOT
from palaver.dialects.native.requests import ref_of
from palaver.wire.contract import Handler, Method, Request, Response, Route, Services, StreamingResponse
from palaver.wire.operation import Operation
from palaver.wire.user_header import USER

Handle = Callable[[Request, Principal, Services], Awaitable[Response | StreamingResponse]]


def for_user(handle: Handle) -> Handler:
    """``handle`` for calls that name an end user. The others are refused: one user for all would mix people up."""

    async def handled(call: Request, who: Principal, room: Services) -> Response | StreamingResponse:
        if who.user is None:
            raise Invalid(field=USER, rule="required")
        return await handle(call, who, room)

    return handled


def route(
    method: Method,
    path: str,
    handle: Handle,
    purpose: str,
    told: Operation,
    *,
    creating: bool = False,
    upload: bool = False,
) -> Route:
    """A route for an end user; ``path`` is below ``/palaver/v1``."""
    return Route(
        method=method,
        path=f"{ROOT}/{path}",
        handle=for_user(handle),
        purpose=purpose,
        idempotent=creating,
        upload=upload,
        operation=told,
    )


async def own_conversation(given: str | int, who: Principal, room: Services) -> tuple[Conversation, Agent]:
    """The user's conversation of that name, and its agent, enabled or not."""
    return await _with_agent(await room.chat.conversation(who, ref_of(given, "conversation")), who, room)


async def own_run(run: UUID, who: Principal, room: Services) -> tuple[Message, Conversation]:
    """The answer that the user's run writes, as it was saved last, and where it stands."""
    try:
        answer = await room.chat.message(who, run)
        conversation, _ = await own_conversation(answer.conversation, who, room)
    except NotFound as problem:
        raise NotFound(noun="run", ref=run.hex) from problem
    return answer, conversation


async def _with_agent(found: Conversation, who: Principal, room: Services) -> tuple[Conversation, Agent]:
    try:
        return found, await room.chat.any_agent(who, found.agent)
    except NotFound as problem:
        raise NotFound(noun="conversation", ref=found.uid.hex) from problem


def agent_ref(given: int | str | None) -> Ref:
    """The agent that a body names. Raises ``Invalid`` where it names none."""
    if given is None or given == "":
        raise Invalid(field="agent", rule="required")
    return ref_of(given, "agent")
