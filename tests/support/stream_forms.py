"""A form of stream, requested and read in one way: its events, wherever it was cut on its way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from support.http_clients import Ask
from support.live_server import Served, Step

from palaver.core.types import Agent

USER = "ann"
QUESTION = "苹果放多久？🍎"
SAID = "苹果\u2028放\n\n一个月 🍏🧑‍🌾！data: x\n"
SPOKEN: tuple[Step, ...] = (
    {"think": "想一想 🤔\n"},
    {"text": SAID},
    {"call": {"name": "尺子", "arguments": {"长": "一米"}}},
    {"pieces": {"of": "再说一遍：🍎🍏。", "size": 1}},
)
FAILING: tuple[Step, ...] = (*SPOKEN, {"fail": "cut"})
Event = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamForm:
    """One form of stream. ``aborts_on_failure``: a failed one does not end as HTTP wants it."""

    name: str
    ask: Callable[[Served, Agent], Ask]
    mark: bytes = b"\n\n"
    aborts_on_failure: bool = False


def split(pieces: Iterable[bytes], mark: bytes) -> list[bytes]:
    """The blocks of a stream, found while its pieces come."""
    blocks: list[bytes] = []
    buffer = b""
    for piece in pieces:
        buffer += piece
        while mark in buffer:
            block, _, buffer = buffer.partition(mark)
            if block:
                blocks.append(block)
    assert not buffer, "the stream ends between two events"
    return blocks


def said(blocks: Iterable[bytes]) -> list[Event]:
    """The events, without heartbeats and whatever is new in every run, neighbouring deltas joined."""
    found: list[Event] = []
    for block in blocks:
        event = _event(block.decode("ascii"))
        if event is None or (_is_partial(event) and any(_is_partial(one) for one in found)):
            continue
        if not (found and _joined(found[-1], event)):
            found.append(event)
    return found


def _event(block: str) -> Event | None:
    name, data = None, block
    if not block.startswith("{"):
        parts = [line.partition(":") for line in block.split("\n")]
        lines = {field: value for field, _, value in parts if field}
        if not lines:
            return None
        name, data = lines.get("event", "").strip(), lines["data"]
    event: Event = _without_new(json.loads(data))
    return None if event.get("eventType") == "HEART_BEAT" else {"name": name, "data": event}


_ID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")
_TIMES = {"timestamp", "duration", "timedelta", "startTime", "endTime", "created", "at", "ended"}


def _without_new(value: Any, name: str = "") -> Any:
    match value:
        case dict():
            members = cast("dict[str, Any]", value)
            return {key: _without_new(member, key) for key, member in members.items()}
        case list():
            return [_without_new(member) for member in cast("list[Any]", value)]
        case str() | int() | float() if name in _TIMES:
            return type(value).__name__
        case int() if name == "id":
            return "ID"
        case str():
            return _ID.sub("ID", value)
        case _:
            return value


def _is_partial(event: Event) -> bool:
    match event["data"]:
        case {"event": "add_message", "data": {"properties": {"state": "partial"}}}:
            return True
        case _:
            return False


_DELTAS = ("answer", "thought", "chunk", "content", "text")


def _joined(last: Event, event: Event) -> bool:
    """Whether both are pieces of one text; then ``last`` has become both."""
    before, after = _inmost(last), _inmost(event)
    name = next((one for one in _DELTAS if one in before and one in after), None)
    if name is None:
        return False
    first, second = before[name], after[name]
    before[name] = after[name] = ""
    alike = last == event
    before[name], after[name] = (first + second if alike else first), second
    return alike


def _inmost(event: Event) -> Event:
    data = event["data"]
    return data["data"] if isinstance(data.get("data"), dict) else data
