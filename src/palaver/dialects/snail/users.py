"""Surface B: end users, and tokens for their browsers. Source: wire specification ``snail.md``, section 7."""

from __future__ import annotations

from palaver.core.problems import NotFound
from palaver.core.types import Principal, User
from palaver.dialects.snail import openapi
from palaver.dialects.snail.auth import embed_token
from palaver.dialects.snail.errors import B, success
from palaver.dialects.snail.requests import (
    EmbedTokenRequest,
    OpenIdRequest,
    RegistrationRequest,
    parse_fields,
    request_fields,
    require,
    token_ttl,
    user_name,
)
from palaver.dialects.snail.responses import embed_token_response, user_response
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services
from palaver.wire.idempotent import answer_once


async def find_user(who: Principal, services: Services, value: str | None) -> User:
    """The end user that an ``openId`` names: an issued one, or what the calling system itself calls the user. One that
    nobody has is registered where the credential's ``auto_register`` says so; else raises ``NotFound``."""
    open_id = user_name(require(value, "openId"))
    try:
        return await services.users.find(who, open_id)
    except NotFound:
        if not who.key.setting("auto_register", default=False):
            raise
    user, _ = await services.users.register(who, open_id)
    return user


async def register(request: Request, who: Principal, services: Services) -> Response:
    body = parse_fields(RegistrationRequest, request_fields(request, who))
    name = None if body.external_id is None else user_name(body.external_id, "externalId")

    async def work() -> tuple[Response, None]:
        user, created = await services.users.register(who, name, nickname=body.nickname, avatar=body.avatar_url)
        return success(user_response(user, created=created)), None

    return await answer_once(services, who, idempotency_key(request, f"POST {B}/user/register"), work)


async def show_user(request: Request, who: Principal, services: Services) -> Response:
    return success(
        user_response(await find_user(who, services, parse_fields(OpenIdRequest, request_fields(request, who)).open_id))
    )


async def new_embed_token(request: Request, who: Principal, services: Services) -> Response:
    """A token with which the user's browser speaks surfaces A and C itself."""
    body = parse_fields(EmbedTokenRequest, request_fields(request, who))
    open_id, ttl = require(body.open_id, "openId"), token_ttl(body.ttl_seconds)
    user = await find_user(who, services, open_id)
    expires = int(request.now) + ttl
    token = embed_token(who.key, open_id, expires, body.trusted_credential)
    return success(
        embed_token_response(token, open_id, user, expires=expires, ttl=ttl, zone=services.settings.timezone)
    )


ROUTES = (
    Route(
        method="POST",
        path=f"{B}/user/register",
        endpoint=register,
        summary="register an end user",
        idempotent=True,
        operation=openapi.REGISTER,
    ),
    Route(method="GET", path=f"{B}/user", endpoint=show_user, summary="show an end user", operation=openapi.USER),
    Route(
        method="GET",
        path=f"{B}/embed-token",
        endpoint=new_embed_token,
        summary="issue a token for a browser",
        operation=openapi.EMBED_TOKEN_BY_QUERY,
    ),
    Route(
        method="POST",
        path=f"{B}/embed-token",
        endpoint=new_embed_token,
        summary="issue a token for a browser",
        operation=openapi.EMBED_TOKEN,
    ),
)
