"""Event streams (``text/event-stream``) as bytes arrive: values in, values out, no socket.

Network reads cut a stream anywhere: inside a character, between CR and LF, inside the byte order mark. What has
arrived is given back as soon as the line (``LineSplitter``) or the event (``SseParser``) is complete, all of a read at
once.
"""

from __future__ import annotations

from msgspec import Struct

MAX_EVENT = 16 * 1024 * 1024
"""Bytes that one line, or the data of one event, may have unless the caller says otherwise."""

MAX_LINES = 65_536
"""Lines of data that one event may have: short ones cost more than their bytes."""

_PASSED_OVER = frozenset((b"", b"id", b"retry"))
_SHOWN = 4096
_BOM = b"\xef\xbb\xbf"


class SseTooLong(ValueError):  # noqa: N818  says it already
    """A line or an event is longer than the limit: the stream cannot be read any further."""


class SseEvent(Struct, frozen=True, gc=False):
    """One event. ``name`` is the ``event:`` field, empty without one; ``data`` its data lines, joined by LF."""

    name: bytes
    data: bytes


class LineSplitter:
    """Bytes in, complete lines out, without their ends (LF, CRLF or CR). ``limit``: bytes of the longest line."""

    __slots__ = ("_after_cr", "_limit", "_open", "_size", "_started")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._open: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._started = False

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a line, and no mark or half a line end can come before it."""
        return self._started and not self._open and not self._after_cr

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes. Raises ``SseTooLong``."""
        if self._after_cr or b"\r" in data:
            data = self._unified(data)
        head, newline, rest = data.partition(b"\n")
        if not newline:
            self._keep(data)
            return []
        lines = rest.split(b"\n") if rest else [b""]
        if self._open:
            self._keep(head)
            head = b"".join(self._open)
            self._open.clear()
            self._size = 0
        if not self._started:
            self._started = True
            head = head.removeprefix(_BOM)
        lines.insert(0, head)
        if tail := lines.pop():
            self._keep(tail)
        if len(data) > self._limit and max(map(len, lines)) > self._limit:
            raise SseTooLong(f"a line of more than {self._limit} bytes")
        return lines

    def end(self) -> bytes:
        """What stands behind the last line end."""
        rest = b"".join(self._open)
        self._open.clear()
        self._size = 0
        return rest if self._started else rest.removeprefix(_BOM)

    def _unified(self, data: bytes) -> bytes:
        # A CR ends its line at once; an LF that follows, even in a later read, belongs to it.
        if not data:
            return data
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, piece: bytes) -> None:
        # Pieces are joined once, at the line's end: a long line that comes in small reads is not copied each time.
        self._size += len(piece)
        if self._size > self._limit:
            raise SseTooLong(f"a line of more than {self._limit} bytes")
        self._open.append(piece)


class SseParser:
    """Bytes in, complete events out. ``limit``: bytes of the longest line and of the longest event's data. ``stray``
    is the beginning of the first line that is none of an event stream's: an error of a proxy, or a whole other text."""

    __slots__ = ("_data", "_fresh", "_limit", "_lines", "_name", "_size", "stray")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._lines = LineSplitter(limit)
        self._name = b""
        self._fresh = False
        self._data: list[bytes] = []
        self._size = 0
        self.stray = b""

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that ``data`` completes; those without data are none. Raises ``SseTooLong``."""
        # Most reads are one whole event of one line, as its server wrote it: worth no list of lines.
        if self._fresh and data[-2:] == b"\n\n" and data[:6] == b"data: ":
            size = len(data)
            if data.find(b"\n") == size - 2 and b"\r" not in data and size <= self._limit:
                return [SseEvent(b"", data[6:-2])]
        events: list[SseEvent] = []
        held = self._data
        for line in self._lines.feed(data):
            if line.startswith(b"data:"):
                held.append(line[6:] if line.startswith(b" ", 5) else line[5:])
                self._size += len(line)
                if self._size > self._limit or len(held) > MAX_LINES:
                    raise SseTooLong(f"an event of more than {self._limit} bytes, or {MAX_LINES} lines")
            elif not line:
                if held:
                    events.append(SseEvent(self._name, held[0] if len(held) == 1 else b"\n".join(held)))
                    held.clear()
                    self._size = 0
                self._name = b""
            else:
                self._field(line)
        self._fresh = not held and not self._name and self._lines.idle
        return events

    def end(self) -> list[SseEvent]:
        """The event that the end of the stream left without its blank line: many servers forget the last one."""
        rest = self._lines.end()
        return self.feed(b"\n\n" if not rest else rest + b"\n\n")

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"event":
            self._name = value.removeprefix(b" ")
        elif line == b"data" and len(self._data) <= MAX_LINES:
            self._data.append(b"")
        elif name not in _PASSED_OVER and not self.stray:
            self.stray = line[:_SHOWN].strip()
        # Comments begin with a colon (their name is empty); id and retry are for readers that reconnect.
