"""The vendor's error messages, and the curl sample.

Source: the vendor's page, and the wire specification ``wps.md``, section 3.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import assert_never

import msgspec

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
from palaver.dialects.wps.auth import TOKEN
from palaver.wire.contract import CurlSample, Request, Response
from palaver.wire.framing import compact_json


class WpsResponseModel(msgspec.Struct, frozen=True, kw_only=True):
    """A response body, or an object in one. Members are in the order in which the vendor sends them."""


class DebugInfo(WpsResponseModel, frozen=True, kw_only=True):
    desc: str


class WpsError(WpsResponseModel, frozen=True, kw_only=True):
    """An error response."""

    code: int
    msg: str
    debug: DebugInfo


def refuse(problem: AnyProblem, _call: Request, _key: ApiKey | None = None) -> Response:
    """The error response for a problem, the same on every path of the dialect."""
    status, code, message = _wording(problem)
    reason = message.rpartition("err: ")[2]
    if isinstance(problem, NotFound) and problem.noun == "agent":
        reason = f"{reason}: app_id is an agent's UUID, alias or name"
    body = WpsError(code=code, msg=message, debug=DebugInfo(desc=reason))
    return Response(status=status, body=compact_json(body), headers=_retry(problem))


def _wording(problem: AnyProblem) -> tuple[int, int, str]:
    """(HTTP status, code, message)."""
    match problem:
        case Unauthenticated():
            return _unauthenticated(problem)
        case Forbidden():
            return 403, 400000003, "kso: PermissionDenied access_token verify err: invalid_scope"
        case NotFound(noun="route" | "method"):
            return 404, 404000001, "404 Route Not Found"
        case NotFound(noun="agent"):
            return 404, 404000002, "kso: NotFound err: app not found"
        case NotFound(noun="conversation") | Conflict(reason="agent"):
            return 404, 404000002, "kso: NotFound err: session not found"
        case NotFound(noun=noun):
            return 404, 404000002, f"kso: NotFound err: {noun} not found"
        case Invalid(field="body", rule="size"):
            return 413, 413000001, "kso: InvalidArgument err: request body too large"
        case Invalid():
            return 400, 400000001, f"kso: InvalidArgument err: {_invalid(problem)}"
        case Conflict():
            return 422, 422000001, "kso: InvalidArgument err: Idempotency-Key already used with a different request"
        case Busy(reason="full"):
            return 429, 429000001, "kso: ResourceExhausted err: storage quota exceeded"
        case Busy():
            return 429, 429000001, "kso: ResourceExhausted err: too many requests"
        case Upstream() | Internal():
            return 500, 500000001, "kso: Internal err: internal error"
        case _:
            assert_never(problem)


def _unauthenticated(problem: Unauthenticated) -> tuple[int, int, str]:
    if problem.subject == TOKEN:
        what = "missing" if problem.reason == "missing" else "invalid or expired"
        return 401, 400001001, f"kso: Unauthenticated access_token {what}"
    match problem.reason:
        case "missing":
            reason = "missing signature"
        case "expired":
            reason = "date out of range"
        case "wrong":
            reason = "signature mismatch"
        case "unknown" | "disabled" | "user" | "repeated":
            reason = "invalid access key"
    return 401, 401000001, f"kso: Unauthenticated err: {reason}"


def _invalid(problem: Invalid) -> str:
    match problem.field, problem.rule:
        case "body", _:
            return "invalid request body"
        case field, "required":
            return f"{field} is required"
        case field, _:
            return f"invalid {field}"


def _retry(problem: AnyProblem) -> tuple[tuple[str, str], ...]:
    """The ``Retry-After`` header. A spent lifetime count or a full storage quota has none: waiting does not help."""
    match problem:
        case Busy(reason="usage" | "full"):
            return ()
        case Busy(reason=reason, retry_after=seconds):
            if seconds is None:
                seconds = 60 if reason in {"rate", "day"} else 1
            return (("Retry-After", str(max(1, math.ceil(seconds)))),)
        case _:
            return ()


def failure_reason(problem: Problem | None) -> str:
    """The reason for a run's failure that stream readers may see."""
    match problem:
        case Upstream(reason="limit"):
            return "the model is overloaded"
        case Upstream():
            return "the model failed to answer"
        case Internal(reason="interrupted"):
            return "the answer was interrupted"
        case Internal(reason="timeout"):
            return "the answer took too long"
        case _:
            return "internal error"


def curl(sample: CurlSample) -> str:
    """A signed request in POSIX shell: openssl signs, curl reads the two headers from standard input."""
    path = f"/v7/devhub/app/{sample.agent_uid}/chat/create"
    body = json.dumps({"text": "How do I configure a model?", "stream": True})
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f"""curl -N '{sample.base_url}{path}' -H 'Content-Type: application/json' -d '{body}' -H @- <<END
$(D=$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT')
S=$(printf 'KSO-1POST{path}application/json%s{digest}' "$D" | openssl dgst -sha256 -hmac '{sample.secret}' -r)
printf 'X-Kso-Date: %s\\nX-Kso-Authorization: KSO-1 {sample.id}:%s\\n' "$D" "${{S%% *}}")
END"""
