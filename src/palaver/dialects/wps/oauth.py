"""User tokens: consent, and exchanging a code, a refresh token or client credentials for an access token.

Source: wire specification ``wps.md``, sections 2.3 and 2.4. These routes are public: the caller authenticates in the
request itself, or is a browser.
"""

from __future__ import annotations

import hmac
import re
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from palaver.core.problems import Invalid, Unauthenticated
from palaver.core.types import ApiKey, Principal, Token, clean
from palaver.dialects.wps.auth import SCOPES, default_user
from palaver.dialects.wps.requests import ConsentRequest, TokenRequest, form
from palaver.dialects.wps.responses import OAuthError, TokenResponse, token_error
from palaver.dialects.wps.settings import CODE_TTL_S, REFRESH_TOKEN_TTL_S, TOKEN_TTL_S
from palaver.wire.contract import Request, Response, Services
from palaver.wire.framing import compact_json, encode_url

DIALECT = "wps"
REFRESH_PREFIX = "kso_rt_"
_NO_STORE = (("Cache-Control", "no-store"),)
_NO_CONSENT_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>palaver: nobody can consent yet</title>
<h1>Nobody can consent yet</h1>
<p>palaver has no accounts of its own, so it cannot ask you who you are.</p>
<p>Whoever operates this server says for which end user this credential gets its consent, with the setting
<code>auto_approve_user</code>. Then this page leads straight back to the application.</p>
</html>
"""
_PAGE_HEADERS = (
    *_NO_STORE,
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
)


S = TypeVar("S", TokenRequest, ConsentRequest)


class TokenRefused(Exception):  # noqa: N818  a response of the protocol
    """Why no token is issued: OAuth's error code, and a readable reason."""

    def __init__(self, error: OAuthError, reason: str) -> None:
        super().__init__(error, reason)
        self.error: OAuthError = error
        self.reason = reason

    def response(self) -> Response:
        """Both error formats that clients read, in one object."""
        body = token_error(self.error, self.reason)
        return Response(
            status=401 if self.error == "invalid_client" else 400, body=compact_json(body), headers=_NO_STORE
        )


# Tokens -------------------------------------------------------------------------------------------------------------


async def tokens(request: Request, _principal: Principal, services: Services) -> Response:
    """Exchange a code, a refresh token or client credentials for an access token."""
    try:
        fields = _fields(TokenRequest, request.body.decode("utf-8", "replace"))
        grant = _required(fields, "grant_type")
        if grant not in {"authorization_code", "refresh_token", "client_credentials"}:
            raise TokenRefused("unsupported_grant_type", "grant_type is not supported")  # noqa: TRY301
        key = await _authenticated_client(request, fields, services)
        if grant == "authorization_code":
            return await _redeem_code(fields, key, services)
        if grant == "refresh_token":
            return await _refresh(request, fields, key, services)
        return await _issue_tokens(key, default_user(key), SCOPES, services)
    except TokenRefused as refusal:
        return refusal.response()
    except Unauthenticated:
        return TokenRefused("invalid_grant", "it has been revoked").response()


async def _authenticated_client(request: Request, fields: TokenRequest, services: Services) -> ApiKey:
    name, secret = _required(fields, "client_id"), _required(fields, "client_secret")
    key = await services.users.key(DIALECT, clean(name))
    for version in () if key is None or not key.enabled else key.versions(request.now):
        if hmac.compare_digest(version.secret.encode(), clean(secret).encode()):
            await services.users.charge(version)
            return version
    raise TokenRefused("invalid_client", "client_id or client_secret is wrong")


async def _redeem_code(fields: TokenRequest, key: ApiKey, services: Services) -> Response:
    text, redirect = _required(fields, "code"), _required(fields, "redirect_uri")
    ttl: int = key.setting("refresh_token_ttl_s", REFRESH_TOKEN_TTL_S)
    code = await services.users.redeem_code(text, remember_s=ttl)
    if code is None or not _belongs_to(code, key):
        raise TokenRefused("invalid_grant", "code is unknown, used or expired")
    if code.redirect != redirect:
        raise TokenRefused("invalid_grant", "redirect_uri is not the one of the consent")
    under = (code, text)
    refresh = await services.users.issue_token(
        key, "refresh", code.user, code.scopes, life_s=ttl, prefix=REFRESH_PREFIX, under=under
    )
    return await _issue_tokens(key, code.user, code.scopes, services, refresh=refresh, left=ttl, under=under)


