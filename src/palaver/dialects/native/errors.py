"""Problem documents (RFC 9457), and the curl sample. Source: ``docs/native.md``, section 3."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, assert_never

import msgspec

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
from palaver.wire.contract import CurlSample, Request, Response
from palaver.wire.framing import compact_json

ROOT = "/palaver/v1"
CONVERSATIONS = f"{ROOT}/conversations"
CONVERSATION = f"{CONVERSATIONS}/{{conversation}}"
PROBLEM = "application/problem+json"
EVENT_STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A kind of problem, identified by its code."""

    status: int
    title: str
    meaning: str


CODES: dict[str, Code] = {
    "unauthenticated": Code(
        status=401, title="No valid credential", meaning="the credential is missing, unknown, wrong or disabled"
    ),
    "forbidden": Code(status=403, title="Not allowed", meaning="the credential is good and may not do this"),
    "no_such_path": Code(status=404, title="No such path", meaning="no route has this path"),
    "not_found": Code(status=404, title="Not found", meaning="there is none, or it is somebody else's"),
    "method_not_allowed": Code(
        status=405, title="Method not allowed", meaning="the path has other methods, `Allow` names them"
    ),
    "conflict": Code(status=409, title="Conflict", meaning="it does not go with what is there"),
    "malformed": Code(status=400, title="Malformed body", meaning="the body is not a JSON object"),
    "invalid": Code(status=400, title="Invalid request", meaning="`field` breaks `rule`"),
    "too_large": Code(status=413, title="Body too large", meaning="the body is larger than the server takes"),
    "idempotency_conflict": Code(
        status=422,
        title="Idempotency-Key already used",
        meaning="the `Idempotency-Key` was used with a different request",
    ),
    "busy": Code(
        status=429, title="Conversation busy", meaning="as many messages as may wait for their turn wait already"
    ),
    "rate_limited": Code(
        status=429, title="Too many requests", meaning="the credential's calls of this minute or day are used up"
    ),
    "used_up": Code(status=429, title="Credential used up", meaning="all calls that the credential has are used up"),
    "full": Code(status=429, title="Quota used up", meaning="as many rows as may be stored are stored already"),
    "overloaded": Code(
        status=503, title="Server busy", meaning="the server has as many runs as it takes, or is about to stop"
    ),
    "unavailable": Code(status=503, title="Database unavailable", meaning="the database cannot be reached just now"),
    "upstream": Code(status=502, title="Model failed", meaning="the model's endpoint failed, `reason` says how"),
    "upstream_busy": Code(status=503, title="Model busy", meaning="the model's endpoint refused: too many requests"),
    "upstream_timeout": Code(status=504, title="Model too slow", meaning="the model's endpoint did not answer in time"),
    "interrupted": Code(status=500, title="Run interrupted", meaning="the server ended before the run did"),
    "timeout": Code(status=500, title="Run too long", meaning="the run took longer than a run may"),
    "internal": Code(status=500, title="Internal error", meaning="nobody foresaw this; the log has it under `trace`"),
}

_BUSY: dict[str, tuple[str, int | None]] = {
    "rate": ("rate_limited", 60),
    "day": ("rate_limited", 86_400),
    "usage": ("used_up", None),
    "full": ("full", None),
    "waiting": ("busy", 1),
    "overload": ("overloaded", 1),
    "closing": ("overloaded", 1),
}
"""By reason: the code, and the default ``retry_after`` in seconds. ``None``: waiting does not help."""
_UPSTREAM = {"limit": "upstream_busy", "timeout": "upstream_timeout"}
_INTERNAL = {
    "interrupted": "interrupted",
    "database": "unavailable",
    "timeout": "timeout",
    "unforeseen": "internal",
}

_FIELDS = {
    "Idempotency-Key": "1 to 255 characters from ! to ~",
    "Last-Event-ID": "the id of an event, a whole number from 0 to 9007199254740991",
    "X-User-ID": "the end user: 1 to 255 characters, UTF-8, percent-encoded or as it is",
    "after": "the id of an event or of a message, a whole number from 0 to 9007199254740991;"
    " for conversations the next of the page before",
    "agent": "an agent's id, uid, alias or name",
    "before": "the id of a message, a whole number from 0 to 9007199254740991, and not together with after",
    "content": "a text that is not blank, unless there are files",
    "file": "the bytes of a file, as the body",
    "files": "a list of at most 20 texts: keys of uploaded files, or http and https addresses",
    "limit": "a whole number from 1 to 100",
    "name": "at most 255 characters",
    "stream": "true or false",
    "title": "a text of at most 255 characters that is not blank",
    "variables": "an object",
}
"""The allowed values of each field."""


