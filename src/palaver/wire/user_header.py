"""Headers that say for which end user a call is: ``X-User-ID``, and a vendor's own."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from palaver.core.problems import Invalid
from palaver.core.types import clean
from palaver.wire.contract import KeySetting, Request
from palaver.wire.settings import boolean

USER = "X-User-ID"
MAX_USER = 255

USER_HEADER = KeySetting(
    name="user_header", read=boolean, meaning=f"true: the header {USER}, which nothing signs, names the end user"
)
"""For dialects whose credentials stand for one end user."""


def user_header(call: Request, header: str = USER) -> str | None:
    """The end user that the header names: UTF-8 as it is (curl sends it so) or percent-encoded (fetch takes nothing
    else); ``None`` where it names none. What is not UTF-8 is refused: guessed at, two names might become one. Raises
    ``Invalid`` with the header as its field."""
    given = unquote_to_bytes(call.headers.get(header, "").encode("latin-1"))
    try:
        name = clean(given.decode())
    except UnicodeDecodeError as error:
        raise Invalid(field=header, rule="type", detail=str(error)) from error
    if len(name) > MAX_USER:
        raise Invalid(field=header, rule="length", detail=f"more than {MAX_USER} characters")
    return name if name.strip() else None
