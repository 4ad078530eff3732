"""palaver's own API, ``/palaver/v1/…``: all of core's features in plain JSON and server-sent events. Streams
resume from any character of an answer.

Source: ``docs/native.md``.
"""

from palaver.dialects.native import requirements
from palaver.dialects.native.api import ROUTES
from palaver.dialects.native.auth import SETTINGS, claim, new_credential, verify
from palaver.dialects.native.errors import curl, refuse
from palaver.dialects.native.openapi import INFO
from palaver.wire.contract import Dialect
from palaver.wire.requirements import collect_requirements

DIALECT = Dialect(
    name="native",
    prefixes=("/palaver/v1/",),
    routes=ROUTES,
    claim=claim,
    verify=verify,
    refuse=refuse,
    new_credential=new_credential,
    curl=curl,
    cors_exposed_headers=("Location", "Retry-After", "Preference-Applied"),
    settings=SETTINGS,
    requirements=collect_requirements(requirements),
    info=INFO,
)
