"""Surface A's ``Snail-Ai-Auth``, a JWT signed with the credential's secret, or the secret itself; surface B's id and
secret in two headers; surface C's ``Snail-Ai-Auth``, a JWT that is bound to an end user. Pure.

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
from palaver.core.types import ApiKey, Principal, Token, clean
from palaver.dialects.snail.errors import on_b, on_c
from palaver.wire.contract import CredentialClaim, Request
from palaver.wire.framing import compact_json

HEADER = "snail-ai-auth"
APP_ID, APP_TOKEN = "snail-ai-app-id", "snail-ai-token"
LEEWAY_S = 60
_FOREVER = 2**53
"""A moment that nobody lives to see, and a float holds."""
GENERATION = "palaver_generation"
"""The claim of an embed token that says which generation of its credential it is of."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def new_credential(random: bytes) -> tuple[str, str]:
    """(appId, ``SAI_`` + 32 hex digits) from 32 random bytes."""
    return f"app-{random[:8].hex()}", f"SAI_{random[16:32].hex()}"


def claim(request: Request) -> CredentialClaim:
    if on_b(request):
        return CredentialClaim(id=_pair(request)[0])
    token = _token(request)
    if token.count(".") != 2 and not on_c(request):
        return CredentialClaim(secret=token)
    return CredentialClaim(id=issuer(token))


def issuer(token: str) -> str:
    """The id of the credential that a JWT says has signed it."""
    if token.count(".") != 2:
        raise Unauthenticated(reason="wrong")
    claims = _json_segment(token.split(".")[1])
    named = [claims[name] for name in ("appId", "iss") if claims.get(name) is not None]
    if not named or not isinstance(named[0], str) or named[0] != named[-1]:
        raise Unauthenticated(reason="wrong")
    return named[0]


def verify(request: Request, key: ApiKey | None, _bearer: Token | None = None) -> Principal:
    """The caller, for the end user its token is bound to, if it is. In the specification's order: unknown, disabled,
    wrong, expired."""
    if key is None:
        raise Unauthenticated(reason="unknown", subject=_pair(request)[0] if on_b(request) else "")
    if not key.enabled:
        raise Unauthenticated(reason="disabled", subject=key.id)
    if on_b(request):
        if not hmac.compare_digest(_pair(request)[1].encode(), key.secret.encode()):
            raise Unauthenticated(reason="wrong")
        return Principal(key=key)
    token = _token(request)
    if token.count(".") != 2:
        if not hmac.compare_digest(token.encode(), key.secret.encode()):
            raise Unauthenticated(reason="wrong")
        return Principal(key=key)
    _, user, ends = verified(token, (key,), request.now)
    if on_c(request) and (user is None or not user.strip()):
        raise Unauthenticated(reason="user")
    return Principal(key=key, user=user, until=float(min(ends + LEEWAY_S, _FOREVER)))


def verified(token: str, versions: tuple[ApiKey, ...], now: float) -> tuple[ApiKey, str | None, float]:
    """(which of the key's versions has signed it, the end user it is bound to, when it ends) of a JWT whose time it
    is. One that we issued ends with its version's generation; one that the calling system made itself has none."""
    key, claims = _signed_claims(token, versions)
    if claims.get(GENERATION, key.generation) != key.generation:
        raise Unauthenticated(reason="wrong")
    ends = _check_time(claims, now)
    user = claims.get("openId")
    if isinstance(user, int) and not isinstance(user, bool):
        user = str(user)
    if user is not None and not isinstance(user, str):
        raise Unauthenticated(reason="wrong")
    return key, None if user is None else clean(user), ends


def embed_token(key: ApiKey, open_id: str, expires: int, trusted: str | None) -> str:
    """A token of surfaces A and C for a browser, good for that user alone until ``expires`` (Unix seconds)."""
    claims: dict[str, Any] = {
        "aud": compact_json({"username": open_id}).decode(),
        "exp": expires,
        "appId": key.id,
        "openId": open_id,
        GENERATION: key.generation,
    }
    if trusted is not None:
        claims["trustedCredential"] = trusted
    signed = f"{_written({'alg': 'HS256'})}.{_written(claims)}"
    return f"{signed}.{_base64url(_digest(signed, key.secret))}"


def _pair(request: Request) -> tuple[str, str]:
    """(id, secret) of surface B."""
    app, token = request.headers.get(APP_ID, ""), request.headers.get(APP_TOKEN, "")
    if not app or not token:
        raise Unauthenticated(reason="missing")
    return app, token


def _token(request: Request) -> str:
    token = request.headers.get(HEADER, "")
    if token[:7].lower() == "bearer ":
        token = token[7:].strip(" \t")
    if not token:
        raise Unauthenticated(reason="missing")
    return token


def _signed_claims(token: str, versions: tuple[ApiKey, ...]) -> tuple[ApiKey, dict[str, Any]]:
    head, body, signature = token.split(".")
    header = _json_segment(head)
    if header.get("alg") != "HS256" or "crit" in header:
        raise Unauthenticated(reason="wrong")
    sent, signed = _segment(signature), f"{head}.{body}"
    for key in versions:
        if hmac.compare_digest(_digest(signed, key.secret), sent):
            return key, _json_segment(body)
    raise Unauthenticated(reason="wrong")


def _digest(signed: str, secret: str) -> bytes:
    return hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()


def _check_time(claims: dict[str, Any], now: float) -> float:
    ends = _number(claims.get("exp"))
    if ends is None:
        raise Unauthenticated(reason="wrong")
    if claims.get("nbf") is not None:
        begins = _number(claims["nbf"])
        if begins is None or begins > now + LEEWAY_S:
            raise Unauthenticated(reason="wrong")
    if ends + LEEWAY_S < now:
        raise Unauthenticated(reason="expired")
    return ends


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _segment(text: str) -> bytes:
    """Base64url without padding, and nothing else: Python's decoder passes over what it does not know, and over the
    last character's stray bits."""
    if not _SEGMENT.fullmatch(text) or len(text) % 4 == 1:
        raise Unauthenticated(reason="wrong")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _base64url(data) != text:
        raise Unauthenticated(reason="wrong")
    return data


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _written(value: Any) -> str:
    """``value`` as a part of a token."""
    return _base64url(compact_json(value))


def _json_segment(text: str) -> dict[str, Any]:
    try:
        value: Any = msgspec.json.decode(_segment(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unauthenticated(reason="wrong") from error
    if not isinstance(value, dict):
        raise Unauthenticated(reason="wrong")
    return cast("dict[str, Any]", value)
