"""The settings of this dialect's credentials. Source: wire specification, ``wps.md`` and README section 8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from palaver.wire.contract import CredentialSetting
from palaver.wire.settings import COMMON_SETTINGS, one_of, parse_bool, parse_text, parse_texts
from palaver.wire.user_header import USER_HEADER

DEFAULT_USER = "default"
DATE_WINDOW_S = 900
PARTIAL_EVERY_MS = 100
TOKEN_GAP_MS = 30
TOKEN_TTL_S = 7200
REFRESH_TOKEN_TTL_S = 2_592_000
CODE_TTL_S = 300
EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError("a whole number of at least 0")
    return value


def _seconds(minimum: int, maximum: int) -> Callable[[Any], int]:
    """A TTL between two bounds, which are included."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise ValueError(f"a whole number of seconds from {minimum} to {maximum}")
        return value

    return read


def _address_list(value: Any) -> list[str]:
    """URIs that a browser may be redirected to; ``null`` means none."""
    return parse_texts(value) or []


def _user(value: Any) -> str | None:
    return None if value is None else parse_text(value)


SETTINGS = (
    *COMMON_SETTINGS,
    CredentialSetting(name="require_signature", read=parse_bool, meaning="false: a user token alone is sufficient"),
    CredentialSetting(name="date_window_s", read=_number, meaning="maximum clock skew of X-Kso-Date, in seconds"),
    CredentialSetting(
        name="user_token", read=one_of("optional", "required"), meaning="whether requests need a user token"
    ),
    USER_HEADER,
    CredentialSetting(name="sse_data_prefix", read=parse_bool, meaning="true: stream as standard server-sent events"),
    CredentialSetting(name="stream_media_type", read=one_of(EVENT_STREAM, NDJSON), meaning="the media type of streams"),
    CredentialSetting(
        name="error_event", read=parse_bool, meaning="true: streams of failed runs include an error event"
    ),
    CredentialSetting(
        name="partial_every_ms",
        read=_number,
        meaning="minimum interval between messages that repeat the growing answer; 0: one after every token",
    ),
    CredentialSetting(
        name="token_gap_ms",
        read=_number,
        meaning="minimum delay before a message repeats a token, for pages that append tokens late; 0: none",
    ),
    CredentialSetting(name="tokens", read=parse_bool, meaning="false: streams have messages but no token events"),
    CredentialSetting(name="redirect_uris", read=_address_list, meaning="URIs that consent may redirect to"),
    CredentialSetting(
        name="auto_approve_user", read=_user, meaning="the end user whose consent is granted; null: none"
    ),
    CredentialSetting(name="token_ttl_s", read=_seconds(60, 2_592_000), meaning="TTL of access tokens, in seconds"),
    CredentialSetting(
        name="refresh_token_ttl_s", read=_seconds(60, 31_536_000), meaning="TTL of refresh tokens, in seconds"
    ),
    CredentialSetting(name="code_ttl_s", read=_seconds(10, 3600), meaning="TTL of authorization codes, in seconds"),
)
