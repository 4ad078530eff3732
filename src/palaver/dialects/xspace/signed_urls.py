"""URLs of uploaded files that need no API key, for the images of a page. Source: wire specification ``xspace.md``,
section 1.1.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Principal
from palaver.dialects.xspace.auth import AK
from palaver.dialects.xspace.errors import STORED_FILES
from palaver.dialects.xspace.requests import SignedUrlQuery
from palaver.wire.contract import Request, Services

TTL_S = 3600
MAX_URL = 2048


async def signed_url(_request: Request, query: SignedUrlQuery, principal: Principal, services: Services) -> str:
    """Sign the URL of one of the end user's files; the token is valid for that file only."""
    file = await services.files.get(principal, _key(query.file_url))
    token = services.users.sign_token(principal.key, "file", principal.user or "", (file.key,), life_s=TTL_S)
    url = query.file_url.partition("#")[0].partition("?")[0]
    download = "&download=true" if query.download else ""
    return f"{url}?{AK}={token}{download}"


def _key(url: str) -> str:
    """The key of the file that the URL points to, with or without a host."""
    if len(url) > MAX_URL:
        raise Invalid(field="fileUrl", rule="length")
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        path = ""
    _, separator, key = path.partition(STORED_FILES)
    if not separator:
        raise NotFound(noun="file", ref=url[:80])
    return key
