"""Error messages for the terminal: the cause, and what to do."""

from __future__ import annotations

import errno
import socket
from typing import assert_never, cast

from palaver.config import Settings
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

_LISTS = {
    "agent": "palaver agent list",
    "application": "palaver app list",
    "key": "palaver key list",
    "knowledge": "palaver knowledge list",
}


def describe_problem(problem: Problem) -> str:
    known = cast("AnyProblem", problem)
    match known:
        case NotFound(noun=noun, ref=ref):
            hint = f"; run {_LISTS[noun]!r} to see what exists" if noun in _LISTS else ""
            return f"there is no {'knowledge base' if noun == 'knowledge' else noun} {ref!r}{hint}"
        case Invalid(field=field, rule=rule, detail=detail):
            return f"{field}: {detail or rule}"
        case Conflict(reason=reason, detail=detail):
            return detail or f"conflicts with an existing entry ({reason})"
        case Busy(reason="full"):
            return "the quota of stored rows is used up; the log says which"
        case Busy(reason=reason):
            return f"busy ({reason}): try again in a moment"
        case Upstream(reason=reason, detail=detail):
            return f"the model failed ({reason}): {detail or 'no reason given'}; run 'palaver doctor' for details"
        case Internal(reason="database", detail=detail):
            return f"the database: {detail}; run 'palaver doctor' for details"
        case Internal(reason="timeout", detail=detail):
            return f"this took too long: {detail}; the limit is the setting run_timeout_s"
        case Internal(reason=reason, detail=detail):
            return detail or reason
        case Unauthenticated(reason=reason):
            return f"not authorized ({reason})"
        case Forbidden(reason=reason):
            return f"not allowed: {reason}"
        case _:
            assert_never(known)


def system_error(error: OSError) -> str:
    """The message of a failed system call, with the file concerned."""
    message = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {message}" if error.filename else message


def cannot_listen(error: OSError, settings: Settings) -> str | None:
    """Why the server cannot listen on its address; ``None`` if ``error`` has another cause."""
    place = f"{settings.host}:{settings.port}"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{settings.host!r} is not an address of this machine: change it with --host or PALAVER_HOST"
    if error.filename is not None:
        return None
    if error.errno == errno.EADDRINUSE:
        return f"port {settings.port} of {settings.host} is in use: choose another port with --port or PALAVER_PORT"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"this user may not listen on {place}: choose a port of 1024 or above with --port or PALAVER_PORT"
    return None
