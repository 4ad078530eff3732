"""What an endpoint says when it does not answer: bodies of many shapes made into one ``Upstream``."""

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
"""Characters of an endpoint's words that a problem carries."""

_SENTENCES = (
    *("error", "message", "detail", "errors", "msg", "error_msg", "error_message", "errmsg", "errorMessage"),
    *("status_msg", "base_resp", "reason", "title", "error_description"),
)
"""Members that hold an error's words, or an object that does."""
_CODES = ("code", "error_code", "errorCode", "errcode", "err_code", "status_code", "statusCode")
_FINE = frozenset(("", "0", "200", "201", "ok", "success", "succeeded", "successful", "true", "none"))
_MARKUP = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<[^>]*>")
_SHORTEST_KEY = 8
"""Servers of one's own are given keys like "x" or "EMPTY", which are no secret but may be part of any word."""
_SECRET = re.compile(r"\bsk-[A-Za-z0-9_*.\-]{6,}")


def upstream_problem(
    status: int, headers: Mapping[str, str], body: bytes, *, phrase: str = "", key: str | None = None
) -> Upstream:
    """The problem that an answer with ``status`` is. ``headers`` are looked up in the case written here, ``phrase``
    stands in for an empty body, ``key`` is not repeated."""
    said = error_message(body, key)
    if 300 <= status < 400:
        said = f"redirected to {headers.get('Location', '?')!r}: OPENAI_BASE_URL must name the address itself"
    detail = f"HTTP {status}: {said or phrase or 'no reason given'}"
    if status == 429:
        return Upstream(reason="limit", status=status, detail=detail, retry_after=retry_after(headers))
    reason = "refused" if status >= 500 else "rejected"
    return Upstream(reason=reason, status=status, detail=detail, retry_after=retry_after(headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``Retry-After-Ms`` or ``Retry-After`` (seconds or a date); ``None`` when not told."""
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
    """The sentence in an error's body: a JSON member that holds one, else the text, without markup and ``key``."""
    text = body.decode("utf-8", "replace")
    try:
        said = sentence(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = ""
    if not said and "<" in text:
        text = html.unescape(_MARKUP.sub(" ", text))
    # Before it is cut: half a key is a secret still.
    return excerpt(redact_secrets(said or text, key))


def sentence(value: Any, depth: int = 4) -> str:
    """The message inside an error as JSON: ``{"error": {"message", "code"}}`` and its many relatives."""
    if isinstance(value, str):
        return value
    if not depth or not isinstance(value, dict | list) or not value:
        return ""
    if isinstance(value, list):
        return sentence(cast("list[Any]", value)[0], depth - 1)
    error = cast("dict[str, Any]", value)
    for name in _SENTENCES:
        if said := sentence(error.get(name), depth - 1):
            codes = [code for code in (error.get("code"), error.get("type")) if code and isinstance(code, str)]
            return f"{said} ({codes[0]})" if name == "message" and codes else said
    return ""


def failure(value: Any, *, complete: bool = False) -> str:
    """The words of an object that came in place of a piece of an answer, where it says that something has failed;
    else nothing. ``complete``: the answer has ended, so that a mere message is none of its failure."""
    if not isinstance(value, dict):
        return ""
    said = cast("dict[str, Any]", value)
    if _bad(said.get("base_resp")):
        said = said["base_resp"]
    elif not (_failed(said) or _bad(said)):
        succeeded = any(name in said for name in _CODES)
        if complete or succeeded or not any(said.get(name) for name in ("detail", "message", "msg")):
            return ""
    return sentence(said) or str(said)


def _failed(said: dict[str, Any]) -> bool:
    if any(said.get(name) for name in ("error", "errors", "error_msg", "error_message")):
        return True
    status = said.get("status")
    wrong = status in ("error", "failed") if isinstance(status, str) else isinstance(status, int) and status >= 400
    return wrong or said.get("success") is False or "error" in (said.get("object"), said.get("type"))


def _bad(value: Any) -> bool:
    """Whether ``value`` has a code, and not one of success."""
    codes = [cast("dict[str, Any]", value).get(name) for name in _CODES] if isinstance(value, dict) else []
    return any(
        isinstance(code, str | int) and not isinstance(code, bool) and str(code).strip().lower() not in _FINE
        for code in codes
    )


def excerpt(text: str) -> str:
    """The beginning of ``text`` on one line."""
    line = " ".join(text[: 20 * SHOWN].split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def redact_secrets(text: str, key: str | None) -> str:
    """``text`` without ``key``, nor what looks like one: endpoints like to repeat the key they refuse."""
    if key and len(key) >= _SHORTEST_KEY:
        text = text.replace(key, "…")
    return _SECRET.sub("sk-…", text)
