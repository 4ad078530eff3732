"""What the contract of all dialects has to know of this one."""

from __future__ import annotations

from collections.abc import Sequence

from dialects.native.client import Frame, frames
from support.contract import ContractAdapter, Form, Heard

from palaver.dialects.native.responses import (
    AnswerResponse,
    ConversationRef,
    QuestionResponse,
    StepCounts,
    TurnResponse,
    UsageResponse,
)
from palaver.dialects.native.stream import NativeEncoder

_UID = "01990000000070008000000000000000"
_QUESTION = QuestionResponse(id=1, uid=_UID, conversation=_UID, created="2026-01-01T00:00:00.000Z", text="hi", parts=())
_ANSWER = AnswerResponse(
    id=2,
    uid=_UID,
    conversation=_UID,
    created="2026-01-01T00:00:00.000Z",
    text="",
    parts=(),
    status="waiting",
    reason=None,
    problem=None,
    usage=UsageResponse(),
    steps=StepCounts(begun=0, done=0),
    position=0,
    cursor=0,
    ended=None,
)
_SENT = TurnResponse(conversation=ConversationRef(id=1, uid=_UID), question=_QUESTION, answer=_ANSWER)


def _read(writes: Sequence[bytes]) -> list[Heard]:
    found: list[Heard] = []
    kind = "text"
    for frame in frames(writes):
        kind = frame.data["type"] if frame.name == "part.started" else kind
        found.append(_said(frame, kind))
    return found


def _said(frame: Frame, kind: str) -> Heard:
    match frame.name:
        case "text.delta" if kind == "thinking":
            return Heard(thinking=frame.data["text"])
        case "text.delta":
            return Heard(text=frame.data["text"])
        case "run.ended":
            return Heard(last=True, failure=frame.data["status"] in {"failed", "interrupted"})
        case _:
            assert frame.name in {"run.created", "part.started", "part.added"}
            return Heard()


ADAPTER = ContractAdapter(
    forms=(
        Form(name="a message sent", encoder=lambda: NativeEncoder(0, _SENT), read=_read),
        Form(name="a run followed", encoder=lambda: NativeEncoder(0), read=_read),
    ),
    wrong_credentials=(
        {},
        {"Authorization": "Bearer pv-00000000000000000000000000000000"},
        {"Authorization": "pv-00000000000000000000000000000000", "X-User-ID": "ann"},
        {"Authorization": "Basic eDp5"},
        {"X-User-ID": "ann"},
    ),
)
