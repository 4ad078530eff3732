"""What a run says, and the message it writes: two forms of one thing.

A cursor is a place in the message: one step for every part, one more for every character (Unicode code point) of a
growing part's text, and one for the end. Every event is the suffix of the message after some cursor, so resuming, a
slow reader, a second viewer, an answer given whole and a replay days later are all ``unfold``.

``fold(unfold(m)) == m`` for every message, from every cursor; tests/core holds it so.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from palaver.core.types import AnyPart, RunEnded, StreamedPart, Text, Thinking, ToolResult, Value

BLOCK_CHARACTERS = 16_384
"""Characters of a growing text that are packed together once newer ones have come."""


class PartStarted(Value, frozen=True, kw_only=True):
    """A growing part begins; ``part`` has no text yet."""

    part: StreamedPart


class TextDelta(Value, frozen=True, kw_only=True):
    """The part opened last has grown by ``text`` (never empty)."""

    text: str


class PartAdded(Value, frozen=True, kw_only=True):
    """A part that came whole: a tool call, its result, a file."""

    part: AnyPart


Event: TypeAlias = PartStarted | TextDelta | PartAdded | RunEnded
MessageContent = tuple[tuple[AnyPart, ...], RunEnded | None]
"""What events fold to: a message's ``parts`` and ``ended``."""


class _Block:
    """A stretch of a long text that is rarely read again, compressed."""

    __slots__ = ("_packed",)

    def __init__(self, text: str) -> None:
        self._packed = zlib.compress(text.encode("utf-8", "surrogatepass"), 1)

    def __len__(self) -> int:
        return len(self._packed)

    def text(self) -> str:
        return zlib.decompress(self._packed).decode("utf-8", "surrogatepass")


