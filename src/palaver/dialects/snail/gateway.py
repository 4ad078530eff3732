"""Surface C: the gateway of the vendor's chat page. A browser signs in as one end user, and does for that user what
surface B does. Source: wire specification ``snail.md``, section 8."""

from __future__ import annotations

from palaver.core.problems import Unauthenticated
from palaver.core.types import ANONYMOUS, ApiKey, Principal
from palaver.dialects.snail import agents, chat, openapi
from palaver.dialects.snail.auth import embed_token, issuer, verified
from palaver.dialects.snail.errors import COMPLETIONS, SESSION, C, success
from palaver.dialects.snail.requests import SessionRequest, asked, life, members, need, user_name
from palaver.dialects.snail.users import person, token_shown
from palaver.wire.contract import Request, Response, Route, Services

DIALECT = "snail"
OPEN = "open_sessions"
"""The setting of the credential that signs in whoever names an end user."""
TITLE = "Chat"


async def config(call: Request, _who: Principal, _room: Services) -> Response:
    """Where the page finds the gateway. A page from elsewhere needs the server's name for that, and its browser says
    where it is from; one from here must not depend on how the server calls itself behind a proxy."""
    origin = call.headers.get("origin", call.origin)
    server = "" if origin == call.origin else call.origin
    return success({"gatewayPath": f"{server}{C}", "pageTitle": TITLE, "logo": "", "resourceBaseUrl": server})


async def open_session(call: Request, _who: Principal, room: Services) -> Response:
    """Sign a browser in: for an embed token its user's next one, which ends no later."""
    request = asked(SessionRequest, members(call, ANONYMOUS))
    open_id = user_name(need(request.openId, "openId").strip())
    ends = int(call.now) + life(None)
    if request.trustedCredential is None:
        key = await _open_to_anybody(room)
        await room.users.count(key)
        user = await room.users.find(Principal(key=key), open_id)
    else:
        key, proven = await _proven(request.trustedCredential.strip(), open_id, call.now, room)
        await room.users.count(key)
        ends = min(ends, int(proven))
        user = await person(Principal(key=key), room, open_id)
    token = embed_token(key, open_id, ends, None)
    return success(token_shown(token, open_id, user, ends, ends - int(call.now), room))


async def _proven(token: str, open_id: str, now: float, room: Services) -> tuple[ApiKey, float]:
    """The version of the credential that signed the token for that user, and when the token ends."""
    key = await room.users.key(DIALECT, issuer(token))
    if key is None:
        raise Unauthenticated(reason="unknown")
    if not key.enabled:
        raise Unauthenticated(reason="disabled", subject=key.id)
    key, user, ends = verified(token, key.versions(now), now)
    if user != open_id:
        raise Unauthenticated(reason="user", subject=open_id)
    if ends < now + 1:  # nothing is left of it to pass on
        raise Unauthenticated(reason="expired")
    return key, ends


async def _open_to_anybody(room: Services) -> ApiKey:
    """The one credential whose operator wants no proof. It registers nobody: who calls has shown nothing at all."""
    keys = await room.users.keys_with_setting(DIALECT, OPEN)
    if len(keys) != 1:
        raise Unauthenticated(reason="missing")
    return keys[0]


ROUTES = (
    Route(
        method="GET",
        path=f"{C}/config",
        handle=config,
        purpose="tell the page where it is",
        public=True,
        operation=openapi.CONFIG,
    ),
    Route(
        method="POST",
        path=SESSION,
        handle=open_session,
        purpose="sign a browser in",
        public=True,
        operation=openapi.SESSION,
    ),
    Route(
        method="GET", path=f"{C}/agents", handle=agents.list_agents, purpose="list agents", operation=openapi.C_AGENTS
    ),
    Route(
        method="GET", path=f"{C}/agent", handle=agents.one_agent, purpose="show one agent", operation=openapi.C_AGENT
    ),
    Route(
        method="GET",
        path=f"{C}/my-agents",
        handle=agents.subscribed_agents,
        purpose="list the user's agents",
        operation=openapi.C_SUBSCRIBED,
    ),
    Route(
        method="POST",
        path=f"{C}/agent/subscribe",
        handle=agents.subscribe,
        purpose="subscribe an agent",
        operation=openapi.C_SUBSCRIPTION,
    ),
    Route(
        method="DELETE",
        path=f"{C}/agent/subscribe",
        handle=agents.unsubscribe,
        purpose="unsubscribe an agent",
        operation=openapi.C_SUBSCRIPTION,
    ),
    Route(
        method="GET",
        path=f"{C}/conversations",
        handle=chat.list_conversations,
        purpose="list the user's conversations",
        operation=openapi.C_CONVERSATIONS,
    ),
    Route(
        method="POST",
        path=f"{C}/conversations",
        handle=chat.create_conversation,
        purpose="create a conversation",
        idempotent=True,
        operation=openapi.C_NEW_CONVERSATION,
    ),
    Route(
        method="DELETE",
        path=f"{C}/conversations",
        handle=chat.delete_conversations,
        purpose="delete one conversation, or all",
        operation=openapi.C_OLD_CONVERSATIONS,
    ),
    *(
        Route(
            method="GET",
            path=f"{C}{path}",
            handle=chat.list_messages,
            purpose="read a conversation",
            operation=openapi.C_MESSAGES,
        )
        for path in ("/messages", "/conversations/messages")
    ),
    Route(
        method="POST",
        path=COMPLETIONS,
        handle=chat.chat,
        purpose="send a message, follow the answer",
        idempotent=True,
        operation=openapi.C_TALK,
    ),
)
