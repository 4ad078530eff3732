"""Surface C: the gateway of the vendor's chat page. A browser signs in as one end user and has surface B's operations
for that user. Source: wire specification ``snail.md``, section 8."""

from __future__ import annotations

from palaver.core.problems import Unauthenticated
from palaver.core.types import ApiKey, Principal
from palaver.dialects.snail import agents, chat, openapi
from palaver.dialects.snail.auth import embed_token, issuer, verified
from palaver.dialects.snail.errors import COMPLETIONS, SESSION, C
from palaver.dialects.snail.requests import (
    AgentIdRequest,
    ConversationIdRequest,
    ListConversationsRequest,
    MessagesRequest,
    OpenIdRequest,
    PageRequest,
    SessionRequest,
    SnailNewConversationRequest,
    SubscriptionRequest,
    SurfaceBChatRequest,
    browser_request,
    require,
    token_ttl,
    user_name,
)
from palaver.dialects.snail.responses import (
    DONE,
    ChatPageConfig,
    EmbedTokenResponse,
    SnailAgent,
    SnailConversation,
    SnailMessage,
    embed_token_response,
    ok_response,
    success_page,
)
from palaver.dialects.snail.users import find_user
from palaver.wire.contract import Request, Route, Services
from palaver.wire.responses import STREAM

DIALECT = "snail"
OPEN_SESSIONS = "open_sessions"
"""The setting of the credential that signs in anyone who names an end user."""
TITLE = "Chat"


async def config(request: Request, _principal: Principal, _services: Services) -> ChatPageConfig:
    """Return the gateway's URL: absolute for a page from another origin (according to its ``Origin``), otherwise
    relative, so that it does not depend on the base URL that the server derives behind a proxy."""
    origin = request.headers.get("origin", request.base_url)
    server = "" if origin == request.base_url else request.base_url
    return ChatPageConfig(gateway_path=f"{server}{C}", page_title=TITLE, logo="", resource_base_url=server)


async def create_session(
    request: Request, body: SessionRequest, _principal: Principal, services: Services
) -> EmbedTokenResponse:
    """Sign a browser in: exchange an embed token for a new one of the same user, which expires no later."""
    open_id = user_name(require(body.open_id, "openId").strip())
    expires = int(request.now) + token_ttl(None)
    if body.trusted_credential is None:
        key = await _open_sessions_key(services)
        await services.users.charge(key)
        user = await services.users.get(Principal(key=key), open_id)
    else:
        key, token_expires = await _verified(body.trusted_credential.strip(), open_id, request.now, services)
        await services.users.charge(key)
        expires = min(expires, int(token_expires))
        user = await find_user(Principal(key=key), services, open_id)
    token = embed_token(key, open_id, expires, None)
    ttl = expires - int(request.now)
    return embed_token_response(token, open_id, user, expires=expires, ttl=ttl, zone=services.settings.timezone)


async def _verified(token: str, open_id: str, now: float, services: Services) -> tuple[ApiKey, float]:
    """(version of the credential that signed the user's token, expiry of the token in Unix seconds). Raises
    ``Unauthenticated``."""
    key = await services.users.key(DIALECT, issuer(token))
    if key is None:
        raise Unauthenticated(reason="unknown")
    if not key.enabled:
        raise Unauthenticated(reason="disabled", subject=key.id)
    key, user, expires = verified(token, key.versions(now), now)
    if user != open_id:
        raise Unauthenticated(reason="user", subject=open_id)
    if expires < now + 1:  # the new token would have no time left
        raise Unauthenticated(reason="expired")
    return key, expires


async def _open_sessions_key(services: Services) -> ApiKey:
    """The only credential with ``open_sessions``. It never registers users, because its callers are not authenticated.
    Raises ``Unauthenticated`` if there is none, or more than one."""
    keys = await services.users.keys_with_setting(DIALECT, OPEN_SESSIONS)
    if len(keys) != 1:
        raise Unauthenticated(reason="missing")
    return keys[0]


ROUTES = (
    Route(
        method="GET",
        path=f"{C}/config",
        endpoint=config,
        response=ok_response(ChatPageConfig),
        summary="show the page's configuration",
        public=True,
        operation=openapi.CONFIG,
    ),
    Route(
        method="POST",
        path=SESSION,
        endpoint=create_session,
        request=browser_request(SessionRequest, "body", signed_in=False),
        response=ok_response(EmbedTokenResponse),
        summary="sign a browser in",
        public=True,
        operation=openapi.SESSION,
    ),
    Route(
        method="GET",
        path=f"{C}/agents",
        endpoint=agents.list_agents,
        request=browser_request(PageRequest),
        response=success_page(SnailAgent),
        summary="list agents",
        operation=openapi.C_AGENTS,
    ),
    Route(
        method="GET",
        path=f"{C}/agent",
        endpoint=agents.show_agent,
        request=browser_request(AgentIdRequest),
        response=ok_response(SnailAgent),
        summary="show one agent",
        operation=openapi.C_AGENT,
    ),
    Route(
        method="GET",
        path=f"{C}/my-agents",
        endpoint=agents.list_subscribed_agents,
        request=browser_request(OpenIdRequest),
        response=ok_response(list[SnailAgent]),
        summary="list the user's agents",
        operation=openapi.C_SUBSCRIBED,
    ),
    Route(
        method="POST",
        path=f"{C}/agent/subscribe",
        endpoint=agents.subscribe,
        request=browser_request(SubscriptionRequest),
        response=DONE,
        summary="subscribe to an agent",
        operation=openapi.C_SUBSCRIPTION,
    ),
    Route(
        method="DELETE",
        path=f"{C}/agent/subscribe",
        endpoint=agents.unsubscribe,
        request=browser_request(SubscriptionRequest),
        response=DONE,
        summary="unsubscribe from an agent",
        operation=openapi.C_SUBSCRIPTION,
    ),
    Route(
        method="GET",
        path=f"{C}/conversations",
        endpoint=chat.list_conversations,
        request=browser_request(ListConversationsRequest),
        response=success_page(SnailConversation),
        summary="list the user's conversations",
        operation=openapi.C_CONVERSATIONS,
    ),
    Route(
        method="POST",
        path=f"{C}/conversations",
        endpoint=chat.create_conversation,
        request=browser_request(SnailNewConversationRequest, "body"),
        response=ok_response(SnailConversation),
        summary="create a conversation",
        idempotent=True,
        operation=openapi.C_CREATE_CONVERSATION,
    ),
    Route(
        method="DELETE",
        path=f"{C}/conversations",
        endpoint=chat.delete_conversations,
        request=browser_request(ConversationIdRequest, keep_blank="conversationId"),
        response=DONE,
        summary="delete one conversation, or all",
        operation=openapi.C_DELETE_CONVERSATIONS,
    ),
    *(
        Route(
            method="GET",
            path=f"{C}{path}",
            endpoint=chat.list_messages,
            request=browser_request(MessagesRequest),
            response=ok_response(list[SnailMessage]),
            summary="read a conversation",
            operation=openapi.C_MESSAGES,
        )
        for path in ("/messages", "/conversations/messages")
    ),
    Route(
        method="POST",
        path=COMPLETIONS,
        endpoint=chat.chat,
        request=browser_request(SurfaceBChatRequest, "body"),
        response=STREAM,
        summary="send a message, stream the answer",
        idempotent=True,
        operation=openapi.C_CHAT,
    ),
)
