"""Turns endpoints' error responses, in their many shapes, into ``Upstream``."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec

from palaver.core.problems import Upstream

SHOWN = 300
"""Characters of an endpoint's message that a problem carries."""

_MESSAGE_MEMBERS = (
    *("error", "message", "detail", "errors", "msg", "error_msg", "error_message", "errmsg", "errorMessage"),
    *("status_msg", "base_resp", "reason", "title", "error_description"),
)
"""Members that hold an error's message, or an object that does."""
_CODES = ("code", "error_code", "errorCode", "errcode", "err_code", "status_code", "statusCode")
_SUCCESS_CODES = frozenset(("", "0", "200", "201", "ok", "success", "succeeded", "successful", "true", "none"))
_MARKUP = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<[^>]*>")
_SHORTEST_KEY = 8
"""Shorter keys are not redacted: local servers get keys like "x" or "EMPTY", not secret but part of many words."""
_SECRET = re.compile(r"\bsk-[A-Za-z0-9_*.\-]{6,}")


def upstream_problem(
    status: int, headers: Mapping[str, str], body: bytes, *, phrase: str = "", key: str | None = None
) -> Upstream:
    """The problem for a response with ``status``. ``headers`` are looked up in the case written here, ``phrase``
    replaces an empty body, ``key`` is redacted."""
    message = error_message(body, key)
    if 300 <= status < 400:
        message = f"redirected to {headers.get('Location', '?')!r}: OPENAI_BASE_URL must name the address itself"
    detail = f"HTTP {status}: {message or phrase or 'no reason given'}"
    if status == 429:
        return Upstream(reason="limit", status=status, detail=detail, retry_after=retry_after(headers))
    reason = "refused" if status >= 500 else "rejected"
    return Upstream(reason=reason, status=status, detail=detail, retry_after=retry_after(headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``Retry-After-Ms`` or ``Retry-After`` (seconds or a date); ``None`` without either."""
    for name, unit in (("Retry-After-Ms", 1000.0), ("Retry-After", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers.get("Retry-After", "")).timestamp() - time.time())
    except ValueError:
        return None


def error_message(body: bytes, key: str | None = None) -> str:
    """The message in an error's body: a JSON member that holds one, else the text, without markup and ``key``."""
    text = body.decode("utf-8", "replace")
    try:
        message = find_message(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = ""
    if not message and "<" in text:
        text = html.unescape(_MARKUP.sub(" ", text))
    # Redact before truncating: half a key is still a secret.
    return excerpt(redact_secrets(message or text, key))


def find_message(value: Any, depth: int = 4) -> str:
    """The message inside an error as JSON: ``{"error": {"message", "code"}}`` and its many variants."""
    if isinstance(value, str):
        return value
    if not depth or not isinstance(value, dict | list) or not value:
        return ""
    if isinstance(value, list):
        return find_message(cast("list[Any]", value)[0], depth - 1)
    error = cast("dict[str, Any]", value)
    for name in _MESSAGE_MEMBERS:
        if message := find_message(error.get(name), depth - 1):
            codes = [code for code in (error.get("code"), error.get("type")) if code and isinstance(code, str)]
            return f"{message} ({codes[0]})" if name == "message" and codes else message
    return ""


def failure_message(value: Any, *, complete: bool = False) -> str:
    """The message of an object that came instead of a chunk and reports a failure; empty otherwise. ``complete``: the
    answer has ended, so a message alone is not a failure."""
    if not isinstance(value, dict):
        return ""
    error = cast("dict[str, Any]", value)
    if _has_error_code(error.get("base_resp")):
        error = error["base_resp"]
    elif not (_reports_failure(error) or _has_error_code(error)):
        succeeded = any(name in error for name in _CODES)
        if complete or succeeded or not any(error.get(name) for name in ("detail", "message", "msg")):
            return ""
    return find_message(error) or str(error)


def _reports_failure(error: dict[str, Any]) -> bool:
    if any(error.get(name) for name in ("error", "errors", "error_msg", "error_message")):
        return True
    status = error.get("status")
    wrong = status in ("error", "failed") if isinstance(status, str) else isinstance(status, int) and status >= 400
    return wrong or error.get("success") is False or "error" in (error.get("object"), error.get("type"))


def _has_error_code(value: Any) -> bool:
    """Whether ``value`` has a code that does not mean success."""
    codes = [cast("dict[str, Any]", value).get(name) for name in _CODES] if isinstance(value, dict) else []
    return any(
        isinstance(code, str | int) and not isinstance(code, bool) and str(code).strip().lower() not in _SUCCESS_CODES
        for code in codes
    )


def excerpt(text: str) -> str:
    """The beginning of ``text`` on one line."""
    line = " ".join(text[: 20 * SHOWN].split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def redact_secrets(text: str, key: str | None) -> str:
    """``text`` without ``key`` or anything that looks like a key: endpoints often repeat the key they reject."""
    if key and len(key) >= _SHORTEST_KEY:
        text = text.replace(key, "…")
    return _SECRET.sub("sk-…", text)
