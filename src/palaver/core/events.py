"""The events of a run and the message they build: two representations of the same data.

A cursor is a position in the message: one step for every part, one more for every character (Unicode code point) of a
growing part's text and for the data after it, and one for the end. Every event is the suffix of the message after some
cursor, so resuming, slow readers, concurrent readers, non-streaming responses and replays days later are all
``unfold``.

``fold(unfold(m)) == m`` for every message, from every cursor; tests/core verifies this.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec

from palaver.core.types import AnyPart, RunEnded, StreamedPart, Text, ToolResult, Value

BLOCK_CHARACTERS = 16_384
"""Block size, in characters, for compressing the older text of a growing part."""


class PartStarted(Value, frozen=True, kw_only=True):
    """A growing part starts; ``part`` has no text yet."""

    part: StreamedPart


class TextDelta(Value, frozen=True, kw_only=True):
    """``text`` (never empty) is appended to the part started last."""

    text: str


class PartFinished(Value, frozen=True, kw_only=True):
    """The part started last is complete; ``final_data`` belongs to it."""

    final_data: dict[str, Any]


class PartAdded(Value, frozen=True, kw_only=True):
    """A complete part is appended: a tool call, its result, or a file."""

    part: AnyPart


class Piece(Value, frozen=True, kw_only=True):
    """What a message has grown by after the cursor ``start``. If ``continues``, the text of the first of ``parts``
    continues the last part before it."""

    start: int
    parts: tuple[AnyPart, ...]
    continues: bool = False

    def events(self) -> list[Event]:
        """The events of this growth."""
        if not self.continues:
            return unfold((self.parts, None))
        first, *others = self.parts
        assert isinstance(first, StreamedPart)
        events: list[Event] = [TextDelta(text=first.text)] if first.text else []
        if first.final_data is not None:
            events.append(PartFinished(final_data=first.final_data))
        return [*events, *unfold((tuple(others), None))]


Event: TypeAlias = PartStarted | TextDelta | PartFinished | PartAdded | RunEnded
MessageContent = tuple[tuple[AnyPart, ...], RunEnded | None]
"""The result of folding events: a message's ``parts`` and ``ended``."""


class _Block:
    """A compressed block of a long text that is rarely read again."""

    __slots__ = ("_packed",)

    def __init__(self, text: str) -> None:
        self._packed = zlib.compress(text.encode("utf-8", "surrogatepass"), 1)

    def __len__(self) -> int:
        return len(self._packed)

    def text(self) -> str:
        return zlib.decompress(self._packed).decode("utf-8", "surrogatepass")


