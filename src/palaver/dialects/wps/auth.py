"""KSO-1 signatures, and the user tokens beside them or instead. Pure.

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
"""``Unauthenticated.subject`` where a user token is what is wrong, and not the signature."""

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


def claim(call: Request) -> CredentialClaim:
    """The access key that signs, the token beside it, or the token alone."""
    token = bearer(call)
    if AUTHORIZATION not in call.headers:
        if token is None:
            raise Unauthenticated(reason="missing")
        return CredentialClaim(token=token)
    form = _FORM.fullmatch(call.headers[AUTHORIZATION])
    if form is None:
        raise Unauthenticated(reason="unknown" if DATE in call.headers or token else "missing")
    return CredentialClaim(id=form[1], token=token)


def verify(call: Request, key: ApiKey | None, token: Token | None) -> Principal:
    """The caller, for the token's end user; without a token for the one that ``X-User-ID`` names, where the credential
    heeds it, or the credential's own. In the specification's order: signature missing, key unknown or disabled, date,
    signature; token missing, invalid, without the scope."""
    if key is None or key.dialect != "wps":
        raise _unknown(call)
    if key.setting("require_signature", True):
        _check_signature(call, key)
        needed = key.setting("user_token", "optional") == "required"
    else:
        needed = True
    if bearer(call) is None:
        if needed or _is_bearer(call):  # whoever lost its token is not to be somebody else
            raise Unauthenticated(reason="missing", subject=TOKEN)
        named = user_header(call) if key.setting("user_header", False) else None
        return Principal(key=key, user=named or default_user(key))
    if token is None or (token.app, token.credential) != (key.app, key.number) or not key.enabled:
        raise Unauthenticated(reason="expired", subject=TOKEN)
    if scope_of(call.route) not in token.scopes:
        raise Forbidden(reason="scope")
    key = key.version(token.generation, call.now) or key
    return Principal(key=key, user=token.user, until=token.expires.timestamp())


def default_user(key: ApiKey) -> str:
    return key.setting("default_user", DEFAULT_USER)


def scope_of(route: str) -> str:
    """What a token must be good for on the route."""
    segments = route.split("/")
    if "chat" in segments or "chats" in segments:
        return CHAT
    if "session" in segments or "sessions" in segments:
        return SESSION
    return APP


def bearer(call: Request) -> str | None:
    """The user token that the call carries."""
    token = call.headers.get("authorization", "").partition(" ")[2]
    return token.strip(" \t") or None if _is_bearer(call) else None


def _is_bearer(call: Request) -> bool:
    return call.headers.get("authorization", "").partition(" ")[0].lower() == "bearer"


def signature(call: Request, secret: str) -> str:
    """What the call has to be signed with."""
    target = call.target[max(call.raw_path.find("/v7/"), 0) :]
    body = hashlib.sha256(call.body).hexdigest() if call.body else ""
    media_type = call.headers.get("content-type", "")
    signed = f"KSO-1{call.method.upper()}{target}{media_type}{call.headers.get(DATE, '')}{body}"
    return hmac.new(secret.encode(), signed.encode("latin-1"), hashlib.sha256).hexdigest()


def _unknown(call: Request) -> Unauthenticated:
    """Why a call that names no credential of ours is refused."""
    if AUTHORIZATION not in call.headers:
        return Unauthenticated(reason="expired", subject=TOKEN)
    return Unauthenticated(reason="unknown" if DATE in call.headers else "missing")


def _check_signature(call: Request, key: ApiKey) -> None:
    form = _FORM.fullmatch(call.headers.get(AUTHORIZATION, ""))
    date = call.headers.get(DATE)
    if form is None or not date:
        raise Unauthenticated(reason="missing")
    if not key.enabled:
        raise Unauthenticated(reason="disabled")
    sent = _seconds(date)
    if sent is None or abs(call.now - sent) > key.setting("date_window_s", DATE_WINDOW_S):
        raise Unauthenticated(reason="expired")
    if not hmac.compare_digest(form[2].lower().encode(), signature(call, key.secret).encode()):
        raise Unauthenticated(reason="wrong")


def _seconds(date: str) -> float | None:
    """The Unix time that an RFC 1123 date in GMT names, ``None`` for what is none."""
    found = _RFC_1123.fullmatch(date)
    if found is None or found[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(found[group]) for group in (1, 3, 4, 5, 6))
    try:
        return datetime(year, _MONTHS.index(found[2]) + 1, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None
