"""Sonaops' open API: ``/v1/chat/…``, ``/v1/agent/list`` and the address of spoken messages.

Source: the vendor's page "创建会话" and the wire specification ``sonaops.md``.
"""

from palaver.dialects.sonaops import behaviours
from palaver.dialects.sonaops.api import ROUTES
from palaver.dialects.sonaops.auth import HMAC_SHA256, SHA256, claim, new_credential, verify
from palaver.dialects.sonaops.described import ABOUT
from palaver.dialects.sonaops.words import curl, refuse, trace_id
from palaver.wire.contract import Dialect, Setting
from palaver.wire.manifest import gathered
from palaver.wire.settings import COMMON, boolean, choice

DIALECT = Dialect(
    name="sonaops",
    prefixes=("/v1/", "/saas/"),
    routes=ROUTES,
    claim=claim,
    verify=verify,
    signs_body=True,
    refuse=refuse,
    new_credential=new_credential,
    curl=curl,
    traced_as=lambda call: {"traceId": trace_id(call)},
    settings=(
        *COMMON,
        Setting(
            name="signature",
            read=choice(SHA256, HMAC_SHA256),
            meaning="how calls are signed: sha256, or the later generation's hmac-sha256",
        ),
        Setting(
            name="reject_repeated_request_id",
            read=boolean,
            meaning="true refuses an X-Request-ID that the key has used within 300 seconds",
        ),
    ),
    behaviours=gathered(behaviours),
    about=ABOUT,
)
