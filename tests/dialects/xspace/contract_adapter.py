"""Adapts the tests common to all dialects."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from dialects.xspace.client import Event, frames
from support.contract import ContractAdapter, Form, Heard

from palaver.dialects.xspace.stream import XSpaceEncoder

_RUN = UUID("5b1f0a9c-3d7e-4c21-a6b8-f0e1d2c3b4a5")


def _read(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write in writes:
        (event,) = frames(write)
        assert event["requestId"] == _RUN.hex
        heard.append(_heard(event))
    return heard


def _heard(event: Event) -> Heard:
    match event:
        case {"eventType": "MESSAGE", "data": {"type": "CHAT", "text": text}}:
            return Heard(text=text)
        case {"eventType": "MESSAGE", "data": {"type": "THINK", "text": text}}:
            return Heard(thinking=text)
        case {"eventType": "PROCESSING", "data": {"result": {"executeId": step}}}:
            assert step
            return Heard()
        case {"eventType": "FINAL_RESULT", "error": error, "data": {"outputText": whole}, "completed": True}:
            return Heard(whole=whole, last=True, failure=error is not None)
        case _:
            raise AssertionError(f"an event there should not be: {event}")


ADAPTER = ContractAdapter(
    forms=(Form(name="frames", encoder=lambda: XSpaceEncoder(_RUN, 1_776_085_640_000), read=_read),),
    wrong_credentials=(
        {},
        {"Authorization": "Bearer ak-00000000000000000000000000000000"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer ck-1"},
    ),
)
