"""Authentication. Surface A: ``Snail-Ai-Auth``, a JWT signed with the credential's secret, or the secret itself.
Surface B: id and secret in two headers. Surface C: ``Snail-Ai-Auth``, a JWT bound to an end user. No I/O.

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
"""A time in the far future that a float represents exactly."""
GENERATION = "palaver_generation"
"""The claim of an embed token with its credential's generation."""
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
    """The credential id in a JWT, not verified. Raises ``Unauthenticated``."""
    if token.count(".") != 2:
        raise Unauthenticated(reason="wrong")
    claims = _json_segment(token.split(".")[1])
    ids = [claims[name] for name in ("appId", "iss") if claims.get(name) is not None]
    if not ids or not isinstance(ids[0], str) or ids[0] != ids[-1]:
        raise Unauthenticated(reason="wrong")
    return ids[0]


def verify(request: Request, key: ApiKey | None, _bearer: Token | None = None) -> Principal:
    """The caller, acting for the end user that its token is bound to, if any. Checks follow the specification's order:
    unknown, disabled, wrong, expired."""
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
    _, user, expires = verified(token, (key,), request.now)
    if on_c(request) and (user is None or not user.strip()):
        raise Unauthenticated(reason="user")
    return Principal(key=key, user=user, expires_at=float(min(expires + LEEWAY_S, _FOREVER)))


def verified(token: str, versions: tuple[ApiKey, ...], now: float) -> tuple[ApiKey, str | None, float]:
    """(the key's version that signed it, the end user, the expiry in Unix seconds) of a valid JWT. Raises
    ``Unauthenticated``. A token issued by palaver is valid only for its version's generation; one that the calling
    system signed itself has no generation."""
    key, claims = _signed_claims(token, versions)
    if claims.get(GENERATION, key.generation) != key.generation:
        raise Unauthenticated(reason="wrong")
    expires = _check_time(claims, now)
    user = claims.get("openId")
    if isinstance(user, int) and not isinstance(user, bool):
        user = str(user)
    if user is not None and not isinstance(user, str):
        raise Unauthenticated(reason="wrong")
    return key, None if user is None else clean(user), expires


def embed_token(key: ApiKey, open_id: str, expires: int, trusted: str | None) -> str:
    """A token for a browser to use surfaces A and C as that user, valid until ``expires`` (Unix seconds)."""
    claims: dict[str, Any] = {
        "aud": compact_json({"username": open_id}).decode(),
        "exp": expires,
        "appId": key.id,
        "openId": open_id,
        GENERATION: key.generation,
    }
    if trusted is not None:
        claims["trustedCredential"] = trusted
    signed = f"{_encode_segment({'alg': 'HS256'})}.{_encode_segment(claims)}"
    return f"{signed}.{_base64url(_digest(signed, key.secret))}"


def _pair(request: Request) -> tuple[str, str]:
    """Surface B's (id, secret)."""
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
    """The expiry. Raises ``Unauthenticated`` if the token is expired or not yet valid."""
    expires = _number(claims.get("exp"))
    if expires is None:
        raise Unauthenticated(reason="wrong")
    if claims.get("nbf") is not None:
        not_before = _number(claims["nbf"])
        if not_before is None or not_before > now + LEEWAY_S:
            raise Unauthenticated(reason="wrong")
    if expires + LEEWAY_S < now:
        raise Unauthenticated(reason="expired")
    return expires


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _segment(text: str) -> bytes:
    """Decode strict base64url without padding. Python's decoder ignores foreign characters, and the last character's
    unused bits."""
    if not _SEGMENT.fullmatch(text) or len(text) % 4 == 1:
        raise Unauthenticated(reason="wrong")
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _base64url(data) != text:
        raise Unauthenticated(reason="wrong")
    return data


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _encode_segment(value: Any) -> str:
    """``value`` as a segment of a token."""
    return _base64url(compact_json(value))


def _json_segment(text: str) -> dict[str, Any]:
    try:
        value: Any = msgspec.json.decode(_segment(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unauthenticated(reason="wrong") from error
    if not isinstance(value, dict):
        raise Unauthenticated(reason="wrong")
    return cast("dict[str, Any]", value)
