"""Sonaops' open API: ``/v1/chat/…``, ``/v1/agent/list`` and the URL of synthesized speech.

Source: the vendor's page "创建会话" and the wire specification ``sonaops.md``.
"""

from palaver.dialects.sonaops import requirements
from palaver.dialects.sonaops.api import ROUTES
from palaver.dialects.sonaops.auth import HMAC_SHA256, SHA256, claim, new_credential, verify
from palaver.dialects.sonaops.errors import curl, refuse
from palaver.dialects.sonaops.openapi import INFO
from palaver.dialects.sonaops.responses import trace_id
from palaver.wire.contract import CredentialSetting, Dialect
from palaver.wire.requirements import collect_requirements
from palaver.wire.settings import COMMON_SETTINGS, one_of, parse_bool

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
    trace_fields=lambda request: {"traceId": trace_id(request)},
    settings=(
        *COMMON_SETTINGS,
        CredentialSetting(
            name="signature",
            read=one_of(SHA256, HMAC_SHA256),
            meaning="signature version: sha256, or the newer hmac-sha256",
        ),
        CredentialSetting(
            name="reject_repeated_request_id",
            read=parse_bool,
            meaning="true: reject an X-Request-ID that was used within the last 300 seconds",
        ),
    ),
    requirements=collect_requirements(requirements),
    info=INFO,
)
