"""``Authorization`` names the credential, ``X-Signature`` proves it, by either of the vendor's two rules. Pure.

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


def claim(call: Request) -> CredentialClaim:
    named = _BEARER.fullmatch(call.headers.get("authorization", ""))
    if named is None:
        raise Unauthenticated(reason="missing")
    return CredentialClaim(id=named[1])


def verify(call: Request, key: ApiKey | None, _bearer: Token | None = None) -> Principal:
    """The caller and its end user. In the specification's order: key, signature there, user there, time, body,
    digest."""
    if key is None:
        raise Unauthenticated(reason="unknown")
    if not key.enabled:
        raise Unauthenticated(reason="disabled", subject=key.id)
    sent = call.headers.get("x-signature", "").lower().encode()
    if not sent:
        raise Unauthenticated(reason="missing", subject="X-Signature")
    signs_all = wants_hmac(key)
    for name in ("X-Timestamp", USER) if signs_all else ():
        if not call.headers.get(name):
            raise Unauthenticated(reason="missing", subject=name)
    _check_time(call)
    expected = hmac_signature(call, key.secret) if signs_all else signature(call, key.secret)
    if not hmac.compare_digest(sent, expected.encode()):
        raise Unauthenticated(reason="wrong")
    nonce = request_id(call.headers) if key.setting("reject_repeated_request_id", False) else None
    user = user_header(call) or key.setting("default_user") or "default"
    return Principal(key=key, user=user, nonce=nonce)


def wants_hmac(key: ApiKey | None) -> bool:
    """Whether the credential is of the later generation; without a credential the seed's rules go."""
    return key is not None and key.setting("signature", SHA256) == HMAC_SHA256


def signature(call: Request, secret: str) -> str:
    """The seed's digest: of the canonical body and the secret, and nothing else."""
    said = canonical_query(call.query) if _is_get(call) else canonical_body(call.body)
    return hashlib.sha256((said + secret).encode()).hexdigest()


def hmac_signature(call: Request, secret: str) -> str:
    """The later generation's digest: also of method, path, time, user and query, header texts as they were sent."""
    lines = (
        call.method.encode(),
        call.raw_path.encode("latin-1"),
        call.headers.get("x-timestamp", "").encode("latin-1"),
        call.headers.get(USER, "").encode("latin-1"),
        canonical_query(call.query).encode(),
        b"" if _is_get(call) else canonical_body(call.body).encode(),
    )
    return hmac.new(secret.encode(), b"\n".join(lines), hashlib.sha256).hexdigest()


def _is_get(call: Request) -> bool:
    return call.method in {"GET", "HEAD"}


def _check_time(call: Request) -> None:
    sent = call.headers.get("x-timestamp", "")
    if not sent:
        return
    if not _SECONDS.fullmatch(sent) or abs(int(call.now) - int(sent)) > WINDOW_S:
        raise Unauthenticated(reason="expired")
