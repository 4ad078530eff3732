"""``Snail-Ai-Auth``: a JWT signed with the credential's secret, or the secret itself. Pure.

Source: wire specification ``snail.md``, section 2.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Any, cast

import msgspec

from palaver.core.problems import Unauthenticated
from palaver.core.types import Key, Principal, clean
from palaver.wire.contract import Call, Claim

HEADER = "snail-ai-auth"
LEEWAY_S = 60
_SEGMENT = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def new_credential(random: bytes) -> tuple[str, str]:
    """(appId, ``SAI_`` + 32 hex digits) from 32 random bytes."""
    return f"app-{random[:8].hex()}", f"SAI_{random[16:32].hex()}"


def claim(call: Call) -> Claim:
    token = _token(call)
    if token.count(".") != 2:
        return Claim(secret=token)
    claims = _json_segment(token.split(".")[1])
    named = [claims[name] for name in ("appId", "iss") if claims.get(name) is not None]
    if not named or not isinstance(named[0], str) or named[0] != named[-1]:
        raise Unauthenticated(reason="wrong")
    return Claim(id=named[0])


def verify(call: Call, key: Key | None) -> Principal:
    """The caller, for the end user its token is bound to, if it is. In the specification's order: unknown, disabled,
    wrong, expired."""
    if key is None:
        raise Unauthenticated(reason="unknown")
    if not key.enabled:
        raise Unauthenticated(reason="disabled", subject=key.id)
    token = _token(call)
    if token.count(".") != 2:
        if not hmac.compare_digest(token.encode(), key.secret.encode()):
            raise Unauthenticated(reason="wrong")
        return Principal(key=key)
    claims = _signed_claims(token, key.secret)
    _check_time(claims, call.now)
    user = claims.get("openId")
    if isinstance(user, int) and not isinstance(user, bool):
        user = str(user)
    if user is not None and not isinstance(user, str):
        raise Unauthenticated(reason="wrong")
    return Principal(key=key, user=None if user is None else clean(user))


def _token(call: Call) -> str:
    token = call.headers.get(HEADER, "")
    if token[:7].lower() == "bearer ":
        token = token[7:].strip(" \t")
    if not token:
        raise Unauthenticated(reason="missing")
    return token


def _signed_claims(token: str, secret: str) -> dict[str, Any]:
    head, body, signature = token.split(".")
    header = _json_segment(head)
    if header.get("alg") != "HS256" or "crit" in header:
        raise Unauthenticated(reason="wrong")
    digest = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(digest, _segment(signature)):
        raise Unauthenticated(reason="wrong")
    return _json_segment(body)


def _check_time(claims: dict[str, Any], now: float) -> None:
    ends = _number(claims.get("exp"))
    if ends is None:
        raise Unauthenticated(reason="wrong")
    if claims.get("nbf") is not None:
        begins = _number(claims["nbf"])
        if begins is None or begins > now + LEEWAY_S:
            raise Unauthenticated(reason="wrong")
    if ends + LEEWAY_S < now:
        raise Unauthenticated(reason="expired")


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _segment(text: str) -> bytes:
    """Base64url without padding, and nothing else: Python's decoder passes over what it does not know, and over the
    last character's stray bits."""
    if not _SEGMENT.fullmatch(text) or len(text) % 4 == 1:
        raise Unauthenticated(reason="wrong")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != text:
        raise Unauthenticated(reason="wrong")
    return data


def _json_segment(text: str) -> dict[str, Any]:
    try:
        value: Any = msgspec.json.decode(_segment(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unauthenticated(reason="wrong") from error
    if not isinstance(value, dict):
        raise Unauthenticated(reason="wrong")
    return cast("dict[str, Any]", value)
