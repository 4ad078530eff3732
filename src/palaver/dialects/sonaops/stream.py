"""Encodes a run's events as the vendor's stream. Source: wire specification ``sonaops.md``, section 6."""

from __future__ import annotations

from typing import assert_never
from uuid import UUID

from palaver.core.events import Event, PartAdded, PartFinished, PartStarted, TextDelta
from palaver.core.types import RunEnded, Status, Text
from palaver.dialects.sonaops.errors import run_failure
from palaver.wire.framing import ascii_json, ascii_text


class SonaopsEncoder:
    """Server-sent events with their name in both the ``event`` line and the data."""

    heartbeat = b": ping\n\n"
    aborts_on_failure = False
    always_heartbeat = False
    flush_at: float | None = None

    def __init__(self, conversation: UUID, message: UUID) -> None:
        self._conversation = conversation.hex
        self._message = message.hex
        self._thinks = False

    def encode(self, event: Event, now: float) -> list[bytes]:  # noqa: ARG002  no event here has a timestamp
        match event:
            case TextDelta(text=text):
                return [self._delta(text)] if text else []
            case PartStarted(part=part):
                self._thinks = not isinstance(part, Text)
                return []
            case PartAdded() | PartFinished():
                return []
            case RunEnded():
                return self._ended(event)
            case _:
                assert_never(event)

    def flush(self, now: float) -> list[bytes]:  # noqa: ARG002
        return []

    def _delta(self, text: str) -> bytes:
        name, member = (b"thinking", b"thought") if self._thinks else (b"message", b"answer")
        return b'event: %s\ndata: {"event":"%s","conversationId":"%s","%s":%s}\n\n' % (
            name,
            name,
            self._conversation.encode(),
            member,
            ascii_text(text).encode(),
        )

    def _ended(self, ended: RunEnded) -> list[bytes]:
        where = {"conversationId": self._conversation}
        if ended.status.failed:
            code, message = run_failure(ended.problem)
            return [_frame("error", {**where, "code": code, "message": message})]
        return [
            _frame("message_end", {**where, "finishReason": _reason(ended)}),
            _frame("message_saved", {"messageId": self._message, **where}),
        ]


def _frame(name: str, members: dict[str, str | int]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), ascii_json({"event": name, **members}))


def _reason(ended: RunEnded) -> str:
    if ended.status is Status.STOPPED:
        return "cancelled"
    return "length" if ended.reason == "length" else "stop"
