"""What is refused first, where a call is wrong in two ways: every dialect's order of checks, each pair of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from typing import Any

import pytest
from dialects.native import client as native
from dialects.snail import client as snail
from dialects.snail import client_b as snail_b
from dialects.sonaops import client as sonaops
from dialects.wps import client as wps
from dialects.xspace import client as xspace
from support.http_clients import Answer, Ask
from support.live_server import APPLICATION, Served

from palaver import app
from palaver.core.types import ApiKey

SETTINGS = {"max_body_bytes": 2000}
LARGE = b'{"agentId":"' + b"x" * 2000 + b'"}'
EXPIRED = "2020-01-01T00:00:00Z"
Attempt = dict[str, Any]
"""A call: ``method``, ``path``, ``body``, ``header NAME``, and of its credential ``key`` (``None``: not sent, else
what stands in its place), ``user token``, ``enabled``, ``used up`` and ``setting NAME``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a call, and what its answer then is."""

    name: str
    wrong: Attempt
    answer: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A dialect's checks in the order in which they have to be made, against a call that passes them all."""

    dialect: str
    good: Callable[[Served], Attempt]
    faults: Sequence[Fault]
    ask: Callable[[Served, ApiKey, Attempt], Ask]
    seen: Callable[[Answer], tuple[Any, ...]]


def fault(name: str, *answer: Any, **wrong: Any) -> Fault:
    return Fault(name=name, wrong={each.replace("__", " "): value for each, value in wrong.items()}, answer=answer)


def written(attempt: Attempt) -> bytes:
    body = attempt["body"]
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def headers(attempt: Attempt) -> dict[str, Any]:
    return {name.removeprefix("header "): value for name, value in attempt.items() if name.startswith("header ")}


def plain(header: str, scheme: str = "Bearer ") -> Callable[[Served, ApiKey, Attempt], Ask]:
    """How a dialect asks whose key is all that is sent."""

    def ask(_served: Served, key: ApiKey, attempt: Attempt) -> Ask:
        sent = headers(attempt)
        if (shown := attempt.get("key", key.secret)) is not None:
            sent[header] = f"{scheme}{shown}"
        return Ask(method=attempt["method"], path=attempt["path"], headers=list(sent.items()), body=written(attempt))

    return ask


# The dialects -------------------------------------------------------------------------------------------------------


def _agent(served: Served) -> Any:
    return served.agent("hello")


def _ask_sonaops(served: Served, key: ApiKey, attempt: Attempt) -> Ask:
    caller = sonaops.Caller(served, key)
    sent: dict[str, Any] = headers(attempt)
    if "key" in attempt:
        sent["Authorization"] = attempt["key"] and f"Bearer {attempt['key']}"
    body = written(attempt)
    signed = None if isinstance(attempt["body"], dict) else ""
    return caller.request(attempt["path"], body, method=attempt["method"], headers=sent, signed=signed)


