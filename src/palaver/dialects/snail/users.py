"""Surface B: end users, and tokens for their browsers. Source: wire specification ``snail.md``, section 7."""

from __future__ import annotations

from palaver.core.problems import NotFound
from palaver.core.types import Principal, User
from palaver.dialects.snail import openapi
from palaver.dialects.snail.auth import embed_token
from palaver.dialects.snail.errors import B
from palaver.dialects.snail.requests import (
    EmbedTokenRequest,
    OpenIdRequest,
    RegistrationRequest,
    json_request,
    query_request,
    require,
    token_ttl,
    user_name,
)
from palaver.dialects.snail.responses import (
    EmbedTokenResponse,
    SnailUser,
    embed_token_response,
    ok_response,
    user_response,
)
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Route, Services
from palaver.wire.responses import IdempotentResponse


def open_id_of(principal: Principal, open_id: str | None) -> str:
    """The ``openId`` of the token on surface C, otherwise of the request. Raises ``Invalid`` if there is none."""
    return require(open_id if principal.user is None else principal.user, "openId")


async def find_user(principal: Principal, services: Services, open_id: str) -> User:
    """The end user by ``openId``: an issued one, or the calling system's own id. An unknown user is registered if the
    credential has ``auto_register``; otherwise raises ``NotFound``."""
    open_id = user_name(open_id)
    try:
        return await services.users.get(principal, open_id)
    except NotFound:
        if not principal.key.setting("auto_register", default=False):
            raise
    user, _ = await services.users.register(principal, open_id)
    return user


async def register(
    request: Request, body: RegistrationRequest, principal: Principal, services: Services
) -> IdempotentResponse[SnailUser]:
    name = None if body.external_id is None else user_name(body.external_id, "externalId")

    async def work() -> tuple[SnailUser, None]:
        user, created = await services.users.register(principal, name, nickname=body.nickname, avatar=body.avatar_url)
        return user_response(user, created=created), None

    return IdempotentResponse(key=idempotency_key(request, f"POST {B}/user/register"), create=work)


async def show_user(_request: Request, body: OpenIdRequest, principal: Principal, services: Services) -> SnailUser:
    return user_response(await find_user(principal, services, open_id_of(principal, body.open_id)))


async def create_embed_token(
    request: Request, body: EmbedTokenRequest, principal: Principal, services: Services
) -> EmbedTokenResponse:
    """Issue a token with which the user's browser can call surfaces A and C itself."""
    open_id, ttl = open_id_of(principal, body.open_id), token_ttl(body.ttl_seconds)
    user = await find_user(principal, services, open_id)
    expires = int(request.now) + ttl
    token = embed_token(principal.key, open_id, expires, body.trusted_credential)
    return embed_token_response(token, open_id, user, expires=expires, ttl=ttl, zone=services.settings.timezone)


ROUTES = (
    Route(
        method="POST",
        path=f"{B}/user/register",
        endpoint=register,
        request=json_request(RegistrationRequest),
        response=ok_response(SnailUser),
        summary="register an end user",
        idempotent=True,
        operation=openapi.REGISTER,
    ),
    Route(
        method="GET",
        path=f"{B}/user",
        endpoint=show_user,
        request=query_request(OpenIdRequest),
        response=ok_response(SnailUser),
        summary="show an end user",
        operation=openapi.USER,
    ),
    Route(
        method="GET",
        path=f"{B}/embed-token",
        endpoint=create_embed_token,
        request=query_request(EmbedTokenRequest),
        response=ok_response(EmbedTokenResponse),
        summary="issue a token for a browser",
        operation=openapi.EMBED_TOKEN_BY_QUERY,
    ),
    Route(
        method="POST",
        path=f"{B}/embed-token",
        endpoint=create_embed_token,
        request=json_request(EmbedTokenRequest),
        response=ok_response(EmbedTokenResponse),
        summary="issue a token for a browser",
        operation=openapi.EMBED_TOKEN,
    ),
)
