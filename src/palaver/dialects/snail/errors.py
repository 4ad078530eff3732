"""The vendor's error responses and messages, and the curl sample.

Source: the vendor's page, and the wire specification ``snail.md``, sections 2.3, 3, 6 and 7.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, assert_never

import msgspec
from msgspec import Meta

from palaver.core.problems import (
    AnyProblem,
    Busy,
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    NotFound,
    Problem,
    Unauthenticated,
    Upstream,
)
from palaver.core.types import ApiKey
from palaver.wire.contract import CurlSample, Request, Response
from palaver.wire.framing import ascii_json, compact_json, sse

CHAT = "/snail-ai/open-api/chat"
SEARCH = "/snail-ai/open-api/rag/search"
B = "/snail-ai/openapi/v1"
"""Prefix of surface B's paths."""
C = "/api/snail/chat"
"""Prefix of surface C's paths."""
COMPLETIONS, SESSION = f"{C}/completions", f"{C}/session"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "text/event-stream;charset=UTF-8"
NOT_SIGNED_IN = 5001
INTERNAL_ERROR = "系统异常"
TIMED_OUT = "对话超时"
NO_AGENT = "智能体不存在或已被禁用"
_RULES = {
    ("page", "range"): "must be greater than 0",
    ("size", "range"): "must be greater than 0",
    ("ttlSeconds", "range"): "must be greater than or equal to 60",
    ("ttlSeconds", "size"): "must be less than or equal to 86400",
}
"""The vendor's messages for invalid values on surface B, by field and rule."""
_SUBSCRIPTIONS = frozenset((f"{B}/user/agent", f"{C}/agent/subscribe"))
_USER_PATHS = _SUBSCRIPTIONS | {f"{B}/user", f"{B}/user/agents", f"{C}/my-agents"}
"""Paths about an end user, where an unknown one is reported as not found instead of unauthenticated."""


