"""What a run says, and the message it writes: two forms of one thing.

A cursor is a place in the message: one step for every part, one more for every character (Unicode code point) of a
growing part's text, and one for the end. Every event is the suffix of the message after some cursor, so resuming, a
slow reader, a second viewer, an answer given whole and a replay days later are all ``unfold``.

``fold(unfold(m)) == m`` for every message, from every cursor; tests/core holds it so.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TypeAlias

from palaver.core.types import AnyPart, Ended, Growing, Text, Thinking, Value


class Opened(Value, frozen=True, kw_only=True):
    """A growing part begins; ``part`` has no text yet."""

    part: Growing


class Grew(Value, frozen=True, kw_only=True):
    """The part opened last has grown by ``text`` (never empty)."""

    text: str


class Added(Value, frozen=True, kw_only=True):
    """A part that came whole: a tool call, its result, a file."""

    part: AnyPart


Event: TypeAlias = Opened | Grew | Added | Ended
Content = tuple[tuple[AnyPart, ...], Ended | None]
"""What events fold to: a message's ``parts`` and ``ended``."""


class _Writing:
    """A growing part in memory. StringIO appends and reads a tail in time proportional to that piece alone."""

    __slots__ = ("buffer", "length", "part")

    def __init__(self, part: Growing) -> None:
        self.part = part
        self.buffer = io.StringIO(newline="")
        self.length = 0
        if part.text:
            self.write(part.text)

    def write(self, text: str) -> None:
        self.buffer.seek(0, io.SEEK_END)
        self.buffer.write(text)
        self.length += len(text)

    def tail(self, start: int, most: int) -> str:
        self.buffer.seek(start)
        return self.buffer.read(most)

    def whole(self) -> Growing:
        text, pocket = self.buffer.getvalue(), self.part.provider_data
        if isinstance(self.part, Text):
            return Text(text=text, provider_data=pocket)
        return Thinking(text=text, provider_data=pocket)


class _Written:
    """A growing part that grows no more: nothing beside its text."""

    __slots__ = ("length", "part")

    def __init__(self, part: Growing) -> None:
        self.part = part
        self.length = len(part.text)

    def tail(self, start: int, most: int) -> str:
        return self.part.text[start : None if most < 0 else start + most]

    def whole(self) -> Growing:
        return self.part


_Text = _Writing | _Written


class Place:
    """A reader's cursor, kept as (part, steps into it) so that reading on costs nothing for what was read."""

    __slots__ = ("inside", "part", "steps")

    def __init__(self) -> None:
        self.part = 0
        self.inside = 0
        self.steps = 0


class Draft:
    """A message being written: takes events, gives any reader what it has not seen. ``steps`` is its last cursor."""

    __slots__ = ("_parts", "ended", "steps")

    def __init__(self, parts: Iterable[AnyPart] = (), ended: Ended | None = None) -> None:
        kept = _Writing if ended is None else _Written
        self._parts: list[_Writing | _Written | AnyPart] = [
            kept(part) if isinstance(part, Growing) else part for part in parts
        ]
        self.ended = ended
        self.steps = sum(1 + part.length if isinstance(part, _Text) else 1 for part in self._parts) + (
            ended is not None
        )

    def apply(self, event: Event) -> None:
        """Take one event. Nothing may follow ``Ended``; ``Grew`` needs a growing part at the end."""
        if self.ended is not None:
            raise ValueError(f"{event!r} after the end")
        match event:
            case Grew(text=text):
                last = self._parts[-1] if self._parts else None
                if not isinstance(last, _Writing):
                    raise ValueError(f"{event!r} without an open part")  # noqa: TRY004  the order is wrong, not a type
                last.write(text)
                self.steps += len(text)
            case Opened(part=part):
                self._parts.append(_Writing(part))
                self.steps += 1 + len(part.text)
            case Added(part=part):
                self._parts.append(part)
                self.steps += 1
            case Ended():
                self.ended = event
                self.steps += 1

    def parts(self) -> tuple[AnyPart, ...]:
        return tuple(part.whole() if isinstance(part, _Text) else part for part in self._parts)

    def content(self) -> Content:
        return self.parts(), self.ended

    def since(self, place: Place, most: int = -1) -> list[Event]:
        """The events after ``place``, which moves behind them. Neighbouring text comes joined, ``most`` characters of
        it at a time (-1: all), so that a reader who is far behind costs no more than that."""
        events: list[Event] = []
        parts = self._parts
        while place.part < len(parts):
            part = parts[place.part]
            if not isinstance(part, _Text):
                events.append(Added(part=part))
                place.steps += 1
            else:
                if place.inside == 0:
                    events.append(Opened(part=_emptied(part.part)))
                    place.inside = 1
                    place.steps += 1
                if (seen := place.inside - 1) < part.length:
                    text = part.tail(seen, most)
                    events.append(Grew(text=text))
                    place.steps += len(text)
                    place.inside += len(text)
                    if place.inside <= part.length:
                        return events
                if place.part == len(parts) - 1 and self.ended is None:
                    return events
            place.part += 1
            place.inside = 0
        if self.ended is not None and place.part == len(parts):
            events.append(self.ended)
            place.steps += 1
            place.part += 1
        return events

    def place(self, after: int) -> Place:
        """The place ``after`` steps from the beginning; past the end is the end."""
        place = Place()
        for part in self._parts:
            size = 1 + part.length if isinstance(part, _Text) else 1
            if place.steps + size > after:
                place.inside = after - place.steps
                place.steps = after
                return place
            place.steps += size
            place.part += 1
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _Writing) and self.ended is None:
            # The last part may still grow: stand at its end, not behind it.
            place.part -= 1
            place.inside = 1 + last.length
        elif self.ended is not None and after > place.steps:
            place.part += 1
            place.steps += 1
        return place

    def read_out(self, place: Place) -> bool:
        """Whether nothing will ever come after ``place``."""
        return self.ended is not None and place.steps >= self.steps


def _emptied(part: Growing) -> Growing:
    if isinstance(part, Text):
        return Text(provider_data=part.provider_data)
    return Thinking(provider_data=part.provider_data)


def fold(events: Iterable[Event], onto: Content = ((), None)) -> Content:
    """The message that ``events`` write, beginning with what ``onto`` already holds."""
    draft = Draft(*onto)
    for event in events:
        draft.apply(event)
    return draft.content()


def unfold(content: Content, after: int = 0) -> list[Event]:
    """The events that make ``content`` from its state at cursor ``after``; 0 is the beginning."""
    draft = Draft(*content)
    return draft.since(draft.place(after))
