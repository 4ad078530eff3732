"""A run's events as server-sent events, each with the cursor after it.

Source: ``docs/native.md``, section 7.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from palaver.core.events import Event, PartAdded, PartFinished, PartStarted, TextDelta
from palaver.core.types import RunEnded, Text
from palaver.dialects.native.responses import TurnResponse, part_response, run_end_response
from palaver.wire.framing import ascii_json, ascii_text

RETRY = b"retry: 1000\n"
"""Milliseconds before an EventSource reconnects; sent once, with the first event."""


class NativeEncoder:
    """One reader's stream from ``cursor``. The stream of a new message begins with ``run.created``, which identifies
    the run while it is still queued."""

    heartbeat = b": alive\n\n"
    aborts_on_failure = False
    always_heartbeat = False

    def __init__(self, cursor: int, sent: TurnResponse | None = None) -> None:
        self._cursor = cursor
        self._sent = sent
        self._head = RETRY
        self.flush_at: float | None = None if sent is None else 0.0

    def encode(self, event: Event, now: float) -> list[bytes]:
        held = self.flush(now)
        match event:
            case TextDelta(text=text):
                self._cursor += len(text)
                return [*held, self._frame(b"text.delta", b'{"text":%s}' % ascii_text(text).encode())]
            case PartStarted(part=part):
                self._cursor += 1
                return [*held, self._frame(b"part.started", _OPENED[isinstance(part, Text)])]
            case PartFinished():
                self._cursor += 1
                return held
            case PartAdded(part=part):
                self._cursor += 1
                return [*held, self._frame(b"part.added", _json({"part": part_response(part)}))]
            case RunEnded():
                self._cursor += 1
                return [*held, self._frame(b"run.ended", _json(run_end_response(event)))]
            case _:
                assert_never(event)

    def flush(self, now: float) -> list[bytes]:  # noqa: ARG002  the buffered event has no timestamp
        if self._sent is None:
            return []
        data, self._sent, self.flush_at = self._sent, None, None
        return [self._frame(b"run.created", _json(data))]

    def _frame(self, name: bytes, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return b"%sid: %d\nevent: %s\ndata: %s\n\n" % (head, self._cursor, name, data)


_OPENED = {True: b'{"type":"text"}', False: b'{"type":"thinking"}'}


def _json(value: Any) -> bytes:
    """``value`` as ASCII JSON; only builtin values can be encoded with the lone surrogates of model output."""
    return ascii_json(msgspec.to_builtins(value))
