"""Encodes a run's events as NDJSON or server-sent events.

Source: wire specification ``snail.md``, sections 4.2 and 6.
"""

from __future__ import annotations

from typing import assert_never
from uuid import UUID

from palaver.core.events import Event, PartAdded, PartFinished, PartStarted, TextDelta
from palaver.core.types import RunEnded, Text
from palaver.dialects.snail.errors import error_event, error_line
from palaver.wire.framing import EscapedText, ascii_json, ascii_text, ndjson_line, split_writes, sse


class SnailNdjsonEncoder:
    """Surface A: one JSON object per line. A failed run's stream is aborted after its ``error`` line, because the
    documented clients notice only that."""

    heartbeat = b"\n"
    aborts_on_failure = True
    always_heartbeat = False
    flush_at: float | None = None

    def __init__(self, conversation: str) -> None:
        self._conversation = conversation
        self._kind = b"text"
        self._answer = EscapedText()

    def encode(self, event: Event, now: float) -> list[bytes]:  # noqa: ARG002  events have no time
        match event:
            case TextDelta(text=text):
                content = self._answer.add(text) if self._kind == b"text" else ascii_text(text).encode()
                return [b'{"type":"%s","content":%s}\n' % (self._kind, content)]
            case PartStarted(part=part):
                self._kind = b"text" if isinstance(part, Text) else b"thinking"
                return []
            case PartAdded() | PartFinished():
                return []
            case RunEnded(status=status):
                if status.failed:
                    return [ndjson_line(error_line())]
                head = b'{"type":"done","conversationId":%s,"fullText":"' % ascii_text(self._conversation).encode()
                return split_writes(head, self._answer, b'"}\n')
            case _:
                assert_never(event)

    def flush(self, now: float) -> list[bytes]:  # noqa: ARG002
        return []


class SnailSseEncoder:
    """Surface B: named server-sent events. A failed run's stream ends normally."""

    heartbeat = b": ping\n\n"
    aborts_on_failure = False
    always_heartbeat = False
    flush_at: float | None = None

    def __init__(self, conversation: str, sid: UUID | str) -> None:
        self._conversation = conversation
        self._sid = ascii_text(str(sid)).encode()
        self._kind = "text"
        self._blank = ""
        self._answer = EscapedText()

    def encode(self, event: Event, now: float) -> list[bytes]:  # noqa: ARG002  events have no time
        match event:
            case TextDelta(text=text):
                return self._delta(text)
            case PartStarted(part=part):
                self._kind = "text" if isinstance(part, Text) else "thinking"
                self._blank = ""
                return []
            case PartAdded() | PartFinished():
                return []
            case RunEnded(status=status):
                if status.failed:
                    return [sse("error", ascii_json(error_event()))]
                data = b'{"conversationId":%s,"fullText":"' % ascii_text(self._conversation).encode()
                return split_writes(b"event:done\ndata:" + data, self._answer, b'"}\n\n')
            case _:
                assert_never(event)

    def flush(self, now: float) -> list[bytes]:  # noqa: ARG002
        return []

    def _delta(self, text: str) -> list[bytes]:
        if self._kind == "text":
            content = self._answer.add(text)
        else:  # a thinking delta must not be blank: trailing white space is held back until more text follows
            text = self._blank + text
            visible = text.rstrip()
            self._blank, text = text[len(visible) :], visible
            if not text:
                return []
            content = ascii_text(text).encode()
        kind = self._kind.encode()
        data = b'{"type":"%s","sid":%s,"content":%s}' % (kind, self._sid, content)
        return [sse(self._kind, data)]
