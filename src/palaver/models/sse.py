"""Incremental parsers of event streams (``text/event-stream``). No I/O.

Network reads split a stream anywhere: inside a character, between CR and LF, inside the byte order mark. A line
(``LineSplitter``) or event (``SseParser``) is returned as soon as it is complete, together with all others of a read.
"""

from __future__ import annotations

from msgspec import Struct

MAX_EVENT = 16 * 1024 * 1024
"""Default limit of a line, and of one event's data, in bytes."""

MAX_LINES = 65_536
"""Maximum data lines of one event: short lines cost more than their bytes."""

_IGNORED_FIELDS = frozenset((b"", b"id", b"retry"))
_STRAY_BYTES = 4096
_BOM = b"\xef\xbb\xbf"


class SseTooLong(ValueError):  # noqa: N818  the name already means an error
    """A line or an event exceeds the limit: the stream cannot be read any further."""


class SseEvent(Struct, frozen=True, gc=False):
    """One event. ``name`` is the ``event:`` field, empty without one; ``data`` its data lines, joined by LF."""

    name: bytes
    data: bytes


class LineSplitter:
    """Bytes in, complete lines out, without their ends (LF, CRLF or CR). ``limit``: bytes of the longest line."""

    __slots__ = ("_after_cr", "_limit", "_pending", "_size", "_started")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._pending: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._started = False

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a line, and no byte order mark or second half of a CRLF can precede it."""
        return self._started and not self._pending and not self._after_cr

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes. Raises ``SseTooLong``."""
        if self._after_cr or b"\r" in data:
            data = self._normalized(data)
        head, newline, rest = data.partition(b"\n")
        if not newline:
            self._buffer(data)
            return []
        lines = rest.split(b"\n") if rest else [b""]
        if self._pending:
            self._buffer(head)
            head = b"".join(self._pending)
            self._pending.clear()
            self._size = 0
        if not self._started:
            self._started = True
            head = head.removeprefix(_BOM)
        lines.insert(0, head)
        if tail := lines.pop():
            self._buffer(tail)
        if len(data) > self._limit and max(map(len, lines)) > self._limit:
            raise SseTooLong(f"a line of more than {self._limit} bytes")
        return lines

    def end(self) -> bytes:
        """Return what follows the last line end."""
        rest = b"".join(self._pending)
        self._pending.clear()
        self._size = 0
        return rest if self._started else rest.removeprefix(_BOM)

    def _normalized(self, data: bytes) -> bytes:
        # A CR ends its line at once; an LF that follows, even in a later read, belongs to it.
        if not data:
            return data
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _buffer(self, piece: bytes) -> None:
        # Pieces are joined once, at the end of the line: a long line in small reads is not copied each time.
        self._size += len(piece)
        if self._size > self._limit:
            raise SseTooLong(f"a line of more than {self._limit} bytes")
        self._pending.append(piece)


class SseParser:
    """Bytes in, complete events out. ``limit``: bytes of the longest line and of the longest event's data. ``stray``
    is the beginning of the first line that is not valid in an event stream: a proxy's error, or another text."""

    __slots__ = ("_between_events", "_data", "_limit", "_lines", "_name", "_size", "stray")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._lines = LineSplitter(limit)
        self._name = b""
        self._between_events = False
        self._data: list[bytes] = []
        self._size = 0
        self.stray = b""

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that ``data`` completes; events without data are dropped. Raises ``SseTooLong``."""
        # Most reads are exactly one event of one line: skip building a list of lines.
        if self._between_events and data[-2:] == b"\n\n" and data[:6] == b"data: ":
            size = len(data)
            if data.find(b"\n") == size - 2 and b"\r" not in data and size <= self._limit:
                return [SseEvent(b"", data[6:-2])]
        events: list[SseEvent] = []
        data_lines = self._data
        for line in self._lines.feed(data):
            if line.startswith(b"data:"):
                data_lines.append(line[6:] if line.startswith(b" ", 5) else line[5:])
                self._size += len(line)
                if self._size > self._limit or len(data_lines) > MAX_LINES:
                    raise SseTooLong(f"an event of more than {self._limit} bytes, or {MAX_LINES} lines")
            elif not line:
                if data_lines:
                    content = data_lines[0] if len(data_lines) == 1 else b"\n".join(data_lines)
                    events.append(SseEvent(self._name, content))
                    data_lines.clear()
                    self._size = 0
                self._name = b""
            else:
                self._field(line)
        self._between_events = not data_lines and not self._name and self._lines.idle
        return events

    def end(self) -> list[SseEvent]:
        """Return the event that the stream ended without its blank line: many servers omit the last one."""
        rest = self._lines.end()
        return self.feed(b"\n\n" if not rest else rest + b"\n\n")

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"event":
            self._name = value.removeprefix(b" ")
        elif line == b"data" and len(self._data) <= MAX_LINES:
            self._data.append(b"")
        elif name not in _IGNORED_FIELDS and not self.stray:
            self.stray = line[:_STRAY_BYTES].strip()
        # Comments begin with a colon (their name is empty); id and retry are for clients that reconnect.
