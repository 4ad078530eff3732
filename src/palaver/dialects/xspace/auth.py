"""Authentication by ``Authorization: Bearer ak-…``. Pure.

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
from palaver.wire.contract import CredentialClaim, CredentialSetting, Request
from palaver.wire.settings import COMMON_SETTINGS, one_of, parse_bool, parse_limit, parse_text
from palaver.wire.user_header import USER_HEADER, user_header

USER_NAME = "nuwax-user-uid"
USER_NUMBER = "nuwax-user-id"
AK = "ak"
"""The query parameter for a token that replaces the API key, on the route of an uploaded file."""
_SCHEME = re.compile(r"(?:basic|bearer)(?=[ \t]|\Z|[ac]k-)[ \t]*", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)


def parse_expiry(value: Any) -> str | None:
    """An expiry time in UTC, unchanged, or ``None`` for a key that does not expire. Raises ``ValueError``."""
    if value is None:
        return None
    if not isinstance(value, str) or not _is_utc(value):
        raise ValueError("a time in UTC such as 2026-12-31T00:00:00Z, or null for no expiry")
    return value


def _is_utc(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).utcoffset() == timedelta(0)
    except ValueError:
        return False


SETTINGS = (
    *COMMON_SETTINGS,
    CredentialSetting(
        name="kind", read=one_of("personal", "agent"), meaning="agent: may use the legacy, agent-bound routes too"
    ),
    CredentialSetting(
        name="agent", read=parse_text, meaning="the agent of an agent-bound key, by uid, id, alias or name"
    ),
    CredentialSetting(name="expire", read=parse_expiry, meaning="expiry time, 2026-12-31T00:00:00Z; null: never"),
    CredentialSetting(name="rpd", read=parse_limit, meaning="requests per 24 hours; null: unlimited"),
    CredentialSetting(
        name="act_for_users", read=parse_bool, meaning=f"honor the headers {USER_NAME} and {USER_NUMBER}"
    ),
    USER_HEADER,
)


def new_credential(random: bytes) -> tuple[str, str]:
    """(id, ``ak-`` + 32 hex digits) from 32 random bytes."""
    return f"key-{random[:8].hex()}", f"ak-{random[16:32].hex()}"


def claim(request: Request) -> CredentialClaim:
    token = _file_token(request)
    return CredentialClaim(secret=_secret(request)) if token is None else CredentialClaim(token=token, signed=True)


def verify(request: Request, key: ApiKey | None, token: Token | None = None) -> Principal:
    """The principal. Its user is ``None`` if a header names the user by number, which is resolved later."""
    if key is None or not key.enabled:
        raise Unauthenticated(reason="unknown" if key is None else "disabled")
    if _file_token(request) is not None:
        _not_expired(request, key)
        return _file_reader(request, key, token)
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
    if key.expires_at <= request.now:
        raise Unauthenticated(reason="expired")


def _file_reader(request: Request, key: ApiKey, token: Token | None) -> Principal:
    """The owner of a file, for requests with a token for that file."""
    if token is None or token.kind != "file" or token.scopes != (request.path.removeprefix(STORED_FILES),):
        raise Unauthenticated(reason="wrong")
    key = key.version(token.generation, request.now) or key
    return Principal(key=key, user=token.user, expires_at=token.expires.timestamp())


def _file_token(request: Request) -> str | None:
    """The token in the URL of an uploaded file, unless the request also has an API key."""
    if request.route != STORED_FILE or _key_in_header(request) is not None:
        return None
    return dict(parse_qsl(request.query_string)).get(AK)


def user_number(request: Request, key: ApiKey) -> int | None:
    """The number of the end user that the request names, if the key may act for users. Raises ``Invalid``."""
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
    """The header's value without the scheme; ``None`` if it is not an API key."""
    key = (
        _SCHEME.sub("", request.headers.get("authorization", ""), count=1) if "authorization" in request.headers else ""
    )
    key = key.strip()
    return key if key.startswith(("ak-", "ck-")) else None
