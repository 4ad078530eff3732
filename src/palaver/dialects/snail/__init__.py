"""Snail AI's open API, surface A: ``POST /snail-ai/open-api/chat``, answered as NDJSON.

Source: the vendor's page "对话接口" and the wire specification ``snail.md``.
"""

from palaver.dialects.snail.api import ROUTES
from palaver.dialects.snail.auth import claim, new_credential, verify
from palaver.dialects.snail.words import curl, refuse
from palaver.wire.contract import Dialect
from palaver.wire.settings import COMMON

DIALECT = Dialect(
    name="snail",
    prefixes=("/snail-ai/",),
    routes=ROUTES,
    claim=claim,
    verify=verify,
    refuse=refuse,
    new_credential=new_credential,
    curl=curl,
    settings=COMMON,
)
