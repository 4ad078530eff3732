"""The order in which calls are checked."""

from __future__ import annotations

from dialects.wps import client as wps
from support.check_orders import TOO_LARGE, Call, CheckOrder, body_of, fault, headers_of
from support.http_clients import Ask
from support.live_server import Served

from palaver.core.types import ApiKey


def _request(served: Served, key: ApiKey, call: Call) -> Ask:
    caller = wps.Caller(served, key)
    headers = headers_of(call)
    date = headers.pop("X-Kso-Date", None)
    ask = caller.request(call["method"], call["path"], body_of(call), headers=headers, date=date)
    if "key" in call:
        kept = [pair for pair in ask.headers if pair[0] != "X-Kso-Authorization"]
        form = [] if call["key"] is None else [("X-Kso-Authorization", call["key"])]
        return Ask(method=ask.method, path=ask.path, headers=[*kept, *form], body=ask.body)
    return ask


def _kso(problem: str, reason: str) -> str:
    return f"kso: {problem} err: {reason}"


ORDER = CheckOrder(
    name="wps",
    valid_call=lambda served: {"method": "POST", "path": wps.chat(served.agent("hello")), "body": {"text": "hi"}},
    request=_request,
    summary=lambda answer: (answer.status, answer.json()["code"], answer.json()["msg"]),
    faults=(
        fault("too large", 413, 413000001, _kso("InvalidArgument", "request body too large"), body=TOO_LARGE),
        fault("unknown route", 404, 404000001, "404 Route Not Found", path="/v7/none"),
        fault("other method", 404, 404000001, "404 Route Not Found", method="DELETE"),
        fault("no signature", 401, 401000001, _kso("Unauthenticated", "missing signature"), key=None, user__token=None),
        fault("no such form", 401, 401000001, _kso("Unauthenticated", "invalid access key"), key="KSO-1 x"),
        fault("unknown key", 401, 401000001, _kso("Unauthenticated", "invalid access key"), key="KSO-1 ' or 1:0"),
        fault("disabled key", 401, 401000001, _kso("Unauthenticated", "invalid access key"), enabled=False),
        fault(
            "old", 401, 401000001, _kso("Unauthenticated", "date out of range"), **{"header__X-Kso-Date": "yesterday"}
        ),
        fault(
            "other signature",
            401,
            401000001,
            _kso("Unauthenticated", "signature mismatch"),
            **{"header__Content-Type": "text/plain"},
        ),
        fault(
            "no token",
            401,
            400001001,
            "kso: Unauthenticated access_token missing",
            setting__user_token="required",
            user__token=None,
        ),
        fault(
            "wrong token",
            401,
            400001001,
            "kso: Unauthenticated access_token invalid or expired",
            header__Authorization="Bearer x",
            user__token="x",
        ),
        fault("used up", 429, 429000001, _kso("ResourceExhausted", "too many requests"), used__up=True),
        fault("no JSON", 400, 400000001, _kso("InvalidArgument", "invalid request body"), body=b"["),
        fault(
            "bad Idempotency-Key",
            400,
            400000001,
            _kso("InvalidArgument", "invalid Idempotency-Key"),
            **{"header__Idempotency-Key": "ä"},
        ),
        fault("missing", 400, 400000001, _kso("InvalidArgument", "text is required"), body={}),
        fault("wrong type", 400, 400000001, _kso("InvalidArgument", "invalid text"), body={"text": 1}),
        fault("no agent", 404, 404000002, _kso("NotFound", "app not found"), path="/v7/devhub/app/none/chat/create"),
    ),
)
