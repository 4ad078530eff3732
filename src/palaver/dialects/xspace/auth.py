"""``Authorization: Bearer ak-…``: the key is all a caller sends. Pure.

Source: the vendor's page, and the wire specification ``xspace.md``, section 2.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from palaver.core.problems import Invalid, Unauthenticated
from palaver.core.types import ApiKey, Principal, Token
from palaver.dialects.xspace.errors import STORED_FILE, STORED_FILES
from palaver.wire.contract import CredentialClaim, KeySetting, Request
from palaver.wire.settings import COMMON_SETTINGS, one_of, parse_bool, parse_limit, parse_text
from palaver.wire.user_header import USER_HEADER, user_header

USER_NAME = "nuwax-user-uid"
USER_NUMBER = "nuwax-user-id"
AK = "ak"
"""The query's field with a token that stands in for a key, on the route of a stored file."""
_SCHEME = re.compile(r"(?:basic|bearer)(?=[ \t]|\Z|[ac]k-)[ \t]*", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


def expiry(value: Any) -> str | None:
    """A moment in UTC as it is written, or null for a key without an end."""
    if value is None:
        return None
    if not isinstance(value, str) or _moment(value) is None:
        raise ValueError("a time in UTC such as 2026-12-31T00:00:00Z, or null for no end")
    return value


def _moment(value: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.utcoffset() == timedelta(0) else None


SETTINGS = (
    *COMMON_SETTINGS,
    KeySetting(
        name="kind", read=one_of("personal", "agent"), meaning="agent: for the older, agent-bound paths as well"
    ),
    KeySetting(name="agent", read=parse_text, meaning="the agent of an agent-bound key, by uid, id, alias or name"),
    KeySetting(name="expire", read=expiry, meaning="when the key ends, 2026-12-31T00:00:00Z; null: never"),
    KeySetting(name="rpd", read=parse_limit, meaning="calls in 24 hours; null: no limit"),
    KeySetting(name="act_for_users", read=parse_bool, meaning=f"heed the headers {USER_NAME} and {USER_NUMBER}"),
    USER_HEADER,
)


def new_credential(random: bytes) -> tuple[str, str]:
    """(id, ``ak-`` + 32 hex digits) from 32 random bytes."""
    return f"key-{random[:8].hex()}", f"ak-{random[16:32].hex()}"


def claim(request: Request) -> CredentialClaim:
    token = _file_token(request)
    return CredentialClaim(secret=_secret(request)) if token is None else CredentialClaim(token=token, signed=True)


def verify(request: Request, key: ApiKey | None, token: Token | None = None) -> Principal:
    """The caller. Its user is ``None`` where a header names the user by number, which is looked up later."""
    if key is None or not key.enabled:
        raise Unauthenticated(reason="unknown" if key is None else "disabled")
    if _file_token(request) is not None:
        _not_expired(request, key)
        return _reader(request, key, token)
    if not hmac.compare_digest(_secret(request).encode(), key.secret.encode()):
        raise Unauthenticated(reason="wrong")
    _not_expired(request, key)
    named = user_header(request, USER_NAME) if key.setting("act_for_users", False) else None
    if named is not None:
        return Principal(key=key, user=named)
    if user_number(request, key) is not None:
        return Principal(key=key)
    named = user_header(request) if key.setting("user_header", False) else None
    return Principal(key=key, user=named or str(key.setting("default_user", "default")))


def _not_expired(request: Request, key: ApiKey) -> None:
    if key.until <= request.now:
        raise Unauthenticated(reason="expired")


def _reader(request: Request, key: ApiKey, token: Token | None) -> Principal:
    """Whoever has an address with a token: as the file's owner, for that file."""
    if token is None or token.kind != "file" or token.scopes != (request.path.removeprefix(STORED_FILES),):
        raise Unauthenticated(reason="wrong")
    key = key.version(token.generation, request.now) or key
    return Principal(key=key, user=token.user, until=token.expires.timestamp())


def _file_token(request: Request) -> str | None:
    """The token in the address of a stored file, unless the call has a key as well."""
    if request.route != STORED_FILE or _key_in_header(request) is not None:
        return None
    return dict(parse_qsl(request.query_string)).get(AK)


def user_number(request: Request, key: ApiKey) -> int | None:
    """The end user's number, where the key may act for users and the call names one by number alone."""
    header = request.headers.get(USER_NUMBER, "")
    if not header or not key.setting("act_for_users", False):
        return None
    if not _NUMBER.fullmatch(header):
        raise Invalid(field=USER_NUMBER, rule="range", detail="not a number")
    return int(header)


def _secret(request: Request) -> str:
    key = _key_in_header(request)
    if key is None:
        raise Unauthenticated(reason="missing")
    return key


def _key_in_header(request: Request) -> str | None:
    """What is left of the header without its scheme. A value that begins otherwise counts as none."""
    key = (
        _SCHEME.sub("", request.headers.get("authorization", ""), count=1) if "authorization" in request.headers else ""
    )
    key = key.strip()
    return key if key.startswith(("ak-", "ck-")) else None
