"""The vendor's error messages in two languages, and the curl sample.

Source: the vendor's page, and the wire specification ``xspace.md``, sections 3 and 4.
"""

from __future__ import annotations

import math
from typing import assert_never

from palaver.core.problems import (
    AnyProblem,
    Busy,
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    NotFound,
    Unauthenticated,
    Upstream,
)
from palaver.core.types import ApiKey
from palaver.dialects.xspace.envelope import error, prefers_chinese
from palaver.wire.contract import CurlSample, Request, Response
from palaver.wire.framing import compact_json

EVENT_STREAM = "text/event-stream;charset=UTF-8"
UNFORESEEN = "系统开小差啦，请稍后重试"
FULL, FULL_CHINESE = "Storage quota exceeded.", "存储配额已用完"
BUSY = "Agent正在执行任务，请等待当前任务完成后再发送新请求"

CONVERSATION_FILES = "/api/v1/chat/{conversationId}/files"
CONVERSATION_FILE = "/api/v1/chat/{conversationId}/file/{path}"
NO_FILE = "/api/v1/chat/{conversationId}/file/"
STORED_FILES = "/api/f/"
STORED_FILE = STORED_FILES + "{storage}/{target}/{day}/{name}"
RAW = frozenset((CONVERSATION_FILE, NO_FILE, STORED_FILE))
"""Routes that return file contents, and report errors by HTTP status."""

AGENT = "/api/v1/agent"
CREATE = "/api/v1/conversation/create"
LEGACY_CONVERSATION_ROUTES = frozenset(
    (
        "/api/v1/conversation/{id}",
        "/api/v1/conversation/{id}/delete",
        "/api/v1/chat",
        "/api/v1/chat/stop/{conversationId}",
        "/api/v1/chat/suggest/{conversationId}",
    )
)
"""The legacy routes that name a conversation."""

_REQUIRED = {
    "body": "Required request body is missing",
    "agentId": "Agent id cannot be null",
    "firstMessage": "User first message is required",
    "file": "Required part 'file' is not present.",
}

Wording = tuple[str, str]


def refuse(problem: AnyProblem, request: Request, _key: ApiKey | None = None) -> Response:
    """The problem in an envelope, with HTTP status 200; on routes that return file contents, with an error status."""
    code, message = wording(problem, request)
    body = compact_json(error(request, code, message))
    if request.route not in RAW:
        return Response(body=body)
    status = _status(problem)
    return Response(status=status, body=body, headers=_retry(problem) if status == 429 else ())


def wording(problem: AnyProblem, request: Request) -> Wording:
    """(code, message) of a problem."""
    code, english, chinese = _bilingual_wording(problem, request)
    return code, chinese if prefers_chinese(request) else english


def _bilingual_wording(problem: AnyProblem, request: Request) -> tuple[str, str, str]:
    """(code, English message, Chinese message) of a problem."""
    match problem:
        case Unauthenticated():
            return _unauthenticated(problem)
        case Forbidden(reason="kind"):
            return "4030", "API not found or permission denied.", "API 不存在或无权限"
        case Forbidden():
            return _same("0001", "Permission denied")
        case NotFound():
            return _not_found(problem, request)
        case Invalid():
            return _same("4000", _invalid(problem, request))
        case Conflict(reason="idempotency"):
            return _same("4220", "Idempotency-Key already used with a different request")
        case Conflict(reason="agent") if request.route in LEGACY_CONVERSATION_ROUTES:
            return "4000", "Invalid conversationId.", "错误的conversationId"
        case Conflict(reason="agent"):
            return _same("0001", "Invalid conversationId")
        case Busy():
            return _busy(problem)
        case Internal() if request.route == CONVERSATION_FILES:
            return _same("9999", "Failed to query file list")
        case Conflict() | Upstream() | Internal():
            return _same("5000", UNFORESEEN)
        case _:
            assert_never(problem)


def _same(code: str, message: str) -> tuple[str, str, str]:
    return code, message, message


def _unauthenticated(problem: Unauthenticated) -> tuple[str, str, str]:
    match problem.reason:
        case "missing":
            return "4030", "Missing API Key.", "缺少 API Key"
        case "expired":
            return "4030", "API Key expired.", "API Key 已过期"
        case "unknown" | "disabled" | "wrong" | "user" | "repeated":
            return "4000", "Invalid API Key.", "无效的 API Key"