class ResponseModel(msgspec.Struct, frozen=True, kw_only=True):
    """A response body: every member is always present, ``null`` if it has no value."""


class ProblemDocument(ResponseModel, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document (RFC 9457). Members with defaults are only present where applicable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    noun: str | None = None
    field: str | None = None
    rule: str | None = None
    reason: str | None = None
    retry_after: int | None = None
    trace: str | None = None


def refuse(problem: AnyProblem, request: Request, _key: ApiKey | None = None) -> Response:
    document = msgspec.structs.replace(problem_document(problem), trace=request.trace)
    headers: list[tuple[str, str]] = []
    if document.retry_after is not None:
        headers.append(("Retry-After", str(document.retry_after)))
    if isinstance(problem, Unauthenticated):
        invalid = "" if problem.reason == "missing" else ', error="invalid_token"'
        headers.append(("WWW-Authenticate", f'Bearer realm="palaver"{invalid}'))
    return Response(status=document.status, body=compact_json(document), media_type=PROBLEM, headers=tuple(headers))


def problem_document(problem: AnyProblem) -> ProblemDocument:
    """The problem as a document, without internal details."""
    code, detail, more = _wording(problem)
    kind = CODES[code]
    return ProblemDocument(
        type=f"{ROOT}/problems#{code}",
        title=kind.title,
        status=kind.status,
        detail=detail or kind.meaning.replace("`", ""),
        code=code,
        **more,
    )


def _wording(problem: AnyProblem) -> tuple[str, str, dict[str, Any]]:
    """(code, specific detail if any, additional members)."""
    match problem:
        case Unauthenticated():
            return "unauthenticated", _unauthenticated(problem), {}
        case Forbidden():
            return "forbidden", "", {}
        case NotFound():
            return _not_found(problem)
        case Invalid():
            return _invalid(problem)
        case Conflict(reason="idempotency"):
            return "idempotency_conflict", "", {}
        case Conflict(reason=reason):
            return "conflict", "", {"reason": reason}
        case Busy():
            return _busy(problem)
        case Upstream():
            return _upstream(problem)
        case Internal(reason=reason):
            return _INTERNAL[reason], "", {"retry_after": 1} if reason == "database" else {}
        case _:
            assert_never(problem)


def _unauthenticated(problem: Unauthenticated) -> str:
    match problem.reason:
        case "missing":
            return "send Authorization: Bearer and the credential's secret"
        case "disabled":
            return "the credential is disabled"
        case "expired":
            return "the credential has expired"
        case "unknown" | "wrong" | "user" | "repeated":
            return "the credential is not known here"


def _not_found(problem: NotFound) -> tuple[str, str, dict[str, Any]]:
    match problem.noun:
        case "route":
            return "no_such_path", "", {}
        case "method":
            return "method_not_allowed", "", {}
        case "agent":
            return "not_found", f"there is no such agent; it takes {_FIELDS['agent']}", {"noun": "agent"}
        case noun:
            return "not_found", f"there is no such {noun}", {"noun": noun}


def _invalid(problem: Invalid) -> tuple[str, str, dict[str, Any]]:
    match problem.field, problem.rule:
        case "body", "size":
            return "too_large", "", {}
        case "body", _:
            return "malformed", "", {}
        case "file", "size":
            detail = "no room is left for it; delete files that are not needed"
            return "invalid", f"file: {detail}", {"field": "file", "rule": "size"}
        case field, rule:
            missing = " is missing" if rule == "required" else ""
            takes = f": {_FIELDS[field]}" if field in _FIELDS else ""
            return "invalid", f"{field}{missing}{takes}", {"field": field, "rule": rule}


def _busy(problem: Busy) -> tuple[str, str, dict[str, Any]]:
    code, default = _BUSY[problem.reason]
    return code, "", {} if default is None else {"retry_after": _seconds(problem.retry_after, default)}


def _upstream(problem: Upstream) -> tuple[str, str, dict[str, Any]]:
    more: dict[str, Any] = {"reason": problem.reason}
    if problem.retry_after is not None:
        more["retry_after"] = _seconds(problem.retry_after, 1)
    return _UPSTREAM.get(problem.reason, "upstream"), "", more


def _seconds(wait: float | None, default: int) -> int:
    return max(1, math.ceil(default if wait is None else wait))


def curl(sample: CurlSample) -> str:
    return f"""curl -N '{sample.base_url}{ROOT}/messages' \\
  -H 'Authorization: Bearer {sample.secret}' \\
  -H 'X-User-ID: me' \\
  -H 'Content-Type: application/json' \\
  -H 'Accept: text/event-stream' \\
  -d '{{"agent": "{sample.agent_uid}", "content": "How do I configure a model?"}}'"""
