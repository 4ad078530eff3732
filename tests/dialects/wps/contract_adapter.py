"""What the contract of all dialects has to know of this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dialects.wps.client import spoken
from dialects.wps.examples import encoder
from support.contract import ContractAdapter, Heard
from support.contract import Form as ContractForm

from palaver.dialects.wps.stream import WpsEncoder, WpsStreamOptions


def _heard(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write, event in zip(writes, spoken(writes), strict=True):
        assert write.endswith(b"\n\n")
        match event:
            case {"event": "token", "data": {"chunk": chunk}}:
                heard.append(Heard(text=chunk))
            case {"event": "add_message", "data": {"text": text, "properties": {"state": "complete", "icon": "Bot"}}}:
                heard.append(Heard(whole=text))
            case {"event": "end_vertex", "data": {"build_data": {"valid": False}}}:
                heard.append(Heard(failure=True))
            case {"event": "end"}:
                heard.append(Heard(last=True))
            case {"event": "vertices_sorted" | "add_message" | "end_vertex"}:
                heard.append(Heard())
            case _:
                raise AssertionError(f"an event there should not be: {event}")
    return heard


def _prefixed(writes: Sequence[bytes]) -> list[Heard]:
    assert all(write.startswith(b"data: {") for write in writes)
    return _heard([write.removeprefix(b"data: ") for write in writes])


def _encoder(form: WpsStreamOptions) -> Callable[[], WpsEncoder]:
    return lambda: encoder(form)


ADAPTER = ContractAdapter(
    forms=(
        ContractForm(name="messages", encoder=_encoder(WpsStreamOptions()), read=_heard),
        ContractForm(name="every token", encoder=_encoder(WpsStreamOptions(partial_every_s=0)), read=_heard),
        ContractForm(name="data lines", encoder=_encoder(WpsStreamOptions(data_prefix=True)), read=_prefixed),
    ),
    wrong_credentials=(
        {},
        {"X-Kso-Authorization": "KSO-1 AK:00", "X-Kso-Date": "Mon, 02 Jan 2006 15:04:05 GMT"},
        {"X-Kso-Authorization": "KSO-1 AK", "X-Kso-Date": "Mon, 02 Jan 2006 15:04:05 GMT"},
        {"X-Kso-Authorization": "KSO-1 AK:00", "Authorization": "Bearer x"},
    ),
)