class SnailResponseModel(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A response body, or an object in one: camel case on the wire, members in the vendor's order."""


class SnailError(SnailResponseModel, frozen=True, kw_only=True):
    """An error response."""

    code: Literal[0]
    msg: str
    data: None
    status: int
    message: str
    type: Annotated[Literal["error"] | msgspec.UnsetType, Meta(description="On surface A.")] = msgspec.UNSET


class ErrorLine(SnailResponseModel, frozen=True, kw_only=True):
    """An error in surface A's stream: the members of ``SnailError``, the type first."""

    type: Literal["error"] = "error"
    code: Literal[0] = 0
    msg: str
    data: None = None
    status: int = 0
    message: str


class ErrorEvent(SnailResponseModel, frozen=True, kw_only=True):
    """The data of an ``error`` event."""

    message: str
    code: Literal[0] = 0
    msg: str
    data: None = None
    status: int = 0


def on_b(request: Request) -> bool:
    return request.path.startswith(f"{B}/")


def on_c(request: Request) -> bool:
    return request.path.startswith(f"{C}/")


def wants_events(request: Request) -> bool:
    """Whether a request of surface A's chat accepts server-sent events rather than NDJSON."""
    accept = request.headers.get("accept", "").lower()
    return "text/event-stream" in accept and NDJSON not in accept


def refuse(problem: AnyProblem, request: Request, _key: ApiKey | None = None) -> Response:
    """The error response for a problem on the request's surface: one line of JSON, or an ``error`` event if the client
    reads events."""
    http, status, message = _wording_on_surface(problem, request)
    if _reads_events(request) and http not in {404, 405, 413}:
        return Response(body=sse("error", ascii_json(error_event(message, status))), media_type=EVENT_STREAM)
    body = error_body(message, status, on_a=not (on_b(request) or on_c(request)))
    return Response(status=http, body=compact_json(body), headers=_retry(problem))


def _reads_events(request: Request) -> bool:
    if on_b(request):  # the vendor's stream reader ignores a JSON body
        return request.path == f"{B}/agent/chat" and "text/event-stream" in request.headers.get("accept", "").lower()
    if on_c(request):  # the vendor's page sends no Accept, and ignores a JSON body
        return request.path == COMPLETIONS
    return request.path != SEARCH and wants_events(request)


def failure_reason(problem: Problem | None) -> str:
    """The reason for a run's failure that callers may see."""
    match problem:
        case Upstream(reason=reason) | Internal(reason=reason):
            return f"{INTERNAL_ERROR}: {reason}"
        case _:
            return INTERNAL_ERROR


def error_body(message: str, status: int = 0, *, on_a: bool = False) -> SnailError:
    """An error; on surface A with the ``type`` that readers of NDJSON look for."""
    return SnailError(
        code=0, msg=message, data=None, status=status, message=message, type="error" if on_a else msgspec.UNSET
    )


def error_line(message: str = INTERNAL_ERROR) -> ErrorLine:
    return ErrorLine(msg=message, message=message)


def error_event(message: str = INTERNAL_ERROR, status: int = 0) -> ErrorEvent:
    return ErrorEvent(message=message, msg=message, status=status)


def _wording_on_surface(problem: AnyProblem, request: Request) -> tuple[int, int, str]:
    """(HTTP status, envelope status, message) on the request's surface."""
    if on_b(request):
        match problem:
            case Unauthenticated(reason="missing"):
                return 200, NOT_SIGNED_IN, "缺少认证信息，请提供 Snail-Ai-App-Id 和 Snail-Ai-Token"
            case Unauthenticated(reason="unknown", subject=app):
                return 200, NOT_SIGNED_IN, f"应用认证失败: {app}"
            case _:
                return _wording_b_or_c(problem, request)
    if on_c(request):
        match problem:
            case Unauthenticated(reason="missing") if request.path == SESSION:
                return 200, NOT_SIGNED_IN, "缺少认证信息，请提供 trustedCredential"
            case _:
                return _wording_b_or_c(problem, request)
    return _wording(problem)


def _wording_b_or_c(problem: AnyProblem, request: Request) -> tuple[int, int, str]:
    """The same on surfaces B and C, where messages depend on the path."""
    match problem:
        case NotFound(noun="user", ref=open_id):
            if request.path in _USER_PATHS:
                return 200, 0, f"用户不存在: {open_id}"
            return 200, NOT_SIGNED_IN, f"OpenId 无效: {open_id}"
        case NotFound(noun="agent", ref=number) if request.path in {f"{B}/agent", f"{C}/agent"}:
            return 200, 0, f"Agent 不存在: {number}"
        case NotFound(noun="agent", ref=number) if request.path in _SUBSCRIPTIONS:
            return 200, 0, f"Agent 不存在或不可用: {number}"
        case Invalid(field=field, rule="required") if field != "body":
            return 200, 0, f"{field} {field} is required"
        case Invalid(field=field, rule=rule) if (field, rule) in _RULES:
            return 200, 0, f"{field} {field} {_RULES[field, rule]}"
        case _:
            return _wording(problem)


def _wording(problem: AnyProblem) -> tuple[int, int, str]:
    """The same on surface A, and for problems with the same message on every surface."""
    match problem:
        case Unauthenticated():
            return 200, NOT_SIGNED_IN, _unauthenticated(problem)
        case NotFound(noun="route"):
            return 404, 0, "接口不存在"
        case NotFound(noun="method"):
            return 405, 0, "请求方法不支持"
        case NotFound(noun="agent"):
            return 200, 0, NO_AGENT
        case NotFound(noun="knowledge"):
            return 200, 0, "知识库不存在"
        case NotFound(noun=noun):
            return 200, 0, f"不存在: {noun}"
        case Invalid():
            return _invalid(problem)
        case Conflict(reason="idempotency"):
            return 422, 0, "Idempotency-Key already used with a different request"
        case Conflict():
            return 200, 0, "conversationId 与 agentId 不匹配"
        case Busy(reason="rate" | "day" | "usage"):
            return 429, 0, "请求过于频繁，请稍后再试"
        case Busy(reason="full"):
            return 200, 0, "存储配额已用完"
        case Busy():
            return 200, 0, "会话繁忙，请稍后再试"
        case Forbidden() | Upstream() | Internal():
            return 200, 0, INTERNAL_ERROR
        case _:
            assert_never(problem)


def _unauthenticated(problem: Unauthenticated) -> str:
    match problem.reason:
        case "missing":
            return "缺少认证信息，请提供 Snail-Ai-Auth"
        case "disabled":
            return f"应用已禁用: {problem.subject}"
        case "expired":
            return "登录已过期，请重新登录"
        case "user":
            return f"OpenId 无效: {problem.subject}" if problem.subject else "Token 缺少 openId"
        case "unknown" | "wrong" | "repeated":
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
        case "ragId", "required":
            return 200, 0, "ragId 和 query 为必填参数"
        case field, "required":
            return 200, 0, f"{field} 为必填参数"
        case field, _:
            return 200, 0, f"参数格式错误: {field}"


def _retry(problem: AnyProblem) -> tuple[tuple[str, str], ...]:
    match problem:
        case Busy(reason="rate" | "day", retry_after=seconds):
            return (("Retry-After", str(max(1, math.ceil(60 if seconds is None else seconds)))),)
        case Busy(reason="usage"):
            return (("Retry-After", "86400"),)
        case _:
            return ()


def curl(sample: CurlSample) -> str:
    return f"""curl -N '{sample.base_url}/snail-ai/open-api/chat' \\
  -H 'Content-Type: application/json' \\
  -H 'Snail-Ai-Auth: {sample.secret}' \\
  -d '{{"agentId": {sample.agent_id}, "openId": "me", "content": "How do I configure a model?"}}'"""
