"""The vendor's error messages, and the curl sample.

Source: the vendor's page, and the wire specification ``sonaops.md``, sections 3 and 4.
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
    Problem,
    Unauthenticated,
    Upstream,
)
from palaver.core.types import ApiKey
from palaver.dialects.sonaops.auth import wants_hmac
from palaver.dialects.sonaops.responses import error
from palaver.wire.contract import CurlSample, Request, Response
from palaver.wire.framing import compact_json

EVENT_STREAM = "text/event-stream; charset=utf-8"
TOO_MANY = "Too many requests, please try again later"
UNFORESEEN = "Internal server error"
_TYPES = {"metadata": "an object", "pageNum": "an integer", "pageSize": "an integer", "X-User-ID": "UTF-8"}
_RANGES = {"pageNum": "an integer of at least 1", "pageSize": "an integer from 1 to 100"}
_MISSING = {
    "X-Signature": "Missing signature",
    "X-Timestamp": "Missing timestamp",
    "X-User-ID": "Missing user id",
}
_NOT_CONFIGURED = {
    "/v1/chat/image": "Agent missing image generation config",
    "/v1/chat/tts": "Agent missing voice config",
}

Wording = tuple[int, int, int, str]
"""(HTTP status for credentials of the original generation, HTTP status for the later one, code, message)."""


def refuse(problem: AnyProblem, request: Request, key: ApiKey | None = None) -> Response:
    """The problem as an envelope. Its HTTP status depends on the credential's generation."""
    first, later, code, message = _wording(problem, request)
    body = compact_json(error(request, code, message))
    return Response(status=later if wants_hmac(key) else first, body=body, headers=_retry(problem))


def run_failure(problem: Problem | None) -> tuple[int, str]:
    """(code, message) for a failed run."""
    if isinstance(problem, Upstream) and problem.reason == "limit":
        return 10429, TOO_MANY
    return 10500, UNFORESEEN


def _wording(problem: AnyProblem, request: Request) -> Wording:
    match problem:
        case Unauthenticated():
            return _unauthenticated(problem)
        case Forbidden():
            return 200, 200, 10403, "Forbidden"
        case NotFound():
            return _not_found(problem)
        case Invalid():
            return _invalid(problem)
        case Conflict(reason="idempotency"):
            return 422, 422, 10422, "Idempotency-Key already used with a different request"
        case Conflict():
            return 200, 200, 10400, "agentId does not match the conversation"
        case Busy(reason="usage"):
            return 200, 200, 10403, "API key usage limit reached"
        case Busy(reason="full"):
            return 200, 200, 10403, "storage quota exceeded"
        case Busy():
            return 200, 200, 10429, TOO_MANY
        case Upstream(reason="configuration") if request.route in _NOT_CONFIGURED:
            return 200, 200, 10400, _NOT_CONFIGURED[request.route]
        case Upstream(reason="limit"):
            return 200, 200, 10429, TOO_MANY
        case Upstream() | Internal():
            return 500, 200, 10500, UNFORESEEN
        case _:
            assert_never(problem)


def _unauthenticated(problem: Unauthenticated) -> Wording:
    match problem.reason:
        case "missing":
            return 401, 401, 10401, _MISSING.get(problem.subject, "Missing API key")
        case "unknown":
            return 200, 200, 10401, "Invalid API key"
        case "disabled":
            return 200, 401, 10401, "Invalid API key"
        case "wrong":
            return 401, 401, 10401, "Invalid signature"
        case "expired":
            return 401, 401, 10401, "Request expired"
        case "repeated":
            return 401, 401, 10401, "Request repeated"
        case "user":
            return 401, 401, 10401, "Invalid user id"


def _not_found(problem: NotFound) -> Wording:
    match problem.noun:
        case "method":
            return 405, 405, 10405, "Method not allowed"
        case "agent":
            return 200, 200, 10404, "Agent not found"
        case "conversation":
            return 200, 200, 10404, "Conversation not found"
        case "message" | "run":
            return 404, 200, 10404, "Message not found"
        case "route" | "file" | "user" | "knowledge" | "model" | "key" | "document" | "application":
            return 404, 404, 10404, "Not found"


def _invalid(problem: Invalid) -> Wording:
    match problem.field, problem.rule:
        case "body", "size":
            return 413, 413, 10413, "Request body too large"
        case "body", _:
            return 400, 200, 10400, "Invalid request body"
        case "Idempotency-Key", _:
            return 400, 200, 10400, "Invalid Idempotency-Key"
        case field, "required":
            return 200, 200, 10400, f"{field} is required"
        case field, "range" if field in _RANGES:
            return 400, 200, 10400, f"{field} must be {_RANGES[field]}"
        case field, "length" | "size":
            return 400, 200, 10400, f"{field} is too long"
        case field, _:
            return 400, 200, 10400, f"{field} must be {_TYPES.get(field, 'a string')}"


def _retry(problem: AnyProblem) -> tuple[tuple[str, str], ...]:
    match problem:
        case Busy(reason="rate" | "day", retry_after=seconds):
            return (("Retry-After", str(max(1, math.ceil(60 if seconds is None else seconds)))),)
        case _:
            return ()


def curl(sample: CurlSample) -> str:
    """Creates a conversation and sends a message, signed in POSIX shell as on the vendor's page."""
    agent, question = sample.agent_uid, "How do I configure a model?"
    headers = f"-H 'Content-Type: application/json' -H 'Authorization: Bearer {sample.id}'"
    return f"""sign() {{ printf '%s' "$1" '{sample.secret}' | openssl dgst -sha256 -r | cut -d ' ' -f 1; }}
C=$(curl -s '{sample.base_url}/v1/chat/conversation' {headers} \\
  -H "X-Signature: $(sign 'agentId={agent}')" -d '{{"agentId":"{agent}"}}' \\
  | sed 's/.*"conversationId":"\\([^"]*\\)".*/\\1/')
curl -N '{sample.base_url}/v1/chat/stream' {headers} \\
  -H "X-Signature: $(sign "agentId={agent}&conversationId=$C&text={question}")" \\
  -d '{{"agentId":"{agent}","conversationId":"'$C'","text":"{question}"}}'"""
