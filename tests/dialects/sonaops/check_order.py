"""The order in which calls are checked."""

from __future__ import annotations

from dialects.sonaops import client as sonaops
from support.check_orders import TOO_LARGE, Call, CheckOrder, body_of, fault, headers_of
from support.http_clients import Ask
from support.live_server import Served

from palaver.core.types import ApiKey


def _request(served: Served, key: ApiKey, call: Call) -> Ask:
    caller = sonaops.Caller(served, key)
    headers = headers_of(call)
    if "key" in call:
        headers["Authorization"] = call["key"] and f"Bearer {call['key']}"
    body = body_of(call)
    signed = None if isinstance(call["body"], dict) else ""
    return caller.request(call["path"], body, method=call["method"], headers=headers, signed=signed)


ORDER = CheckOrder(
    name="sonaops",
    valid_call=lambda served: {
        "method": "POST",
        "path": sonaops.CREATE,
        "body": {"agentId": str(served.agent("hello").uid)},
    },
    request=_request,
    summary=lambda answer: (answer.status, answer.json()["code"], answer.json()["message"]),
    faults=(
        fault("unknown route", 404, 10404, "Not found", path="/v1/none"),
        fault("other method", 405, 10405, "Method not allowed", method="DELETE"),
        fault("too large", 413, 10413, "Request body too large", body=TOO_LARGE),
        fault("no key", 401, 10401, "Missing API key", key=None),
        fault("unknown key", 200, 10401, "Invalid API key", key="' or 1=1 --"),
        fault("disabled key", 200, 10401, "Invalid API key", enabled=False),
        fault("no signature", 401, 10401, "Missing signature", **{"header__X-Signature": None}),
        fault("old", 401, 10401, "Request expired", **{"header__X-Timestamp": "1"}),
        fault("no JSON", 400, 10400, "Invalid request body", body=b"["),
        fault("other signature", 401, 10401, "Invalid signature", **{"header__X-Signature": "0" * 64}),
        fault("used up", 200, 10403, "API key usage limit reached", used__up=True),
        fault("bad Idempotency-Key", 400, 10400, "Invalid Idempotency-Key", **{"header__Idempotency-Key": "ä"}),
        fault("wrong type", 400, 10400, "agentId must be a string", body={"agentId": 1}),
        fault("missing", 200, 10400, "agentId is required", body={}),
        fault("no agent", 200, 10404, "Agent not found", body={"agentId": "none"}),
    ),
)
