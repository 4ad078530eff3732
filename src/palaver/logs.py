"""Structured logs on standard error: lines of JSON, or for people where they look at them."""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from palaver.config import Settings
from palaver.core.redaction import HIDDEN, redact_text
from palaver.http.uvicorn_server import UvicornNoiseFilter

MAX_TEXT = 8192
"""Characters of one text in a line. The rest may be a caller's, and as long as he likes."""


def configure_logs(settings: Settings) -> None:
    people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render = _for_people() if people else _for_programs()
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
    handler.addFilter(UvicornNoiseFilter())
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


def _for_people() -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )
    return [structlog.processors.format_exc_info, redact, request_first, renderer]


def _for_programs() -> list[Processor]:
    # Without the frames' variables: they hold keys, secrets and what people say.
    transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    tracebacks = structlog.processors.ExceptionRenderer(transformer)
    return [tracebacks, redact, structlog.processors.JSONRenderer(ensure_ascii=False)]


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Every text of the line without addresses and secrets that open anything, wherever it comes from."""
    return cast("EventDict", _redacted(event))


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact_text(value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + HIDDEN)
        case dict():
            return {name: _redacted(member) for name, member in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_redacted(member) for member in cast("list[Any]", value)]
        case BaseException():
            return _redacted(repr(value))
        case _:
            return value


def request_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The line of a request begins with what one looks for: method, path, status, milliseconds."""
    if event.get("event") != "request":
        return event
    kept = dict(event)
    first = " ".join(str(kept.pop(name, "")) for name in ("method", "path", "status", "ms"))
    return {**kept, "event": f"{first} ms"}
