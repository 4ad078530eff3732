"""Encodes a run's events as server-sent events. Source: wire specification ``xspace.md``, section 7."""

from __future__ import annotations

from typing import Literal, assert_never
from uuid import UUID

import msgspec

from palaver.core.events import Event, PartAdded, PartFinished, PartStarted, TextDelta
from palaver.core.types import RunEnded, Status, Text, ToolCall, ToolResult
from palaver.dialects.xspace.errors import UNFORESEEN
from palaver.dialects.xspace.tool_steps import ToolStep, ToolStepTracker
from palaver.wire.framing import EscapedText, ascii_json, ascii_text, split_writes

_TEXT = b'"text":'
_OUTPUT_TEXT = b'"outputText":"'


class StreamMessage(msgspec.Struct, kw_only=True, rename="camel"):
    """The data of a ``MESSAGE``: a delta of the answer or the thinking."""

    index: None = None
    tenant_id: None = None
    sender_type: None = None
    sender_id: None = None
    user_id: None = None
    agent_id: None = None
    id: str | None
    role: Literal["ASSISTANT"] = "ASSISTANT"
    type: Literal["CHAT", "THINK"] = "CHAT"
    text: str
    time: None = None
    attachments: None = None
    think: None = None
    quoted_text: None = None
    finished: bool = False
    finish_reason: str | None = None
    component_executed_list: None = None
    ext: None = None
    execute_id: None = None
    metadata: None = None
    message_type: Literal["ASSISTANT"] = "ASSISTANT"


class FinalResult(msgspec.Struct, kw_only=True, rename="camel"):
    """The data of ``FINAL_RESULT``. Times are in epoch milliseconds."""

    success: bool
    error: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    total_tokens: int | None = None
    output_text: str | None = None
    component_execute_results: tuple[()] = ()


class StreamEvent(msgspec.Struct, kw_only=True, rename="camel"):
    """The data of a server-sent event."""

    request_id: str | None
    event_type: Literal["MESSAGE", "PROCESSING", "HEART_BEAT", "FINAL_RESULT"]
    error: str | None = None
    data: StreamMessage | ToolStep | FinalResult | None = None
    completed: bool = False


class XSpaceEncoder:
    """Encodes one turn. Heartbeats are always sent: the vendor's client gives up after a minute without one."""

    aborts_on_failure = False
    always_heartbeat = True
    flush_at: float | None = None

    def __init__(self, run_uid: UUID, started: int) -> None:
        """``started`` is when the message was accepted, in epoch milliseconds."""
        self._run = run_uid.hex
        self._started = started
        self._steps = ToolStepTracker()
        self._answer = EscapedText()
        self._chat = self._split_frame("CHAT")
        self._think = self._split_frame("THINK")
        self._thinking = False
        self.heartbeat = encode_event(StreamEvent(request_id=self._run, event_type="HEART_BEAT"))

    def encode(self, event: Event, now: float) -> list[bytes]:  # noqa: ARG002  no event depends on the time
        match event:
            case TextDelta(text=text):
                head, tail = self._think if self._thinking else self._chat
                quoted = ascii_text(text).encode() if self._thinking else self._answer.add(text)
                return [head + quoted + tail]
            case PartStarted(part=part):
                self._thinking = not isinstance(part, Text)
                return []
            case PartAdded(part=ToolCall() as call):
                return [self._processing(self._steps.start(call))]
            case PartAdded(part=ToolResult() as result):
                return [self._processing(self._steps.finish(result))]
            case PartAdded() | PartFinished():
                return []
            case RunEnded():
                return self._end(event)
            case _:
                assert_never(event)

    def flush(self, now: float) -> list[bytes]:  # noqa: ARG002
        return []

    def _split_frame(self, kind: Literal["CHAT", "THINK"]) -> tuple[bytes, bytes]:
        """The frame of a delta, before and after its text."""
        message = StreamMessage(id=self._run, type=kind, text="")
        frame = encode_event(StreamEvent(request_id=self._run, event_type="MESSAGE", data=message))
        head, tail = frame.split(_TEXT + b'""', 1)
        return head + _TEXT, tail

    def _processing(self, step: ToolStep) -> bytes:
        return encode_event(StreamEvent(request_id=self._run, event_type="PROCESSING", data=step))

    def _end(self, ended: RunEnded) -> list[bytes]:
        failed = ended.status.failed
        error = UNFORESEEN if failed else None
        text = code_block(UNFORESEEN) if failed and not self._answer else ""
        self._answer.add(text)
        message = StreamMessage(id=self._run, text=text, finished=True, finish_reason=finish_reason(ended))
        last = encode_event(StreamEvent(request_id=self._run, event_type="MESSAGE", data=message))
        result = FinalResult(
            success=not failed,
            error=error,
            start_time=self._started,
            end_time=ended.at,
            completion_tokens=ended.usage.completion,
            prompt_tokens=ended.usage.prompt,
            total_tokens=_total(ended),
            output_text="",
        )
        final = encode_event(
            StreamEvent(request_id=self._run, event_type="FINAL_RESULT", error=error, data=result, completed=True)
        )
        head, tail = final.split(_OUTPUT_TEXT, 1)
        return [last, *split_writes(head + _OUTPUT_TEXT, self._answer, tail)]


def finish_reason(ended: RunEnded) -> str:
    """The ``finishReason`` of the last message."""
    match ended.status:
        case Status.STOPPED:
            return "CANCEL"
        case Status.FAILED | Status.INTERRUPTED:
            return "ERROR"
        case Status.COMPLETE | Status.LIVE:
            return ended.reason
        case _:
            assert_never(ended.status)


def code_block(reason: str) -> str:
    """An error as it appears in the answer's text."""
    return f"```\n{reason}\n```"


def rejection(reason: str) -> tuple[bytes, bytes]:
    """The events of the stream of a message that is not accepted."""
    message = StreamMessage(id=None, text=reason, finished=True, finish_reason="ERROR")
    result = FinalResult(success=False, error=reason)
    return (
        encode_event(StreamEvent(request_id=None, event_type="MESSAGE", data=message)),
        encode_event(
            StreamEvent(request_id=None, event_type="FINAL_RESULT", error=reason, data=result, completed=True)
        ),
    )


def encode_event(event: StreamEvent) -> bytes:
    """The event in ASCII. A model's text may contain lone surrogates, which only plain values can be encoded with."""
    return b"data:%s\n\n" % ascii_json(msgspec.to_builtins(event))


def _total(ended: RunEnded) -> int | None:
    prompt, completion = ended.usage.prompt, ended.usage.completion
    return None if prompt is None or completion is None else prompt + completion
