"""What the contract of all dialects has to know of this one."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from dialects.sonaops.client import frames
from support.contract import ContractAdapter, Form, Heard

from palaver.dialects.sonaops.stream import SonaopsEncoder

_CONVERSATION = UUID("a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d")
_RUN = UUID("0b9f8e7d6c5b4a3f92e1d0c9b8a79685")


def _frames(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write in writes:
        ((name, data),) = frames(write)
        match name:
            case "thinking":
                heard.append(Heard(thinking=data["thought"]))
            case "message":
                heard.append(Heard(text=data["answer"]))
            case "message_end":
                heard.append(Heard())
            case "message_saved":
                heard.append(Heard(last=True))
            case "error":
                heard.append(Heard(last=True, failure=True))
            case _:
                raise AssertionError(f"an event there should not be: {name}")
    return heard


ADAPTER = ContractAdapter(
    forms=(Form(name="frames", encoder=lambda: SonaopsEncoder(_CONVERSATION, _RUN), read=_frames),),
    wrong_credentials=(
        {},
        {"Authorization": "Bearer nobody"},
        {"Authorization": "Basic bm9ib2R5Og=="},
        {"Authorization": "Bearer nobody", "X-Signature": "0" * 64},
    ),
)
