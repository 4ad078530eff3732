"""Snail AI's three APIs: the documented one (surface A, ``/snail-ai/open-api/``, streams NDJSON), the one of the
vendor's released server and Java client (surface B, ``/snail-ai/openapi/v1/``, JSON and server-sent events), and the
gateway of the vendor's chat page (surface C, ``/api/snail/chat/``).

Source: the vendor's page "对话接口" and the wire specification ``snail.md``.
"""

from palaver.dialects.snail import agents, api, chat, gateway, requirements, users
from palaver.dialects.snail.auth import claim, new_credential, verify
from palaver.dialects.snail.errors import curl, refuse
from palaver.dialects.snail.openapi import INFO
from palaver.wire.contract import CredentialSetting, Dialect
from palaver.wire.requirements import collect_requirements
from palaver.wire.settings import COMMON_SETTINGS, parse_bool

DIALECT = Dialect(
    name="snail",
    prefixes=("/snail-ai/", "/api/snail/chat/"),
    routes=(*api.ROUTES, *agents.ROUTES, *users.ROUTES, *chat.ROUTES, *gateway.ROUTES),
    claim=claim,
    verify=verify,
    refuse=refuse,
    new_credential=new_credential,
    curl=curl,
    id_headers=("X-Conversation-Id",),
    settings=(
        *COMMON_SETTINGS,
        CredentialSetting(
            name="auto_register",
            read=parse_bool,
            meaning="true: on surfaces B and C, an unknown openId is registered as a new end user",
        ),
        CredentialSetting(
            name=gateway.OPEN_SESSIONS,
            read=parse_bool,
            meaning="true: surface C signs in anyone who names a registered openId, without proof",
        ),
    ),
    requirements=collect_requirements(requirements),
    info=INFO,
)