class _GrowingText:
    """A growing part in memory: blocks of ``BLOCK_CHARACTERS`` characters, and the rest in a buffer. Appending, or
    reading a tail, takes time proportional to its length only."""

    __slots__ = ("_base", "_blocks", "_buffer", "block_bytes", "final_data", "length", "part")

    def __init__(self, part: StreamedPart) -> None:
        self.part = part
        self.final_data = part.final_data
        self.length = 0
        self.block_bytes = 0
        """Compressed size of the blocks, in bytes."""
        self._blocks: list[_Block] = []
        self._buffer = io.StringIO(newline="")
        self._base = 0
        """Offset of the buffer in the text, in characters."""
        if part.text:
            self.write(part.text)

    def write(self, text: str) -> None:
        self._buffer.seek(0, io.SEEK_END)
        self._buffer.write(text)
        self.length += len(text)
        if self.length - self._base >= 2 * BLOCK_CHARACTERS:
            self._pack()

    def _pack(self) -> None:
        """Compress all but the newest text, which most readers are still reading."""
        text = self._buffer.getvalue()
        end = (len(text) // BLOCK_CHARACTERS - 1) * BLOCK_CHARACTERS
        for start in range(0, end, BLOCK_CHARACTERS):
            block = _Block(text[start : start + BLOCK_CHARACTERS])
            self._blocks.append(block)
            self.block_bytes += len(block)
        self._base += end
        self._buffer = io.StringIO(text[end:], newline="")

    def tail(self, start: int, limit: int) -> str:
        if start >= self._base:
            self._buffer.seek(start - self._base)
            return self._buffer.read(limit)
        end = self.length if limit < 0 else min(self.length, start + limit)
        first = start // BLOCK_CHARACTERS
        text = "".join(block.text() for block in self._blocks[first : -(-min(end, self._base) // BLOCK_CHARACTERS)])
        if end > self._base:
            self._buffer.seek(0)
            text += self._buffer.read(end - self._base)
        return text[start - first * BLOCK_CHARACTERS : end - first * BLOCK_CHARACTERS]

    def snapshot(self) -> _TextSnapshot:
        return _TextSnapshot(self.part, tuple(self._blocks), self._buffer.getvalue(), self.final_data)

    def full_part(self) -> StreamedPart:
        return self.snapshot().full_part()


class _TextSnapshot:
    """A growing part at one point in time; ``full_part`` may be called in any thread."""

    __slots__ = ("_blocks", "_final_data", "_part", "_rest")

    def __init__(
        self, part: StreamedPart, blocks: tuple[_Block, ...], rest: str, final_data: dict[str, Any] | None
    ) -> None:
        self._part = part
        self._final_data = final_data
        self._blocks = blocks
        self._rest = rest

    def full_part(self) -> StreamedPart:
        text = "".join((*(block.text() for block in self._blocks), self._rest))
        return msgspec.structs.replace(self._part, text=text, final_data=self._final_data)


class _FinishedText:
    """A growing part that is complete."""

    __slots__ = ("length", "part")

    def __init__(self, part: StreamedPart) -> None:
        self.part = part
        self.length = len(part.text)

    @property
    def final_data(self) -> dict[str, Any] | None:
        return self.part.final_data

    def snapshot(self) -> _FinishedText:
        return self

    def tail(self, start: int, limit: int) -> str:
        return self.part.text[start : None if limit < 0 else start + limit]

    def full_part(self) -> StreamedPart:
        return self.part


_Text = _GrowingText | _FinishedText


class Cursor:
    """A reader's position, kept as (part, steps into it) so that reading on does not rescan earlier parts."""

    __slots__ = ("inside", "part", "steps")

    def __init__(self) -> None:
        self.part = 0
        self.inside = 0
        self.steps = 0

    def copy(self) -> Cursor:
        cursor = Cursor()
        cursor.part, cursor.inside, cursor.steps = self.part, self.inside, self.steps
        return cursor


class DraftSnapshot:
    """A draft at one point in time. ``parts`` is slow for long drafts, and may be called in any thread."""

    __slots__ = ("_parts",)

    def __init__(self, parts: tuple[_TextSnapshot | _FinishedText | AnyPart, ...]) -> None:
        self._parts = parts

    def parts(self) -> tuple[AnyPart, ...]:
        return tuple(
            part.full_part() if isinstance(part, _TextSnapshot | _FinishedText) else part for part in self._parts
        )


class Draft:
    """A message being written: applies events, and returns to each reader the events it has not seen. ``steps`` is the
    last cursor, ``size`` the approximate size as JSON, ``memory_bytes`` the approximate size in memory, in bytes."""

    __slots__ = ("_closed_bytes", "_parts", "ended", "size", "steps")

    def __init__(self, parts: Iterable[AnyPart] = (), ended: RunEnded | None = None) -> None:
        text_type = _GrowingText if ended is None else _FinishedText
        self._parts: list[_GrowingText | _FinishedText | AnyPart] = [
            text_type(part) if isinstance(part, StreamedPart) else part for part in parts
        ]
        self.ended = ended
        self.steps = sum(map(_steps, self._parts)) + (ended is not None)
        self.size = 0
        self._closed_bytes = 0
        """Memory of the parts before the last one, in bytes."""
        for part in self._parts:
            self._add_size(part.part if isinstance(part, _Text) else part)

    def _add_size(self, part: AnyPart) -> None:
        size = _size(part)
        self.size += size
        if not isinstance(part, StreamedPart):
            self._closed_bytes += size

    @property
    def memory_bytes(self) -> int:
        last = self._parts[-1] if self._parts else None
        return self._closed_bytes + (2 * BLOCK_CHARACTERS + last.block_bytes if isinstance(last, _GrowingText) else 0)

    def apply(self, event: Event) -> None:
        """Apply one event. Raises ``ValueError`` after ``RunEnded``, and for a ``TextDelta`` without a growing part at
        the end."""
        if self.ended is not None:
            raise ValueError(f"{event!r} after the end")
        match event:
            case TextDelta(text=text):
                last = self._parts[-1] if self._parts else None
                if not isinstance(last, _GrowingText) or last.final_data is not None:
                    raise ValueError(f"{event!r} without an open part")
                last.write(text)
                self.steps += len(text)
                self.size += _bytes(text)
            case PartFinished(final_data=data):
                last = self._parts[-1] if self._parts else None
                if not isinstance(last, _GrowingText) or last.final_data is not None:
                    raise ValueError(f"{event!r} without an open part")
                last.final_data = data
                self.steps += 1
                self.size += len(msgspec.json.encode(data))
            case PartStarted(part=part):
                self._closed_bytes = self.memory_bytes
                self._add_size(part)
                self._parts.append(_GrowingText(part))
                self.steps += _steps(self._parts[-1])
            case PartAdded(part=part):
                self._closed_bytes = self.memory_bytes
                self._add_size(part)
                self._parts.append(part)
                self.steps += 1
            case RunEnded():
                self.ended = event
                self.steps += 1

    @property
    def part_count(self) -> int:
        """The number of parts."""
        return len(self._parts)

    def snapshot(self, first: int = 0) -> DraftSnapshot:
        """A snapshot of the parts from index ``first`` on."""
        parts = self._parts[first:]
        return DraftSnapshot(tuple(part.snapshot() if isinstance(part, _Text) else part for part in parts))

    def parts(self) -> tuple[AnyPart, ...]:
        return self.snapshot().parts()

    def content(self) -> MessageContent:
        return self.parts(), self.ended

    def read(self, cursor: Cursor, limit: int = -1) -> list[Event]:
        """The events after ``cursor``, which moves past them. Consecutive deltas are merged. At most ``limit``
        characters of text (-1: all) are returned at a time, which bounds the cost of a reader that is far behind."""
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
                if cursor.inside == 1 + part.length and part.final_data is not None:
                    events.append(PartFinished(final_data=part.final_data))
                    cursor.steps += 1
                    cursor.inside += 1
                if cursor.part == len(parts) - 1 and self.ended is None:
                    return events
            cursor.part += 1
            cursor.inside = 0
        if self.ended is not None and cursor.part == len(parts):
            events.append(self.ended)
            cursor.steps += 1
            cursor.part += 1
        return events

    def growth(self, cursor: Cursor, limit: int) -> Piece:
        """What follows ``cursor``, which moves past it: at most ``limit`` characters of text."""
        start = cursor.steps
        parts: list[AnyPart] = []
        continues = False
        for event in self.read(cursor, limit):
            match event:
                case PartStarted(part=part) | PartAdded(part=part):
                    parts.append(part)
                case TextDelta(text=text) if parts:
                    parts[-1] = _appended(parts[-1], text)
                case TextDelta(text=text):
                    continues = True
                    parts.append(Text(text=text))
                case PartFinished(final_data=data) if parts:
                    parts[-1] = _finished(parts[-1], data)
                case PartFinished(final_data=data):
                    continues = True
                    parts.append(Text(final_data=data))
                case RunEnded():
                    pass
        return Piece(start=start, parts=tuple(parts), continues=continues)

    def cursor(self, after: int) -> Cursor:
        """The cursor ``after`` steps from the beginning, at most at the end."""
        cursor = Cursor()
        for part in self._parts:
            size = _steps(part)
            if cursor.steps + size > after:
                cursor.inside = after - cursor.steps
                cursor.steps = after
                return cursor
            cursor.steps += size
            cursor.part += 1
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _GrowingText) and self.ended is None:
            # The last part may still grow: stay at its end, not after it.
            cursor.part -= 1
            cursor.inside = _steps(last)
        elif self.ended is not None and after > cursor.steps:
            cursor.part += 1
            cursor.steps += 1
        return cursor

    def at_end(self, place: Cursor) -> bool:
        """Whether ``place`` is the final end: no more events will follow."""
        return self.ended is not None and place.steps >= self.steps


def _bytes(text: str) -> int:
    """The approximate UTF-8 size of ``text``, without encoding it."""
    return len(text) if text.isascii() else 3 * len(text)


def _size(part: AnyPart) -> int:
    if isinstance(part, StreamedPart):
        return _bytes(part.text) + 64
    try:
        return len(msgspec.json.encode(part))
    except (TypeError, ValueError, OverflowError, RecursionError):  # reported when it is stored
        return _bytes(part.content) if isinstance(part, ToolResult) else 64


def _steps(part: _Text | AnyPart) -> int:
    """The number of steps that the part takes."""
    return 1 + part.length + (part.final_data is not None) if isinstance(part, _Text) else 1


def _emptied(part: StreamedPart) -> StreamedPart:
    return msgspec.structs.replace(part, text="", final_data=None)


def _appended(part: AnyPart, text: str) -> AnyPart:
    assert isinstance(part, StreamedPart)
    return msgspec.structs.replace(part, text=part.text + text)


def _finished(part: AnyPart, final_data: dict[str, Any] | None) -> AnyPart:
    assert isinstance(part, StreamedPart)
    return part if final_data is None else msgspec.structs.replace(part, final_data=final_data)


def join(parts: Iterable[AnyPart], pieces: Iterable[Piece]) -> tuple[AnyPart, ...]:
    """``parts`` with the ``pieces`` that follow them, in order. Takes time proportional to their length."""
    pieces = tuple(pieces)
    if not pieces:
        return tuple(parts)
    joined = list(parts)
    texts: list[str] = []
    """The texts to append to the last part."""
    for piece in pieces:
        new = list(piece.parts)
        if piece.continues and new and isinstance(first := new[0], StreamedPart):
            texts.append(first.text)
            if first.final_data is not None:
                _append_texts(joined, texts)
                joined[-1] = _finished(joined[-1], first.final_data)
            del new[0]
        if new:
            _append_texts(joined, texts)
            joined += new
    _append_texts(joined, texts)
    return tuple(joined)


def _append_texts(parts: list[AnyPart], texts: list[str]) -> None:
    if texts:
        parts[-1] = _appended(parts[-1], "".join(texts))
        texts.clear()


def fold(events: Iterable[Event], onto: MessageContent = ((), None)) -> MessageContent:
    """The message content after applying ``events`` to ``onto``."""
    draft = Draft(*onto)
    for event in events:
        draft.apply(event)
    return draft.content()


def unfold(content: MessageContent, after: int = 0) -> list[Event]:
    """The events that lead from cursor ``after`` (0 is the beginning) to ``content``."""
    draft = Draft(*content)
    return draft.read(draft.cursor(after))
