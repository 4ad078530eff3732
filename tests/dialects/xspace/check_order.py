"""The order in which calls are checked."""

from __future__ import annotations

from dialects.xspace import client as xspace
from support.check_orders import EXPIRED, TOO_LARGE, CheckOrder, fault, with_secret

ORDER = CheckOrder(
    name="xspace",
    valid_call=lambda served: {"method": "POST", "path": xspace.ADD, "body": {"agentId": served.agent("hello").id}},
    request=with_secret("Authorization"),
    summary=lambda answer: (answer.status, answer.json()["code"], answer.json()["message"]),
    faults=(
        fault("too large", 200, "4000", "Request body too large", body=TOO_LARGE),
        fault("no key", 200, "4030", "Missing API Key.", key=None),
        fault("unknown key", 200, "4000", "Invalid API Key.", key="ak-' or 1=1 --"),
        fault("disabled key", 200, "4000", "Invalid API Key.", enabled=False),
        fault("expired key", 200, "4030", "API Key expired.", setting__expire=EXPIRED),
        fault("used up", 200, "4290", "Exceeded daily request frequency limit.", used__up=True),
        fault(
            "a path for other keys",
            200,
            "4030",
            "API not found or permission denied.",
            path="/api/v1/conversation/create",
        ),
        fault("unknown route", 200, "4040", "No static resource api/v1/none.", path="/api/v1/none"),
        fault("other method", 200, "4050", "Request method 'DELETE' is not supported", method="DELETE"),
        fault("no body", 200, "4000", "Required request body is missing", body=b""),
        fault("no JSON", 200, "4000", "JSON parse error", body=b"["),
        fault("bad Idempotency-Key", 200, "4000", "Invalid Idempotency-Key", **{"header__Idempotency-Key": "ä"}),
        fault("missing", 200, "4000", "Agent id cannot be null", body={}),
        fault(
            "no agent",
            200,
            "4000",
            "Agent does not exist or has been taken offline.",
            body={"agentId": 2**50},
        ),
    ),
)
