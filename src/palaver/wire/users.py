"""``X-User-ID``: for which end user a call is, where the dialect's own words have no place for it."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from palaver.core.problems import Invalid
from palaver.core.types import clean
from palaver.wire.contract import Call, Setting
from palaver.wire.settings import boolean

USER = "X-User-ID"
MAX_USER = 255

USER_HEADER = Setting(
    name="user_header", read=boolean, meaning=f"true: the header {USER}, which nothing signs, names the end user"
)
"""For dialects whose credentials stand for one end user."""


def user_of(call: Call) -> str | None:
    """The end user that the header names: UTF-8 as it is (curl sends it so) or percent-encoded (fetch takes nothing
    else); ``None`` where it names none. Raises ``Invalid(field="X-User-ID")``."""
    given = unquote_to_bytes(call.headers.get(USER, "").encode("latin-1"))
    try:
        name = clean(given.decode())
    except UnicodeDecodeError as error:
        raise Invalid(field=USER, rule="type", detail=str(error)) from error
    if len(name) > MAX_USER:
        raise Invalid(field=USER, rule="length", detail=f"more than {MAX_USER} characters")
    return name if name.strip() else None
