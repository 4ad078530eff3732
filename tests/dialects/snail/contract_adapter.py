"""What the contract of all dialects has to know of this one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from dialects.snail.client import frames
from support.contract import ContractAdapter, Form, Heard

from palaver.dialects.snail.stream import SnailNdjsonEncoder, SnailSseEncoder

_RUN = UUID("5c0d7f5e-7a40-4b0e-8d0a-3b6a1f2e9c11")


def _lines(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write in writes:
        assert write.endswith(b"\n")
        assert write.count(b"\n") == 1, "one line, one write"
        heard.append(_said(json.loads(write)))
    return heard


def _frames(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write in writes:
        ((name, data),) = frames(write)
        heard.append(_said({"type": name, **data}))
    return heard


def _said(event: dict[str, str]) -> Heard:
    match event:
        case {"type": "thinking", "content": content}:
            return Heard(thinking=content)
        case {"type": "text", "content": content}:
            return Heard(text=content)
        case {"type": "done", "fullText": whole}:
            return Heard(whole=whole, last=True)
        case {"type": "error"}:
            return Heard(last=True, failure=True)
        case _:
            raise AssertionError(f"an event there should not be: {event}")


ADAPTER = ContractAdapter(
    forms=(
        Form(name="lines", encoder=lambda: SnailNdjsonEncoder("conv-abc123"), read=_lines),
        Form(name="frames", encoder=lambda: SnailSseEncoder("conv-abc123", _RUN), read=_frames),
    ),
    wrong_credentials=(
        {},
        {"Snail-Ai-Auth": "SAI_00000000000000000000000000000000"},
        {"Snail-Ai-Auth": "Bearer x"},
        {"Snail-Ai-App-Id": "app-1", "Snail-Ai-Token": "SAI_" + "0" * 32},
        {"Snail-Ai-Auth": "eyJhbGciOiJub25lIn0.eyJhcHBJZCI6ImFwcC0xIiwiZXhwIjo0MTAyNDQ0ODAwfQ."},
    ),
)
