"""A run's events as the vendor's bytes. Source: wire specification ``xspace.md``, section 7."""

from __future__ import annotations

from typing import Any, assert_never
from uuid import UUID

from palaver.core.events import Event, PartAdded, PartStarted, TextDelta
from palaver.core.types import RunEnded, Status, Text, ToolCall, ToolResult
from palaver.dialects.xspace.errors import UNFORESEEN
from palaver.dialects.xspace.tool_steps import ToolStepTracker
from palaver.wire.framing import EscapedText, ascii_json, ascii_text, split_writes

_TEXT = b'"text":'
_WHOLE = b'"outputText":"'


class XSpaceEncoder:
    """One turn. Heartbeats come at their interval in any case: the vendor's client gives up after a minute of none."""

    aborts_on_failure = False
    always_heartbeat = True
    flush_at: float | None = None

    def __init__(self, run: UUID, started: int) -> None:
        """``started`` is when the turn was accepted, in epoch milliseconds."""
        self._run = run.hex
        self._started = started
        self._steps = ToolStepTracker()
        self._answer = EscapedText()
        self._frames = {kind: self._halves(kind) for kind in ("CHAT", "THINK")}
        self._kind = "CHAT"
        self.heartbeat = frame(self._run, "HEART_BEAT", None)

    def encode(self, event: Event, now: float) -> list[bytes]:  # noqa: ARG002  no event of this one has a time
        match event:
            case TextDelta(text=text):
                head, tail = self._frames[self._kind]
                written = self._answer.add(text) if self._kind == "CHAT" else ascii_text(text).encode()
                return [head + written + tail]
            case PartStarted(part=part):
                self._kind = "CHAT" if isinstance(part, Text) else "THINK"
                return []
            case PartAdded(part=ToolCall() as call):
                return [frame(self._run, "PROCESSING", self._steps.began(call))]
            case PartAdded(part=ToolResult() as result):
                return [frame(self._run, "PROCESSING", self._steps.ended(result))]
            case PartAdded():
                return []
            case RunEnded():
                return self._end(event)
            case _:
                assert_never(event)

    def flush(self, now: float) -> list[bytes]:  # noqa: ARG002
        return []

    def _halves(self, kind: str) -> tuple[bytes, bytes]:
        """What stands before and behind the text of a delta."""
        head, tail = frame(self._run, "MESSAGE", message(self._run, "", kind=kind)).split(_TEXT + b'""', 1)
        return head + _TEXT, tail

    def _end(self, ended: RunEnded) -> list[bytes]:
        failed = ended.status.failed
        last = fenced(UNFORESEEN) if failed and not self._answer else ""
        self._answer.add(last)
        data = message(self._run, last, finish=finish_reason(ended))
        totals: dict[str, Any] = {
            "success": not failed,
            "error": UNFORESEEN if failed else None,
            "startTime": self._started,
            "endTime": ended.at,
            "completionTokens": ended.usage.completion,
            "promptTokens": ended.usage.prompt,
            "totalTokens": _total(ended),
            "outputText": "",
            "componentExecuteResults": [],
        }
        error = UNFORESEEN if failed else None
        final = frame(self._run, "FINAL_RESULT", totals, error=error, completed=True)
        head, tail = final.split(_WHOLE, 1)
        return [frame(self._run, "MESSAGE", data), *split_writes(head + _WHOLE, self._answer, tail)]


def finish_reason(ended: RunEnded) -> str:
    """The last message's ``finishReason``."""
    match ended.status:
        case Status.STOPPED:
            return "CANCEL"
        case Status.FAILED | Status.INTERRUPTED:
            return "ERROR"
        case Status.COMPLETE | Status.LIVE:
            return ended.reason
        case _:
            assert_never(ended.status)


def fenced(reason: str) -> str:
    """A failure as the answer shows it."""
    return f"```\n{reason}\n```"


def refusal(reason: str) -> tuple[bytes, bytes]:
    """The whole stream of a message that was not accepted, event by event."""
    totals: dict[str, Any] = {
        "success": False,
        "error": reason,
        "startTime": None,
        "endTime": None,
        "completionTokens": None,
        "promptTokens": None,
        "totalTokens": None,
        "outputText": None,
        "componentExecuteResults": [],
    }
    text_frame = frame(None, "MESSAGE", message(None, reason, finish="ERROR"))
    return text_frame, frame(None, "FINAL_RESULT", totals, error=reason, completed=True)


def frame(run: str | None, kind: str, data: Any, *, error: str | None = None, completed: bool = False) -> bytes:
    event = {"requestId": run, "eventType": kind, "error": error, "data": data, "completed": completed}
    return b"data:%s\n\n" % ascii_json(event)


def message(run: str | None, text: str, *, kind: str = "CHAT", finish: str | None = None) -> dict[str, Any]:
    """The data of a ``MESSAGE``; with ``finish`` the last one."""
    return {
        "index": None,
        "tenantId": None,
        "senderType": None,
        "senderId": None,
        "userId": None,
        "agentId": None,
        "id": run,
        "role": "ASSISTANT",
        "type": kind,
        "text": text,
        "time": None,
        "attachments": None,
        "think": None,
        "quotedText": None,
        "finished": finish is not None,
        "finishReason": finish,
        "componentExecutedList": None,
        "ext": None,
        "executeId": None,
        "metadata": None,
        "messageType": "ASSISTANT",
    }


def _total(ended: RunEnded) -> int | None:
    prompt, completion = ended.usage.prompt, ended.usage.completion
    return None if prompt is None or completion is None else prompt + completion
