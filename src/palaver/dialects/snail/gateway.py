"""Surface C: the gateway of the vendor's chat page. A browser signs in as one end user, and does for that user what
surface B does. Source: wire specification ``snail.md``, section 8."""

from __future__ import annotations

from palaver.core.problems import Unauthenticated
from palaver.core.types import ANONYMOUS, ApiKey, Principal
from palaver.dialects.snail import agents, chat, openapi
from palaver.dialects.snail.auth import embed_token, issuer, verified
from palaver.dialects.snail.errors import COMPLETIONS, SESSION, C, success
from palaver.dialects.snail.requests import SessionRequest, parse_fields, request_fields, require, token_ttl, user_name
from palaver.dialects.snail.responses import ChatPageConfig, embed_token_response
from palaver.dialects.snail.users import find_user
from palaver.wire.contract import Request, Response, Route, Services

DIALECT = "snail"
OPEN = "open_sessions"
"""The setting of the credential that signs in whoever names an end user."""
TITLE = "Chat"


async def config(request: Request, _who: Principal, _room: Services) -> Response:
    """Where the page finds the gateway. A page from elsewhere needs the server's name for that, and its browser says
    where it is from; one from here must not depend on how the server calls itself behind a proxy."""
    origin = request.headers.get("origin", request.base_url)
    server = "" if origin == request.base_url else request.base_url
    return success(ChatPageConfig(gateway_path=f"{server}{C}", page_title=TITLE, logo="", resource_base_url=server))


async def open_session(request: Request, _who: Principal, services: Services) -> Response:
    """Sign a browser in: for an embed token its user's next one, which ends no later."""
    body = parse_fields(SessionRequest, request_fields(request, ANONYMOUS))
    open_id = user_name(require(body.open_id, "openId").strip())
    ends = int(request.now) + token_ttl(None)
    if body.trusted_credential is None:
        key = await _open_to_anybody(services)
        await services.users.charge(key)
        user = await services.users.find(Principal(key=key), open_id)
    else:
        key, proven = await _proven(body.trusted_credential.strip(), open_id, request.now, services)
        await services.users.charge(key)
        ends = min(ends, int(proven))
        user = await find_user(Principal(key=key), services, open_id)
    token = embed_token(key, open_id, ends, None)
    ttl = ends - int(request.now)
    return success(embed_token_response(token, open_id, user, expires=ends, ttl=ttl, zone=services.settings.timezone))


async def _proven(token: str, open_id: str, now: float, services: Services) -> tuple[ApiKey, float]:
    """The version of the credential that signed the token for that user, and when the token ends."""
    key = await services.users.key(DIALECT, issuer(token))
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


async def _open_to_anybody(services: Services) -> ApiKey:
    """The one credential whose operator wants no proof. It registers nobody: who calls has shown nothing at all."""
    keys = await services.users.keys_with_setting(DIALECT, OPEN)
    if len(keys) != 1:
        raise Unauthenticated(reason="missing")
    return keys[0]


ROUTES = (
    Route(
        method="GET",
        path=f"{C}/config",
        endpoint=config,
        summary="tell the page where it is",
        public=True,
        operation=openapi.CONFIG,
    ),
    Route(
        method="POST",
        path=SESSION,
        endpoint=open_session,
        summary="sign a browser in",
        public=True,
        operation=openapi.SESSION,
    ),
    Route(
        method="GET", path=f"{C}/agents", endpoint=agents.list_agents, summary="list agents", operation=openapi.C_AGENTS
    ),
    Route(
        method="GET", path=f"{C}/agent", endpoint=agents.one_agent, summary="show one agent", operation=openapi.C_AGENT
    ),
    Route(
        method="GET",
        path=f"{C}/my-agents",
        endpoint=agents.subscribed_agents,
        summary="list the user's agents",
        operation=openapi.C_SUBSCRIBED,
    ),
    Route(
        method="POST",
        path=f"{C}/agent/subscribe",
        endpoint=agents.subscribe,
        summary="subscribe an agent",
        operation=openapi.C_SUBSCRIPTION,
    ),
    Route(
        method="DELETE",
        path=f"{C}/agent/subscribe",
        endpoint=agents.unsubscribe,
        summary="unsubscribe an agent",
        operation=openapi.C_SUBSCRIPTION,
    ),
    Route(
        method="GET",
        path=f"{C}/conversations",
        endpoint=chat.list_conversations,
        summary="list the user's conversations",
        operation=openapi.C_CONVERSATIONS,
    ),
    Route(
        method="POST",
        path=f"{C}/conversations",
        endpoint=chat.create_conversation,
        summary="create a conversation",
        idempotent=True,
        operation=openapi.C_NEW_CONVERSATION,
    ),
    Route(
        method="DELETE",
        path=f"{C}/conversations",
        endpoint=chat.delete_conversations,
        summary="delete one conversation, or all",
        operation=openapi.C_OLD_CONVERSATIONS,
    ),
    *(
        Route(
            method="GET",
            path=f"{C}{path}",
            endpoint=chat.list_messages,
            summary="read a conversation",
            operation=openapi.C_MESSAGES,
        )
        for path in ("/messages", "/conversations/messages")
    ),
    Route(
        method="POST",
        path=COMPLETIONS,
        endpoint=chat.chat,
        summary="send a message, follow the answer",
        idempotent=True,
        operation=openapi.C_TALK,
    ),
)
