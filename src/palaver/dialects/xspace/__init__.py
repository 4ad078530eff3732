"""The open conversation API of Nuwax / XSpaceAGI, ``/api/v1/…``: an envelope of HTTP status 200 around every answer,
turns as server-sent events.

Source: the vendor's page "更新会话主题" and the wire specification ``xspace.md``.
"""

from palaver.dialects.xspace import behaviours
from palaver.dialects.xspace.api import ROUTES
from palaver.dialects.xspace.auth import SETTINGS, claim, new_credential, verify
from palaver.dialects.xspace.described import ABOUT
from palaver.dialects.xspace.words import curl, refuse, tid
from palaver.wire.contract import Dialect
from palaver.wire.manifest import gathered

DIALECT = Dialect(
    name="xspace",
    prefixes=("/api/v1/", "/api/f/", "/api/logo/"),
    routes=ROUTES,
    claim=claim,
    verify=verify,
    refuse=refuse,
    new_credential=new_credential,
    curl=curl,
    unrouted="after rate",
    traced_as=lambda call: {"tid": tid(call)},
    settings=SETTINGS,
    behaviours=gathered(behaviours),
    about=ABOUT,
)
