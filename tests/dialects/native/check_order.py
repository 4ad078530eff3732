"""The order in which calls are checked."""

from __future__ import annotations

from dialects.native import client as native
from support.check_orders import TOO_LARGE, CheckOrder, fault, with_secret

ORDER = CheckOrder(
    name="native",
    valid_call=lambda served: {
        "method": "POST",
        "path": f"{native.ROOT}/messages",
        "body": {"agent": served.agent("hello").uid.hex, "content": "hi"},
        "header X-User-ID": "ann",
    },
    request=with_secret("Authorization"),
    summary=lambda answer: (answer.status, answer.json()["code"], answer.json().get("field")),
    faults=(
        fault("unknown route", 404, "no_such_path", None, path=f"{native.ROOT}/none"),
        fault("other method", 405, "method_not_allowed", None, method="DELETE"),
        fault("too large", 413, "too_large", None, body=TOO_LARGE),
        fault("no key", 401, "unauthenticated", None, key=None),
        fault("unknown key", 401, "unauthenticated", None, key="' or 1=1 --"),
        fault("disabled key", 401, "unauthenticated", None, enabled=False),
        fault("used up", 429, "used_up", None, used__up=True),
        fault("no user", 400, "invalid", "X-User-ID", **{"header__X-User-ID": ""}),
        fault("no JSON", 400, "malformed", None, body=b"["),
        fault("missing", 400, "invalid", "content", body={"agent": "x"}),
        fault("no agent", 404, "not_found", None, body={"agent": "none", "content": "hi"}),
    ),
)
