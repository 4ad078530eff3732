"""The WPS open platform's agent chat: ``/v7/devhub/…`` in both spellings, ``/v7/sse/devhub/…`` and ``/oauth2/…``.

Source: the vendor's page "创建对话" and the wire specification ``wps.md``.
"""

from palaver.dialects.wps import requirements
from palaver.dialects.wps.api import ROUTES
from palaver.dialects.wps.auth import claim, new_credential, verify
from palaver.dialects.wps.errors import curl, refuse
from palaver.dialects.wps.openapi import INFO
from palaver.dialects.wps.settings import SETTINGS
from palaver.wire.contract import Dialect
from palaver.wire.requirements import collect_requirements

DIALECT = Dialect(
    name="wps",
    prefixes=("/v7/", "/oauth2/"),
    routes=ROUTES,
    claim=claim,
    verify=verify,
    signs_body=True,
    id_headers=("X-Chat-Id", "X-Session-Id"),
    refuse=refuse,
    new_credential=new_credential,
    curl=curl,
    unrouted="after size",
    settings=SETTINGS,
    requirements=collect_requirements(requirements),
    info=INFO,
)