def _not_found(problem: NotFound, request: Request) -> tuple[str, str, str]:
    match problem.noun:
        case "route":
            return _same("4040", f"No static resource {problem.ref.removeprefix('/')}.")
        case "method":
            return _same("4050", f"Request method '{problem.ref}' is not supported")
        case "conversation" if request.route in LEGACY_CONVERSATION_ROUTES:
            return "4000", "Conversation does not exist.", "会话不存在"
        case "conversation":
            return _same("0001", "Invalid conversationId")
        case "agent" if request.route in LEGACY_CONVERSATION_ROUTES:
            return "4000", "Related agent does not exist or is offline.", "相关智能体不存在或已下架"
        case "agent":
            return "4000", "Agent does not exist or has been taken offline.", "智能体不存在或已下架"
        case "user":
            return "4000", "User does not exist.", "用户不存在"
        case "file":
            return "4040", "File does not exist.", "文件不存在"
        case "message" | "run" | "knowledge" | "model" | "key" | "document" | "application" | "call":
            return _same("5000", UNFORESEEN)


def _invalid(problem: Invalid, request: Request) -> str:
    match problem.field, problem.rule:
        case "body", "size":
            return "Request body too large"
        case "Idempotency-Key", _:
            return "Invalid Idempotency-Key"
        case ("agentId" | "fileUrl") as field, "required" if request.method == "GET":
            kind = {"agentId": "Long", "fileUrl": "String"}[field]
            return f"Required request parameter '{field}' for method parameter type {kind} is not present"
        case "file", "size":
            return "File quota exceeded"
        case "multipart", _:
            return "Failed to parse multipart servlet request"
        case field, "required":
            return _REQUIRED.get(field, f"{field} is required")
        case field, "length":
            return f"{field} is too long"
        case ("X-User-ID" | "nuwax-user-uid") as header, "type":
            return f"{header} is not UTF-8"
        case field, "json" | "type":
            return "JSON parse error" if field == "body" else f"JSON parse error: {field}"
        case field, _:
            return f"Invalid value of {field}"


def _busy(problem: Busy) -> tuple[str, str, str]:
    match problem:
        case Busy(reason="rate"):
            return "4290", "Exceeded per-minute request frequency limit.", "每分钟请求次数超限"
        case Busy(reason="day" | "usage"):
            return "4290", "Exceeded daily request frequency limit.", "每日请求次数超限"
        case Busy(reason="full"):
            return "4290", FULL, FULL_CHINESE
        case Busy():
            return _same("4290", BUSY)


def rejection_reason(problem: NotFound | Busy, request: Request) -> str:
    """The reason in the stream of a message that is not accepted."""
    chinese = prefers_chinese(request)
    match problem:
        case NotFound(noun="agent"):
            return "智能体不存在或已下架" if chinese else "Agent does not exist or has been taken offline."
        case NotFound():
            return "会话不存在" if chinese else "Conversation does not exist."
        case Busy(reason="full"):
            return FULL_CHINESE if chinese else FULL
        case Busy():
            return BUSY


def _status(problem: AnyProblem) -> int:
    match problem:
        case Unauthenticated() | Forbidden():
            return 403
        case NotFound(noun="method"):
            return 405
        case NotFound():
            return 404
        case Invalid(field="body", rule="size"):
            return 413
        case Invalid(field="Range"):
            return 416
        case Invalid():
            return 400
        case Conflict():
            return 409
        case Busy(reason="rate" | "day" | "usage" | "full"):
            return 429
        case Busy():
            return 503
        case Upstream() | Internal():
            return 500
        case _:
            assert_never(problem)


def _retry(problem: AnyProblem) -> tuple[tuple[str, str], ...]:
    seconds = problem.retry_after if isinstance(problem, Busy) else None
    return (("Retry-After", str(max(1, math.ceil(60 if seconds is None else seconds)))),)


def curl(sample: CurlSample) -> str:
    """Creates a conversation and sends a message in it."""
    headers = f"-H 'Content-Type: application/json' -H 'Authorization: Bearer {sample.secret}'"
    return f"""C=$(curl -s '{sample.base_url}/api/v1/chat/conversation/add' {headers} \\
  -d '{{"agentId": {sample.agent_id}}}' | sed 's/.*"data":\\([0-9]*\\).*/\\1/')
curl -N "{sample.base_url}/api/v1/chat/$C" {headers} \\
  -d '{{"message": "How do I configure a model?"}}'"""
