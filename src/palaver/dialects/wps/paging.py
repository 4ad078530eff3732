"""Page tokens: an authenticated position in a list."""

from __future__ import annotations

import base64
import hmac
import re

from palaver.core.problems import Invalid
from palaver.core.types import Principal

_MAC_BYTES = 12
_PLACE = re.compile(rb"[0-9]{1,17}(?::[0-9]{1,17})*")
"""Decimal ids and times. Validated even behind a MAC, because the caller knows the secret too."""


def token(principal: Principal, of: str, *place: int) -> str:
    """A ``next_page_token`` for the list ``of``; the next page starts after ``place``."""
    written = ":".join(map(str, place)).encode()
    return _text(_mac(principal, of, written) + written)


def place(principal: Principal, of: str, sent: str, *, numbers: int = 1) -> tuple[int, ...]:
    """The place in a token of the same caller and list, as ``numbers`` numbers; empty for the first page.

    Raises ``Invalid``.
    """
    if not sent:
        return ()
    try:
        data = base64.b64decode(sent + "=" * (-len(sent) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise _not_ours() from error
    mac, written = data[:_MAC_BYTES], data[_MAC_BYTES:]
    if sent != _text(data) or not hmac.compare_digest(mac, _mac(principal, of, written)):
        raise _not_ours()
    position = tuple(int(number) for number in written.split(b":")) if _PLACE.fullmatch(written) else ()
    if len(position) != numbers:
        raise _not_ours()
    return position


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _mac(principal: Principal, of: str, written: bytes) -> bytes:
    bound = f"next_page_token\0{of}\0{principal.user}\0".encode() + written
    return hmac.digest(principal.key.secret.encode(), bound, "sha256")[:_MAC_BYTES]


def _not_ours() -> Invalid:
    return Invalid(field="next_page_token", rule="choice", detail="not a token of this list")
