"""Addresses of files that are good without a key, for a page's pictures. Source: wire specification ``xspace.md``,
section 1.1.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Principal
from palaver.dialects.xspace.auth import AK
from palaver.dialects.xspace.errors import STORED_FILES, success
from palaver.dialects.xspace.requests import address_query
from palaver.wire.contract import Request, Response, Services

LIFE_S = 3600
LONGEST = 2048


async def address(request: Request, who: Principal, services: Services) -> Response:
    """The address of a file of the caller's end user, with a token that is good for that file alone."""
    query = address_query(request)
    file = await services.files.get(who, _key(query.fileUrl))
    token = services.users.sign_token(who.key, "file", who.user or "", (file.key,), life_s=LIFE_S)
    plain = query.fileUrl.partition("#")[0].partition("?")[0]
    download = "&download=true" if query.download else ""
    return success(request, f"{plain}?{AK}={token}{download}")


def _key(url: str) -> str:
    """The key of the file that the address names, with or without a host."""
    if len(url) > LONGEST:
        raise Invalid(field="fileUrl", rule="length")
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        path = ""
    _, mark, key = path.partition(STORED_FILES)
    if not mark:
        raise NotFound(noun="file", ref=url[:80])
    return key
