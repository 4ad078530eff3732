"""Snail AI: the documented open API (surface A, ``/snail-ai/open-api/``, answers in NDJSON), and what the vendor's
released server and Java client speak (surface B, ``/snail-ai/openapi/v1/``, answers in JSON and server-sent events),
and the gateway of the vendor's chat page (surface C, ``/api/snail/chat/``).

Source: the vendor's page "对话接口" and the wire specification ``snail.md``.
"""

from palaver.dialects.snail import agents, api, chat, gateway, requirements, users
from palaver.dialects.snail.auth import claim, new_credential, verify
from palaver.dialects.snail.errors import curl, refuse
from palaver.dialects.snail.openapi import INFO
from palaver.wire.contract import Dialect, KeySetting
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
        KeySetting(
            name="auto_register", read=parse_bool, meaning="surfaces B and C: an unknown openId is a new end user"
        ),
        KeySetting(
            name=gateway.OPEN_SESSIONS,
            read=parse_bool,
            meaning="surface C: whoever names a registered openId is signed in, without proof",
        ),
    ),
    requirements=collect_requirements(requirements),
    info=INFO,
)
