"""What the vendor calls things: its envelope, its messages, its example.

Source: the vendor's page, and the wire specification ``snail.md``, sections 2.3 and 3.
"""

from __future__ import annotations

import math
from typing import Any, assert_never

from palaver.core.problems import (
    AnyProblem,
    Busy,
    Cancelled,
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    NotFound,
    Unauthenticated,
    Upstream,
)
from palaver.wire.contract import Call, Reply, Sample
from palaver.wire.framing import ascii_json, compact, sse

NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream;charset=UTF-8"
NOT_SIGNED_IN = 5001
UNFORESEEN = "系统异常"


def wants_events(call: Call) -> bool:
    """Whether the caller asked for server-sent events instead of lines."""
    accept = call.headers.get("accept", "").lower()
    return "text/event-stream" in accept and NDJSON not in accept


def refuse(problem: AnyProblem, call: Call) -> Reply:
    """The problem as surface A answers it, always one line; as one ``error`` frame where events were asked for."""
    http, status, message = _said(problem)
    if wants_events(call) and http not in {404, 405, 413}:
        return Reply(body=sse("error", ascii_json(error_event(message, status))), media_type=EVENT_STREAM)
    return Reply(status=http, body=compact(envelope(message, status)), headers=_retry(problem))


def envelope(message: str, status: int = 0) -> dict[str, Any]:
    """A failure: the documented members, then the implemented ones, then the ``type`` that readers of lines want."""
    return {"code": 0, "msg": message, "data": None, "status": status, "message": message, "type": "error"}


def error_line(message: str = UNFORESEEN) -> dict[str, Any]:
    """A failure in mid-stream."""
    return {"type": "error", "code": 0, "msg": message, "data": None, "status": 0, "message": message}


def error_event(message: str = UNFORESEEN, status: int = 0) -> dict[str, Any]:
    """The same as data of an ``error`` event."""
    return {"message": message, "code": 0, "msg": message, "data": None, "status": status}


def _said(problem: AnyProblem) -> tuple[int, int, str]:
    """(HTTP status, the envelope's status, message)."""
    match problem:
        case Unauthenticated():
            return 200, NOT_SIGNED_IN, _not_signed_in(problem)
        case NotFound(noun="route"):
            return 404, 0, "接口不存在"
        case NotFound(noun="method"):
            return 405, 0, "请求方法不支持"
        case NotFound(noun="agent"):
            return 200, 0, "智能体不存在或已被禁用"
        case NotFound(noun=noun):
            return 200, 0, f"不存在: {noun}"
        case Invalid():
            return _invalid(problem)
        case Conflict(reason="idempotency"):
            return 422, 0, "Idempotency-Key already used with a different request"
        case Conflict():
            return 200, 0, "conversationId 与 agentId 不匹配"
        case Busy(reason="rate" | "usage"):
            return 429, 0, "请求过于频繁，请稍后再试"
        case Busy():
            return 200, 0, "会话繁忙，请稍后再试"
        case Forbidden() | Upstream() | Cancelled() | Internal():
            return 200, 0, UNFORESEEN
        case _:
            assert_never(problem)


def _not_signed_in(problem: Unauthenticated) -> str:
    match problem.reason:
        case "missing":
            return "缺少认证信息，请提供 Snail-Ai-Auth"
        case "disabled":
            return f"应用已禁用: {problem.subject}"
        case "expired":
            return "登录已过期，请重新登录"
        case "user":
            return f"OpenId 无效: {problem.subject}"
        case "unknown" | "wrong":
            return "Token 验证失败"


def _invalid(problem: Invalid) -> tuple[int, int, str]:
    match problem.field, problem.rule:
        case "body", "size":
            return 413, 0, "请求体过大"
        case "body", _:
            return 200, 0, "请求体不是合法的 JSON"
        case "Idempotency-Key", _:
            return 200, 0, "Idempotency-Key 格式错误"
        case "agentId", "required":
            return 200, 0, "agentId 和 content 为必填参数"
        case field, "required":
            return 200, 0, f"{field} 为必填参数"
        case field, _:
            return 200, 0, f"参数格式错误: {field}"


def _retry(problem: AnyProblem) -> tuple[tuple[str, str], ...]:
    match problem:
        case Busy(reason="rate", retry_after=seconds):
            return (("Retry-After", str(max(1, math.ceil(60 if seconds is None else seconds)))),)
        case Busy(reason="usage"):
            return (("Retry-After", "86400"),)
        case _:
            return ()


def curl(sample: Sample) -> str:
    return f"""curl -N '{sample.base_url}/snail-ai/open-api/chat' \\
  -H 'Content-Type: application/json' \\
  -H 'Snail-Ai-Auth: {sample.secret}' \\
  -d '{{"agentId": {sample.agent_id}, "openId": "me", "content": "How do I configure a model?"}}'"""
