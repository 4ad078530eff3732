"""Structured logs on standard error: JSON lines, or human-readable on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from palaver.config import Settings
from palaver.core.redaction import HIDDEN, redact_text
from palaver.http.uvicorn_server import ExpectedErrorFilter

MAX_TEXT_CHARS = 8192
"""Maximum length of one string in a log line, in characters: callers determine the length of some."""


def configure_logs(settings: Settings) -> None:
    """Configure structlog, and the standard library's logging through it."""
    human_readable = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render = _console_processors() if human_readable else _json_processors()
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    handler.addFilter(ExpectedErrorFilter())
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


def _console_processors() -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )
    return [structlog.processors.format_exc_info, redact, summarize_request, renderer]


def _json_processors() -> list[Processor]:
    # Without the frames' variables: they contain secrets and messages.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    tracebacks = structlog.processors.ExceptionRenderer(transformer)
    return [tracebacks, redact, structlog.processors.JSONRenderer(ensure_ascii=False)]


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: removes capability URLs and secrets from every string of the line."""
    return cast("EventDict", _redact(event))


def _redact(value: Any) -> Any:
    match value:
        case str():
            return redact_text(value if len(value) <= MAX_TEXT_CHARS else value[:MAX_TEXT_CHARS] + HIDDEN)
        case dict():
            return {name: _redact(member) for name, member in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_redact(member) for member in cast("list[Any]", value)]
        case BaseException():
            return _redact(repr(value))
        case _:
            return value


def summarize_request(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: begins the line of a request with method, path, status and milliseconds."""
    if event.get("event") != "request":
        return event
    rest = dict(event)
    summary = " ".join(str(rest.pop(name, "")) for name in ("method", "path", "status", "ms"))
    return {**rest, "event": f"{summary} ms"}
