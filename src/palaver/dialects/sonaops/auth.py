"""``Authorization`` identifies the credential; ``X-Signature`` proves it, by one of the vendor's two schemes. No I/O.

Source: the vendor's page, and the wire specification ``sonaops.md``, sections 2.1, 2.3 and 4.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from palaver.core.problems import Unauthenticated
from palaver.core.types import ApiKey, Principal, Token
from palaver.dialects.sonaops.canonical import canonical_body, canonical_query
from palaver.wire.contract import CredentialClaim, Request, request_id
from palaver.wire.user_header import USER, user_header

SHA256 = "sha256"
HMAC_SHA256 = "hmac-sha256"
WINDOW_S = 300
_BEARER = re.compile(r"bearer[ \t]+([^ \t].*)", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,18}", re.ASCII)


def new_credential(random: bytes) -> tuple[str, str]:
    """(apiKey, apiSecret) from 32 random bytes."""
    return f"sona-{random[:16].hex()}", hashlib.sha256(b"sonaops" + random).hexdigest()


def claim(request: Request) -> CredentialClaim:
    match = _BEARER.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise Unauthenticated(reason="missing")
    return CredentialClaim(id=match[1])


def verify(request: Request, key: ApiKey | None, _bearer: Token | None = None) -> Principal:
    """The caller and its end user. Checks follow the specification's order: key, signature present, user present, time,
    body, digest."""
    if key is None:
        raise Unauthenticated(reason="unknown")
    if not key.enabled:
        raise Unauthenticated(reason="disabled", subject=key.id)
    sent = request.headers.get("x-signature", "").lower().encode()
    if not sent:
        raise Unauthenticated(reason="missing", subject="X-Signature")
    signs_all = wants_hmac(key)
    for name in ("X-Timestamp", USER) if signs_all else ():
        if not request.headers.get(name):
            raise Unauthenticated(reason="missing", subject=name)
    _check_time(request)
    expected = hmac_signature(request, key.secret) if signs_all else signature(request, key.secret)
    if not hmac.compare_digest(sent, expected.encode()):
        raise Unauthenticated(reason="wrong")
    nonce = request_id(request.headers) if key.setting("reject_repeated_request_id", False) else None
    user = user_header(request) or key.setting("default_user") or "default"
    return Principal(key=key, user=user, nonce=nonce)


def wants_hmac(key: ApiKey | None) -> bool:
    """Whether the credential is of the later generation; without a credential, the original rules apply."""
    return key is not None and key.setting("signature", SHA256) == HMAC_SHA256


def signature(request: Request, secret: str) -> str:
    """The original digest: only over the canonical body (or query) and the secret."""
    canonical = canonical_query(request.query_string) if _is_get(request) else canonical_body(request.body)
    return hashlib.sha256((canonical + secret).encode()).hexdigest()


def hmac_signature(request: Request, secret: str) -> str:
    """The later generation's digest: also over method, path, time, user and query, with header values as sent."""
    lines = (
        request.method.encode(),
        request.raw_path.encode("latin-1"),
        request.headers.get("x-timestamp", "").encode("latin-1"),
        request.headers.get(USER, "").encode("latin-1"),
        canonical_query(request.query_string).encode(),
        b"" if _is_get(request) else canonical_body(request.body).encode(),
    )
    return hmac.new(secret.encode(), b"\n".join(lines), hashlib.sha256).hexdigest()


def _is_get(request: Request) -> bool:
    return request.method in {"GET", "HEAD"}


def _check_time(request: Request) -> None:
    sent = request.headers.get("x-timestamp", "")
    if not sent:
        return
    if not _SECONDS.fullmatch(sent) or abs(int(request.now) - int(sent)) > WINDOW_S:
        raise Unauthenticated(reason="expired")