SONAOPS = Order(
    dialect="sonaops",
    good=lambda served: {
        "method": "POST",
        "path": sonaops.CREATE,
        "body": {"agentId": str(_agent(served).uid)},
    },
    ask=_ask_sonaops,
    seen=lambda answer: (answer.status, answer.json()["code"], answer.json()["message"]),
    faults=(
        fault("unknown route", 404, 10404, "Not found", path="/v1/none"),
        fault("other method", 405, 10405, "Method not allowed", method="DELETE"),
        fault("too large", 413, 10413, "Request body too large", body=LARGE),
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


def _ask_wps(served: Served, key: ApiKey, attempt: Attempt) -> Ask:
    caller = wps.Caller(served, key)
    sent: dict[str, Any] = headers(attempt)
    date = sent.pop("X-Kso-Date", None)
    ask = caller.request(attempt["method"], attempt["path"], written(attempt), headers=sent, date=date)
    if "key" in attempt:
        kept = [pair for pair in ask.headers if pair[0] != "X-Kso-Authorization"]
        form = [] if attempt["key"] is None else [("X-Kso-Authorization", attempt["key"])]
        return Ask(method=ask.method, path=ask.path, headers=[*kept, *form], body=ask.body)
    return ask


def _kso(problem: str, reason: str) -> str:
    return f"kso: {problem} err: {reason}"


WPS = Order(
    dialect="wps",
    good=lambda served: {"method": "POST", "path": wps.chat(_agent(served)), "body": {"text": "hi"}},
    ask=_ask_wps,
    seen=lambda answer: (answer.status, answer.json()["code"], answer.json()["msg"]),
    faults=(
        fault("too large", 413, 413000001, _kso("InvalidArgument", "request body too large"), body=LARGE),
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

XSPACE = Order(
    dialect="xspace",
    good=lambda served: {"method": "POST", "path": xspace.ADD, "body": {"agentId": _agent(served).id}},
    ask=plain("Authorization"),
    seen=lambda answer: (answer.status, answer.json()["code"], answer.json()["message"]),
    faults=(
        fault("too large", 200, "4000", "Request body too large", body=LARGE),
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

SNAIL_A = Order(
    dialect="snail",
    good=lambda served: {
        "method": "POST",
        "path": snail.CHAT,
        "body": {"agentId": _agent(served).id, "openId": "ann", "content": "hi"},
    },
    ask=plain("Snail-Ai-Auth", ""),
    seen=lambda answer: (answer.status, answer.json()["status"], answer.json()["msg"]),
    faults=(
        fault("unknown route", 404, 0, "接口不存在", path="/snail-ai/open-api/none"),
        fault("other method", 405, 0, "请求方法不支持", method="DELETE"),
        fault("too large", 413, 0, "请求体过大", body=LARGE),
        fault("no key", 200, 5001, "缺少认证信息，请提供 Snail-Ai-Auth", key=None),
        fault("unknown key", 200, 5001, "Token 验证失败", key="' or 1=1 --"),
        fault("disabled key", 200, 5001, None, enabled=False),
        fault("used up", 429, 0, "请求过于频繁，请稍后再试", used__up=True),
        fault("no JSON", 200, 0, "请求体不是合法的 JSON", body=b"["),
        fault("missing", 200, 0, "agentId 和 content 为必填参数", body={}),
        fault("no user", 200, 0, "openId 为必填参数", body={"agentId": 1, "content": "hi"}),
        fault("no agent", 200, 0, "智能体不存在或已被禁用", body={"agentId": 2**50, "openId": "ann", "content": "hi"}),
        fault("bad Idempotency-Key", 200, 0, "Idempotency-Key 格式错误", **{"header__Idempotency-Key": "ä"}),
    ),
)


def _ask_snail_b(_served: Served, key: ApiKey, attempt: Attempt) -> Ask:
    app_id, secret = attempt.get("key", (key.id, key.secret))
    sent = {**headers(attempt), "Snail-Ai-App-Id": app_id, "Snail-Ai-Token": secret}
    pairs = [(name, value) for name, value in sent.items() if value]
    return Ask(method=attempt["method"], path=attempt["path"], headers=pairs, body=written(attempt))


SNAIL_B = Order(
    dialect="snail",
    good=lambda served: {"method": "POST", "path": f"{snail_b.B}/user/register", "body": {"externalId": "ann"}},
    ask=_ask_snail_b,
    seen=SNAIL_A.seen,
    faults=(
        fault("unknown route", 404, 0, "接口不存在", path=f"{snail_b.B}/none"),
        fault("other method", 405, 0, "请求方法不支持", method="DELETE"),
        fault("too large", 413, 0, "请求体过大", body=LARGE),
        fault("no key", 200, 5001, "缺少认证信息，请提供 Snail-Ai-App-Id 和 Snail-Ai-Token", key=("", "x")),
        fault("unknown key", 200, 5001, "应用认证失败: ' or 1=1 --", key=("' or 1=1 --", "x")),
        fault("disabled key", 200, 5001, None, enabled=False),
        fault("used up", 429, 0, "请求过于频繁，请稍后再试", used__up=True),
        fault("no JSON", 200, 0, "请求体不是合法的 JSON", body=b"["),
        fault("bad Idempotency-Key", 200, 0, "Idempotency-Key 格式错误", **{"header__Idempotency-Key": "ä"}),
    ),
)

NATIVE = Order(
    dialect="native",
    good=lambda served: {
        "method": "POST",
        "path": f"{native.ROOT}/messages",
        "body": {"agent": _agent(served).uid.hex, "content": "hi"},
        "header X-User-ID": "ann",
    },
    ask=plain("Authorization"),
    seen=lambda answer: (answer.status, answer.json()["code"], answer.json().get("field")),
    faults=(
        fault("unknown route", 404, "no_such_path", None, path=f"{native.ROOT}/none"),
        fault("other method", 405, "method_not_allowed", None, method="DELETE"),
        fault("too large", 413, "too_large", None, body=LARGE),
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

ORDERS = {
    "sonaops": SONAOPS,
    "wps": WPS,
    "xspace": XSPACE,
    "snail A": SNAIL_A,
    "snail B": SNAIL_B,
    "native": NATIVE,
}
PAIRS = [
    pytest.param(order, first, second, id=f"{name}: {first.name}, {second.name}")
    for name, order in ORDERS.items()
    for first, second in combinations(order.faults, 2)
    if not first.wrong.keys() & second.wrong.keys()
]


@pytest.fixture(scope="module")
def attempts(served: Served) -> dict[str, Attempt]:
    """The good call of each order."""
    return {name: order.good(served) for name, order in ORDERS.items()}


def credential(served: Served, order: Order, good: Attempt, wrong: Attempt) -> ApiKey:
    """A new one, as the attempt wants it."""
    made = next(one for one in app.all_dialects() if one.name == order.dialect)
    key_id, secret = made.new_credential(sha256(served.new_name("key").encode()).digest())
    settings = {name.removeprefix("setting "): value for name, value in wrong.items() if name.startswith("setting ")}
    if wrong.get("used up"):
        settings["total"] = 1

    async def create() -> ApiKey:
        owner = await served.core.store.applications.get_or_create(APPLICATION)
        keys = served.core.store.keys
        return await keys.create(owner, order.dialect, key_id, secret, settings, enabled=wrong.get("enabled", True))

    key = served.do(create())
    if wrong.get("used up"):
        served.sql("INSERT INTO usage (app, credential, total) VALUES ($1, $2, 1)", key.app, key.number)
    return key


def answered(served: Served, order: Order, good: Attempt, wrong: Attempt) -> tuple[Any, ...]:
    key = credential(served, order, good, wrong)
    return order.seen(served.ask(order.ask(served, key, {**good, **wrong})))


def matches(seen: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """``None`` as a message: it holds what no table knows, and is not compared."""
    return seen == (*expected[:-1], seen[-1] if expected[-1] is None else expected[-1])


@pytest.mark.parametrize("name", ORDERS)
def test_each_fault_alone_has_its_answer_and_without_any_there_is_none(
    served: Served, attempts: dict[str, Attempt], name: str
) -> None:
    order, good = ORDERS[name], attempts[name]
    key = credential(served, order, good, {})
    assert served.ask(order.ask(served, key, good)).status == 200
    for one in order.faults:
        seen = answered(served, order, good, one.wrong)
        assert matches(seen, one.answer), (one.name, seen)


@pytest.mark.parametrize(("order", "first", "second"), PAIRS)
def test_of_two_faults_the_one_that_is_checked_first_is_answered(
    served: Served, attempts: dict[str, Attempt], order: Order, first: Fault, second: Fault
) -> None:
    good = next(attempts[name] for name, each in ORDERS.items() if each is order)
    seen = answered(served, order, good, {**first.wrong, **second.wrong})
    assert matches(seen, first.answer), seen
