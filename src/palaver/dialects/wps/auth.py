"""KSO-1 signatures, and user tokens in addition or instead. No I/O.

Source: wire specification ``wps.md``, sections 2.1 and 2.2.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime

from palaver.core.problems import Forbidden, Unauthenticated
from palaver.core.types import ApiKey, Principal, Token
from palaver.dialects.wps.settings import DATE_WINDOW_S, DEFAULT_USER
from palaver.wire.contract import CredentialClaim, Request
from palaver.wire.user_header import user_header

AUTHORIZATION = "x-kso-authorization"
DATE = "x-kso-date"
TOKEN = "token"  # noqa: S105  what a refusal is about
"""``Unauthenticated.subject`` when the user token is at fault, not the signature."""

CHAT = "kso.devhub_chat.readwrite"
SESSION = "kso.devhub_session.readwrite"
APP = "kso.devhub_app.readwrite"
SCOPES = (CHAT, SESSION, APP)

_FORM = re.compile(r"KSO-1 ([^\s:]+):([^\s:]+)")
_RFC_1123 = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4})"
    r" ([0-9]{2}):([0-9]{2}):([0-9]{2}) (?:GMT|UTC)",
    re.ASCII,
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def new_credential(random: bytes) -> tuple[str, str]:
    """(APPID, APPKEY) from 32 random bytes."""
    return f"AK{random[:8].hex()}", random[16:32].hex()


def claim(request: Request) -> CredentialClaim:
    """The signing access key, with the token if there is one; or the token alone."""
    token = bearer(request)
    if AUTHORIZATION not in request.headers:
        if token is None:
            raise Unauthenticated(reason="missing")
        return CredentialClaim(token=token)
    form = _FORM.fullmatch(request.headers[AUTHORIZATION])
    if form is None:
        raise Unauthenticated(reason="unknown" if DATE in request.headers or token else "missing")
    return CredentialClaim(id=form[1], token=token)


def verify(request: Request, key: ApiKey | None, token: Token | None) -> Principal:
    """The caller, acting for the token's end user. Without a token, the end user is the one in ``X-User-ID`` if the
    credential allows that header, otherwise the credential's default. Checks follow the specification's order:
    signature missing, key unknown or disabled, date, signature; token missing, invalid, scope missing."""
    if key is None or key.dialect != "wps":
        raise _unknown(request)
    if key.setting("require_signature", True):
        _check_signature(request, key)
        needed = key.setting("user_token", "optional") == "required"
    else:
        needed = True
    if bearer(request) is None:
        if needed or _is_bearer(request):  # a caller without its token must not become another user
            raise Unauthenticated(reason="missing", subject=TOKEN)
        named = user_header(request) if key.setting("user_header", False) else None
        return Principal(key=key, user=named or default_user(key))
    if token is None or (token.app, token.credential) != (key.app, key.number) or not key.enabled:
        raise Unauthenticated(reason="expired", subject=TOKEN)
    if scope_of(request.route) not in token.scopes:
        raise Forbidden(reason="scope")
    key = key.version(token.generation, request.now) or key
    return Principal(key=key, user=token.user, expires_at=token.expires.timestamp())


def default_user(key: ApiKey) -> str:
    return key.setting("default_user", DEFAULT_USER)


def scope_of(route: str) -> str:
    """The scope a token needs on the route."""
    segments = route.split("/")
    if "chat" in segments or "chats" in segments:
        return CHAT
    if "session" in segments or "sessions" in segments:
        return SESSION
    return APP


def bearer(request: Request) -> str | None:
    """The request's user token."""
    token = request.headers.get("authorization", "").partition(" ")[2]
    return token.strip(" \t") or None if _is_bearer(request) else None


def _is_bearer(request: Request) -> bool:
    return request.headers.get("authorization", "").partition(" ")[0].lower() == "bearer"


def signature(request: Request, secret: str) -> str:
    """The expected signature of the request."""
    target = request.target[max(request.raw_path.find("/v7/"), 0) :]
    body = hashlib.sha256(request.body).hexdigest() if request.body else ""
    media_type = request.headers.get("content-type", "")
    signed = f"KSO-1{request.method.upper()}{target}{media_type}{request.headers.get(DATE, '')}{body}"
    return hmac.new(secret.encode(), signed.encode("latin-1"), hashlib.sha256).hexdigest()


def _unknown(request: Request) -> Unauthenticated:
    """The reason for refusing a request without a known credential."""
    if AUTHORIZATION not in request.headers:
        return Unauthenticated(reason="expired", subject=TOKEN)
    return Unauthenticated(reason="unknown" if DATE in request.headers else "missing")


def _check_signature(request: Request, key: ApiKey) -> None:
    form = _FORM.fullmatch(request.headers.get(AUTHORIZATION, ""))
    date = request.headers.get(DATE)
    if form is None or not date:
        raise Unauthenticated(reason="missing")
    if not key.enabled:
        raise Unauthenticated(reason="disabled")
    sent = _seconds(date)
    if sent is None or abs(request.now - sent) > key.setting("date_window_s", DATE_WINDOW_S):
        raise Unauthenticated(reason="expired")
    if not hmac.compare_digest(form[2].lower().encode(), signature(request, key.secret).encode()):
        raise Unauthenticated(reason="wrong")


def _seconds(date: str) -> float | None:
    """An RFC 1123 date in GMT as Unix time; ``None`` if malformed."""
    match = _RFC_1123.fullmatch(date)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[group]) for group in (1, 3, 4, 5, 6))
    try:
        return datetime(year, _MONTHS.index(match[2]) + 1, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None
