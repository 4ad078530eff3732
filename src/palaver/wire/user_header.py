"""Headers that name the end user of a request: ``X-User-ID``, and vendor-specific ones."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from palaver.core.problems import Invalid
from palaver.core.types import clean
from palaver.wire.contract import CredentialSetting, Request
from palaver.wire.settings import parse_bool

USER = "X-User-ID"
MAX_USER = 255

USER_HEADER = CredentialSetting(
    name="user_header", read=parse_bool, meaning=f"true: the header {USER}, which is not signed, names the end user"
)
"""For dialects whose credentials are tied to one end user."""


def user_header(request: Request, header: str = USER) -> str | None:
    """The end user named by the header, as raw UTF-8 (sent by curl) or percent-encoded (the only form that fetch
    accepts); ``None`` if it is missing or blank. Other encodings are rejected, because guessing might map two names to
    one. Raises ``Invalid`` with the header as its field."""
    value = unquote_to_bytes(request.headers.get(header, "").encode("latin-1"))
    try:
        name = clean(value.decode())
    except UnicodeDecodeError as error:
        raise Invalid(field=header, rule="type", detail=str(error)) from error
    if len(name) > MAX_USER:
        raise Invalid(field=header, rule="length", detail=f"more than {MAX_USER} characters")
    return name if name.strip() else None
