"""The order in which calls are checked."""

from __future__ import annotations

from dialects.snail import client as snail
from dialects.snail import client_b as snail_b
from support.check_orders import TOO_LARGE, Call, CheckOrder, body_of, fault, headers_of, with_secret
from support.http_clients import Ask
from support.live_server import Served

from palaver.core.types import ApiKey

SNAIL_A = CheckOrder(
    name="snail A",
    valid_call=lambda served: {
        "method": "POST",
        "path": snail.CHAT,
        "body": {"agentId": served.agent("hello").id, "openId": "ann", "content": "hi"},
    },
    request=with_secret("Snail-Ai-Auth", ""),
    summary=lambda answer: (answer.status, answer.json()["status"], answer.json()["msg"]),
    faults=(
        fault("unknown route", 404, 0, "接口不存在", path="/snail-ai/open-api/none"),
        fault("other method", 405, 0, "请求方法不支持", method="DELETE"),
        fault("too large", 413, 0, "请求体过大", body=TOO_LARGE),
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


def _request_b(_served: Served, key: ApiKey, call: Call) -> Ask:
    app_id, secret = call.get("key", (key.id, key.secret))
    headers = {**headers_of(call), "Snail-Ai-App-Id": app_id, "Snail-Ai-Token": secret}
    pairs = [(name, value) for name, value in headers.items() if value]
    return Ask(method=call["method"], path=call["path"], headers=pairs, body=body_of(call))


SNAIL_B = CheckOrder(
    name="snail B",
    valid_call=lambda served: {"method": "POST", "path": f"{snail_b.B}/user/register", "body": {"externalId": "ann"}},
    request=_request_b,
    summary=SNAIL_A.summary,
    faults=(
        fault("unknown route", 404, 0, "接口不存在", path=f"{snail_b.B}/none"),
        fault("other method", 405, 0, "请求方法不支持", method="DELETE"),
        fault("too large", 413, 0, "请求体过大", body=TOO_LARGE),
        fault("no key", 200, 5001, "缺少认证信息，请提供 Snail-Ai-App-Id 和 Snail-Ai-Token", key=("", "x")),
        fault("unknown key", 200, 5001, "应用认证失败: ' or 1=1 --", key=("' or 1=1 --", "x")),
        fault("disabled key", 200, 5001, None, enabled=False),
        fault("used up", 429, 0, "请求过于频繁，请稍后再试", used__up=True),
        fault("no JSON", 200, 0, "请求体不是合法的 JSON", body=b"["),
        fault("bad Idempotency-Key", 200, 0, "Idempotency-Key 格式错误", **{"header__Idempotency-Key": "ä"}),
    ),
)

ORDERS = (SNAIL_A, SNAIL_B)
