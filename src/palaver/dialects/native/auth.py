"""``Authorization: Bearer SECRET`` says which system calls, ``X-User-ID`` for which of its end users. Pure.

Source: ``docs/native.md``, section 2.
"""

from __future__ import annotations

import hmac
import re
from urllib.parse import unquote_to_bytes

from palaver.core.problems import Invalid, Unauthenticated
from palaver.core.types import Key, Principal, Token, clean
from palaver.wire.contract import Call, Claim, Setting
from palaver.wire.settings import COMMON, count

USER = "X-User-ID"
MAX_USER = 255
_BEARER = re.compile(r"bearer[ \t]+([^ \t].*)", re.IGNORECASE)

SETTINGS = (*COMMON, Setting(name="rpd", read=count, meaning="calls in 24 hours; null: no limit"))


def new_credential(random: bytes) -> tuple[str, str]:
    """(id, ``pv-`` + 32 hex digits) from 32 random bytes."""
    return f"key-{random[:8].hex()}", f"pv-{random[16:32].hex()}"


def claim(call: Call) -> Claim:
    return Claim(secret=_secret(call))


def verify(call: Call, key: Key | None, _bearer: Token | None = None) -> Principal:
    """The caller. Its user is ``None`` where neither the call nor the credential names one."""
    if key is None:
        raise Unauthenticated(reason="unknown")
    if not key.enabled:
        raise Unauthenticated(reason="disabled")
    if not hmac.compare_digest(_secret(call).encode(), key.secret.encode()):
        raise Unauthenticated(reason="wrong")
    return Principal(key=key, user=_user(call) or key.setting("default_user"))


def _secret(call: Call) -> str:
    given = _BEARER.fullmatch(call.headers.get("authorization", ""))
    if given is None:
        raise Unauthenticated(reason="missing")
    return given[1]


def _user(call: Call) -> str | None:
    """The end user: UTF-8 as it is (curl sends it so) or percent-encoded (fetch takes nothing else)."""
    given = unquote_to_bytes(call.headers.get(USER, "").encode("latin-1"))
    try:
        name = clean(given.decode())
    except UnicodeDecodeError as error:
        raise Invalid(field=USER, rule="type", detail=str(error)) from error
    if len(name) > MAX_USER:
        raise Invalid(field=USER, rule="length", detail=f"more than {MAX_USER} characters")
    return name or None
