"""Surface B: end users, and tokens for their browsers. Source: wire specification ``snail.md``, section 7."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from palaver.core.problems import NotFound
from palaver.core.types import Principal, User
from palaver.dialects.snail import openapi
from palaver.dialects.snail.auth import embed_token
from palaver.dialects.snail.errors import B, success
from palaver.dialects.snail.requests import (
    EmbedTokenRequest,
    OpenIdRequest,
    RegistrationRequest,
    asked,
    life,
    members,
    need,
    user_name,
)
from palaver.dialects.snail.responses import SPACED, date, user_shown
from palaver.wire.bodies import idempotency_key
from palaver.wire.contract import Request, Response, Route, Services
from palaver.wire.idempotent import answer_once

TOKEN = "Snail-Ai-Auth"  # noqa: S105  the header's name


async def person(who: Principal, room: Services, given: str | None) -> User:
    """The end user that an ``openId`` names: an issued one, or what the calling system itself calls the user. One that
    nobody has is registered where the credential's ``auto_register`` says so; else raises ``NotFound``."""
    open_id = user_name(need(given, "openId"))
    try:
        return await room.users.find(who, open_id)
    except NotFound:
        if not who.key.setting("auto_register", default=False):
            raise
    user, _ = await room.users.register(who, open_id)
    return user


async def register(call: Request, who: Principal, room: Services) -> Response:
    request = asked(RegistrationRequest, members(call, who))
    name = None if request.externalId is None else user_name(request.externalId, "externalId")

    async def work() -> tuple[Response, None]:
        user, created = await room.users.register(who, name, nickname=request.nickname, avatar=request.avatarUrl)
        return success(user_shown(user, created=created)), None

    return await answer_once(room, who, idempotency_key(call, f"POST {B}/user/register"), work)


async def show_user(call: Request, who: Principal, room: Services) -> Response:
    return success(user_shown(await person(who, room, asked(OpenIdRequest, members(call, who)).openId)))


async def new_embed_token(call: Request, who: Principal, room: Services) -> Response:
    """A token with which the user's browser speaks surfaces A and C itself."""
    request = asked(EmbedTokenRequest, members(call, who))
    open_id, ttl = need(request.openId, "openId"), life(request.ttlSeconds)
    user = await person(who, room, open_id)
    expires = int(call.now) + ttl
    token = embed_token(who.key, open_id, expires, request.trustedCredential)
    return success(token_shown(token, open_id, user, expires, ttl, room))


def token_shown(token: str, open_id: str, user: User, expires: int, ttl: int, room: Services) -> dict[str, Any]:
    """An embed token as its browser gets it."""
    return {
        "token": token,
        "tokenType": TOKEN,
        "authHeader": TOKEN,
        "expiresAt": date(datetime.fromtimestamp(expires, UTC), room.settings.timezone, SPACED),
        "ttlSeconds": ttl,
        "openId": open_id,
        "nickname": user.nickname,
        "avatarUrl": user.avatar,
    }


ROUTES = (
    Route(
        method="POST",
        path=f"{B}/user/register",
        handle=register,
        purpose="register an end user",
        idempotent=True,
        operation=openapi.REGISTER,
    ),
    Route(method="GET", path=f"{B}/user", handle=show_user, purpose="show an end user", operation=openapi.USER),
    Route(
        method="GET",
        path=f"{B}/embed-token",
        handle=new_embed_token,
        purpose="issue a token for a browser",
        operation=openapi.TOKEN_BY_QUERY,
    ),
    Route(
        method="POST",
        path=f"{B}/embed-token",
        handle=new_embed_token,
        purpose="issue a token for a browser",
        operation=openapi.TOKEN,
    ),
)
