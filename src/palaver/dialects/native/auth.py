"""``Authorization: Bearer SECRET`` authenticates the caller; ``X-User-ID`` names its end user. No I/O.

Source: ``docs/native.md``, section 2.
"""

from __future__ import annotations

import hmac
import re

from palaver.core.problems import Unauthenticated
from palaver.core.types import ApiKey, Principal, Token
from palaver.wire.contract import CredentialClaim, CredentialSetting, Request
from palaver.wire.settings import COMMON_SETTINGS, parse_limit
from palaver.wire.user_header import user_header

_BEARER = re.compile(r"bearer[ \t]+([^ \t].*)", re.IGNORECASE)

SETTINGS = (
    *COMMON_SETTINGS,
    CredentialSetting(name="rpd", read=parse_limit, meaning="calls per 24 hours; null: no limit"),
)


def new_credential(random: bytes) -> tuple[str, str]:
    """(id, ``pv-`` + 32 hex digits) from 32 random bytes."""
    return f"key-{random[:8].hex()}", f"pv-{random[16:32].hex()}"


def claim(request: Request) -> CredentialClaim:
    return CredentialClaim(secret=_secret(request))


def verify(request: Request, key: ApiKey | None, _bearer: Token | None = None) -> Principal:
    """The caller. Its user is ``None`` if neither the request nor the credential names one."""
    if key is None:
        raise Unauthenticated(reason="unknown")
    if not key.enabled:
        raise Unauthenticated(reason="disabled")
    if not hmac.compare_digest(_secret(request).encode(), key.secret.encode()):
        raise Unauthenticated(reason="wrong")
    return Principal(key=key, user=user_header(request) or key.setting("default_user"))


def _secret(request: Request) -> str:
    match = _BEARER.fullmatch(request.headers.get("authorization", ""))
    if match is None:
        raise Unauthenticated(reason="missing")
    return match[1]