async def _refresh(request: Request, fields: TokenRequest, key: ApiKey, services: Services) -> Response:
    """Issue a new access token. The refresh token stays the same and keeps its expiry."""
    text = _required(fields, "refresh_token")
    token = await services.users.find_token(text, "refresh")
    if token is None or not _belongs_to(token, key):
        raise TokenRefused("invalid_grant", "refresh_token is unknown or expired")
    left = max(0.0, token.expires.timestamp() - request.now)
    return await _issue_tokens(key, token.user, token.scopes, services, refresh=text, left=left, under=(token, text))


async def _issue_tokens(
    key: ApiKey,
    user: str,
    scopes: tuple[str, ...],
    services: Services,
    *,
    refresh: str | None = None,
    left: float = 0,
    under: tuple[Token, str] | None = None,
) -> Response:
    ttl: int = key.setting("token_ttl_s", TOKEN_TTL_S)
    access = await services.users.issue_token(key, "access", user, scopes, life_s=ttl, under=under)
    body = TokenResponse(
        access_token=access,
        expires_in=ttl,
        refresh_token=msgspec.UNSET if refresh is None else refresh,
        refresh_expires_in=msgspec.UNSET if refresh is None else int(left),
        token_type="bearer",  # noqa: S106  no password
    )
    return Response(body=compact_json(body), headers=_NO_STORE)


def _belongs_to(token: Token, key: ApiKey) -> bool:
    return (token.app, token.credential) == (key.app, key.number)


# Consent ------------------------------------------------------------------------------------------------------------


async def consent(request: Request, _principal: Principal, services: Services) -> Response:
    """Redirect a browser to the application with a code for the credential's ``auto_approve_user``."""
    try:
        query = _fields(ConsentRequest, request.query_string)
        key, redirect = await _registered(query, services)
    except TokenRefused as refusal:
        return refusal.response()
    if query.response_type != "code":
        return _redirect(
            redirect, query, error="unsupported_response_type", error_description="response_type must be code"
        )
    scopes = tuple(dict.fromkeys(re.split(r"[\s,]+", (query.scope or "").strip(" ,"))))
    if not set(scopes) <= set(SCOPES):
        return _redirect(redirect, query, error="invalid_scope", error_description="scope is missing or unknown")
    user: str | None = key.setting("auto_approve_user")
    if user is None:
        return Response(
            status=403, body=_NO_CONSENT_PAGE.encode(), media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS
        )
    ttl: int = key.setting("code_ttl_s", CODE_TTL_S)
    code = await services.users.issue_token(key, "code", user, scopes, life_s=ttl, redirect=redirect)
    return _redirect(redirect, query, code=code)


async def _registered(query: ConsentRequest, services: Services) -> tuple[ApiKey, str]:
    """The credential, and the registered URI to redirect to."""
    name, redirect = _required(query, "client_id"), _required(query, "redirect_uri")
    key = await services.users.key(DIALECT, clean(name))
    if key is None or not key.enabled:
        raise TokenRefused("invalid_request", "client_id is unknown")
    if redirect not in (key.setting("redirect_uris") or ()):
        raise TokenRefused("invalid_request", "redirect_uri is not registered")
    return key, redirect


def _redirect(redirect: str, query: ConsentRequest, **members: str) -> Response:
    """A redirect with ``members`` and the caller's ``state`` added to the URI's query."""
    if query.state is not None:
        members["state"] = query.state
    place, mark, fragment = redirect.partition("#")
    joint = "" if place.endswith(("?", "&")) else "&" if "?" in place else "?"
    target = encode_url(place + joint) + urlencode(members) + mark + encode_url(fragment)
    return Response(status=302, media_type="", headers=(("Location", target), *_NO_STORE))


def _fields(shape: type[S], encoded: str) -> S:
    try:
        values = form(encoded)
    except Invalid as problem:
        raise TokenRefused("invalid_request", "too many fields") from problem
    return shape(**{name: values[name] for name in shape.__struct_fields__ if name in values})


def _required(fields: TokenRequest | ConsentRequest, name: str) -> str:
    value: str | None = getattr(fields, name)
    if value is None or not value.strip():
        raise TokenRefused("invalid_request", f"{name} is required")
    return value
