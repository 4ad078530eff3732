"""The open conversation API of Nuwax / XSpaceAGI, ``/api/v1/…``: every response in an envelope with HTTP status 200,
turns as server-sent events.

Source: the vendor's page "更新会话主题" and the wire specification ``xspace.md``.
"""

from palaver.dialects.xspace import requirements
from palaver.dialects.xspace.api import ROUTES
from palaver.dialects.xspace.auth import SETTINGS, claim, new_credential, verify
from palaver.dialects.xspace.envelope import trace_id
from palaver.dialects.xspace.errors import curl, refuse
from palaver.dialects.xspace.openapi import INFO
from palaver.wire.contract import Dialect
from palaver.wire.requirements import collect_requirements

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
    trace_fields=lambda request: {"tid": trace_id(request)},
    settings=SETTINGS,
    requirements=collect_requirements(requirements),
    info=INFO,
)