class _GrowingText:
    """A growing part in memory: blocks of ``BLOCK_CHARACTERS`` characters, and the rest in a buffer. Appending and
    reading a tail take time proportional to that piece alone."""

    __slots__ = ("_base", "_blocks", "_buffer", "held", "length", "part")

    def __init__(self, part: StreamedPart) -> None:
        self.part = part
        self.length = 0
        self.held = 0
        """Bytes of memory that the blocks take."""
        self._blocks: list[_Block] = []
        self._buffer = io.StringIO(newline="")
        self._base = 0
        """Where the buffer begins."""
        if part.text:
            self.write(part.text)

    def write(self, text: str) -> None:
        self._buffer.seek(0, io.SEEK_END)
        self._buffer.write(text)
        self.length += len(text)
        if self.length - self._base >= 2 * BLOCK_CHARACTERS:
            self._pack()

    def _pack(self) -> None:
        """Leave the newest text, which readers are at, as it is."""
        text = self._buffer.getvalue()
        end = (len(text) // BLOCK_CHARACTERS - 1) * BLOCK_CHARACTERS
        for start in range(0, end, BLOCK_CHARACTERS):
            block = _Block(text[start : start + BLOCK_CHARACTERS])
            self._blocks.append(block)
            self.held += len(block)
        self._base += end
        self._buffer = io.StringIO(text[end:], newline="")

    def tail(self, start: int, most: int) -> str:
        if start >= self._base:
            self._buffer.seek(start - self._base)
            return self._buffer.read(most)
        end = self.length if most < 0 else min(self.length, start + most)
        first = start // BLOCK_CHARACTERS
        text = "".join(block.text() for block in self._blocks[first : -(-min(end, self._base) // BLOCK_CHARACTERS)])
        if end > self._base:
            self._buffer.seek(0)
            text += self._buffer.read(end - self._base)
        return text[start - first * BLOCK_CHARACTERS : end - first * BLOCK_CHARACTERS]

    def frozen(self) -> _TextSnapshot:
        return _TextSnapshot(self.part, tuple(self._blocks), self._buffer.getvalue())

    def whole(self) -> StreamedPart:
        return self.frozen().whole()


class _TextSnapshot:
    """A growing part as it was at one moment; ``whole`` may be called in any thread."""

    __slots__ = ("_blocks", "_part", "_rest")

    def __init__(self, part: StreamedPart, blocks: tuple[_Block, ...], rest: str) -> None:
        self._part = part
        self._blocks = blocks
        self._rest = rest

    def whole(self) -> StreamedPart:
        text, pocket = "".join((*(block.text() for block in self._blocks), self._rest)), self._part.provider_data
        if isinstance(self._part, Text):
            return Text(text=text, provider_data=pocket)
        return Thinking(text=text, provider_data=pocket)


class _FinishedText:
    """A growing part that grows no more: nothing beside its text."""

    __slots__ = ("length", "part")

    def __init__(self, part: StreamedPart) -> None:
        self.part = part
        self.length = len(part.text)

    def frozen(self) -> _FinishedText:
        return self

    def tail(self, start: int, most: int) -> str:
        return self.part.text[start : None if most < 0 else start + most]

    def whole(self) -> StreamedPart:
        return self.part


_Text = _GrowingText | _FinishedText


class Cursor:
    """A reader's cursor, kept as (part, steps into it) so that reading on costs nothing for what was read."""

    __slots__ = ("inside", "part", "steps")

    def __init__(self) -> None:
        self.part = 0
        self.inside = 0
        self.steps = 0


class DraftSnapshot:
    """A draft as it was at one moment. ``parts`` takes time for a long one, and may be called in any thread."""

    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[_TextSnapshot | _FinishedText | AnyPart, ...]) -> None:
        self._parts = parts

    def parts(self) -> tuple[AnyPart, ...]:
        return tuple(part.whole() if isinstance(part, _TextSnapshot | _FinishedText) else part for part in self._parts)


class Draft:
    """A message being written: takes events, gives any reader what it has not seen. ``steps`` is its last cursor,
    ``size`` about how many bytes it has as JSON, ``held`` about how many it takes in memory."""

    __slots__ = ("_closed", "_parts", "ended", "size", "steps")

    def __init__(self, parts: Iterable[AnyPart] = (), ended: RunEnded | None = None) -> None:
        kept = _GrowingText if ended is None else _FinishedText
        self._parts: list[_GrowingText | _FinishedText | AnyPart] = [
            kept(part) if isinstance(part, StreamedPart) else part for part in parts
        ]
        self.ended = ended
        self.steps = sum(1 + part.length if isinstance(part, _Text) else 1 for part in self._parts) + (
            ended is not None
        )
        self.size = 0
        self._closed = 0
        """Bytes of memory of the parts before the last one."""
        for part in self._parts:
            self._count(part.part if isinstance(part, _Text) else part)

    def _count(self, part: AnyPart) -> None:
        size = _size(part)
        self.size += size
        if not isinstance(part, StreamedPart):
            self._closed += size

    @property
    def memory_bytes(self) -> int:
        last = self._parts[-1] if self._parts else None
        return self._closed + (2 * BLOCK_CHARACTERS + last.held if isinstance(last, _GrowingText) else 0)

    def apply(self, event: Event) -> None:
        """Take one event. Nothing may follow ``RunEnded``; ``TextDelta`` needs a growing part at the end."""
        if self.ended is not None:
            raise ValueError(f"{event!r} after the end")
        match event:
            case TextDelta(text=text):
                last = self._parts[-1] if self._parts else None
                if not isinstance(last, _GrowingText):
                    raise ValueError(f"{event!r} without an open part")  # noqa: TRY004  the order is wrong, not a type
                last.write(text)
                self.steps += len(text)
                self.size += _bytes(text)
            case PartStarted(part=part):
                self._closed = self.memory_bytes
                self._count(part)
                self._parts.append(_GrowingText(part))
                self.steps += 1 + len(part.text)
            case PartAdded(part=part):
                self._closed = self.memory_bytes
                self._count(part)
                self._parts.append(part)
                self.steps += 1
            case RunEnded():
                self.ended = event
                self.steps += 1

    @property
    def count(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    def snapshot(self, first: int = 0) -> DraftSnapshot:
        """The parts from number ``first`` on, as they are now."""
        return DraftSnapshot(tuple(part.frozen() if isinstance(part, _Text) else part for part in self._parts[first:]))

    def parts(self) -> tuple[AnyPart, ...]:
        return self.snapshot().parts()

    def content(self) -> MessageContent:
        return self.parts(), self.ended

    def read(self, cursor: Cursor, limit: int = -1) -> list[Event]:
        """The events after ``place``, which moves behind them. Neighbouring text comes joined, ``most`` characters of
        it at a time (-1: all), so that a reader who is far behind costs no more than that."""
        events: list[Event] = []
        parts = self._parts
        while cursor.part < len(parts):
            part = parts[cursor.part]
            if not isinstance(part, _Text):
                events.append(PartAdded(part=part))
                cursor.steps += 1
            else:
                if cursor.inside == 0:
                    events.append(PartStarted(part=_emptied(part.part)))
                    cursor.inside = 1
                    cursor.steps += 1
                if (seen := cursor.inside - 1) < part.length:
                    text = part.tail(seen, limit)
                    events.append(TextDelta(text=text))
                    cursor.steps += len(text)
                    cursor.inside += len(text)
                    if cursor.inside <= part.length:
                        return events
                if cursor.part == len(parts) - 1 and self.ended is None:
                    return events
            cursor.part += 1
            cursor.inside = 0
        if self.ended is not None and cursor.part == len(parts):
            events.append(self.ended)
            cursor.steps += 1
            cursor.part += 1
        return events

    def cursor(self, after: int) -> Cursor:
        """The place ``after`` steps from the beginning; past the end is the end."""
        place = Cursor()
        for part in self._parts:
            size = 1 + part.length if isinstance(part, _Text) else 1
            if place.steps + size > after:
                place.inside = after - place.steps
                place.steps = after
                return place
            place.steps += size
            place.part += 1
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _GrowingText) and self.ended is None:
            # The last part may still grow: stand at its end, not behind it.
            place.part -= 1
            place.inside = 1 + last.length
        elif self.ended is not None and after > place.steps:
            place.part += 1
            place.steps += 1
        return place

    def read_out(self, place: Cursor) -> bool:
        """Whether nothing will ever come after ``place``."""
        return self.ended is not None and place.steps >= self.steps


def _bytes(text: str) -> int:
    """About how many bytes ``text`` has as UTF-8, without looking at it."""
    return len(text) if text.isascii() else 3 * len(text)


def _size(part: AnyPart) -> int:
    if isinstance(part, StreamedPart):
        return _bytes(part.text) + 64
    try:
        return len(msgspec.json.encode(part))
    except (TypeError, ValueError, OverflowError, RecursionError):  # told when it is stored
        return _bytes(part.content) if isinstance(part, ToolResult) else 64


def _emptied(part: StreamedPart) -> StreamedPart:
    if isinstance(part, Text):
        return Text(provider_data=part.provider_data)
    return Thinking(provider_data=part.provider_data)


def fold(events: Iterable[Event], onto: MessageContent = ((), None)) -> MessageContent:
    """The message that ``events`` write, beginning with what ``onto`` already holds."""
    draft = Draft(*onto)
    for event in events:
        draft.apply(event)
    return draft.content()


def unfold(content: MessageContent, after: int = 0) -> list[Event]:
    """The events that make ``content`` from its state at cursor ``after``; 0 is the beginning."""
    draft = Draft(*content)
    return draft.read(draft.cursor(after))
