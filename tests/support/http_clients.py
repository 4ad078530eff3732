"""Two ways to ask a server, which hear the same ``Answer``.

``Exchange`` speaks ASGI to the application: every write is seen on its own, and the caller can hang up at any moment.
``Connection`` speaks HTTP over a socket: every chunk is seen on its own, and a stream that is broken off looks it.
"""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

GUARD = 10.0
"""Seconds after which what a test waits for will not come."""

Message = Mapping[str, Any]
Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[Message]], Callable[[dict[str, Any]], Awaitable[None]]], Any
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request. ``pieces`` is a body that comes bit by bit, with no length said before."""

    method: str = "POST"
    path: str = "/"
    query: str = ""
    headers: Sequence[tuple[str, str | bytes]] = ()
    body: bytes = b""
    pieces: Sequence[bytes] | None = None

    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        pairs = list(self.headers)
        if self.pieces is None and not any(name.lower() == "content-length" for name, _ in pairs):
            pairs.append(("Content-Length", str(len(self.body))))
        return [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]

    def raw(self) -> bytes:
        """The request as HTTP/1.1 writes it."""
        headers = [(b"Host", b"test"), *self.raw_headers()]
        if self.pieces is not None:
            headers.append((b"Transfer-Encoding", b"chunked"))
        target = self.path + (f"?{self.query}" if self.query else "")
        lines = [f"{self.method} {target} HTTP/1.1".encode(), *(name + b": " + value for name, value in headers)]
        chunks = (b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*(self.pieces or ()), b""))
        return b"\r\n".join(lines) + b"\r\n\r\n" + (self.body if self.pieces is None else b"".join(chunks))

    def also(self, name: str, value: str) -> Ask:
        """The same with one header more."""
        return replace(self, headers=[*self.headers, (name, value)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. ``complete``: it ended in the normal way; ``writes`` are its pieces, heartbeats included."""

    status: int
    headers: list[tuple[str, str]]
    writes: list[bytes] = field(default_factory=list[bytes])
    complete: bool = True

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    def header(self, name: str) -> str | None:
        """The one header of that name."""
        values = [value for header, value in self.headers if header.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One request to an ASGI application that lives in another thread's loop."""

    def __init__(self, application: Application, loop: asyncio.AbstractEventLoop, ask: Ask) -> None:
        self._application = application
        self._loop = loop
        self._ask = ask
        self._pieces = [ask.body] if ask.pieces is None else list(ask.pieces)
        self._heard: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._gone = asyncio.Event()
        self._work = asyncio.run_coroutine_threadsafe(self._run(), loop)
        self.complete = False

    def head(self) -> Answer:
        """Status and headers, as soon as they are there."""
        message = self._next()
        assert message is not None, "no answer came"
        assert message["type"] == "http.response.start"
        headers: list[tuple[bytes, bytes]] = message["headers"]
        return Answer(
            status=message["status"],
            headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
        )

    def write(self) -> bytes | None:
        """The next write that is not empty; ``None`` when there is none."""
        while (message := self._next()) is not None:
            assert message["type"] == "http.response.body"
            assert not self.complete, "something was written after the end"
            self.complete = not message.get("more_body", False)
            if body := message.get("body", b""):
                return bytes(body)
        return None

    def answer(self) -> Answer:
        """The whole answer."""
        head = self.head()
        writes = self.rest()
        return Answer(status=head.status, headers=head.headers, writes=writes, complete=self.complete)

    def rest(self) -> list[bytes]:
        """Every write from here on."""
        writes: list[bytes] = []
        until = time.monotonic() + GUARD
        while (piece := self.write()) is not None:
            writes.append(piece)
            assert time.monotonic() < until, "the stream does not end"
        self._work.result(GUARD)
        return writes

    def hang_up(self) -> None:
        """Go away, and see that the application lets go."""
        self._loop.call_soon_threadsafe(self._gone.set)
        self._work.result(GUARD)

    def _next(self) -> Message | None:
        return self._heard.get(timeout=GUARD)

    async def _run(self) -> None:
        try:
            await self._application(self._scope(), self._receive, self._send)
        finally:
            self._heard.put(None)

    def _scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "method": self._ask.method,
            "scheme": "http",
            "path": self._ask.path,
            "raw_path": self._ask.path.encode(),
            "query_string": self._ask.query.encode(),
            "headers": [(name.lower(), value) for name, value in (*self._ask.raw_headers(), (b"Host", b"test"))],
        }

    async def _receive(self) -> Message:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self._heard.put(message)


class Broken(Exception):  # noqa: N818  what happened to the connection
    """The connection ended before the answer did."""


class Connection:
    """A connection to a server. ``at_once`` is how many bytes it reads at a time."""

    def __init__(self, address: tuple[str, int], *, at_once: int = 65_536) -> None:
        self._socket = socket.create_connection(address, timeout=GUARD)
        self._at_once = at_once
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, ask: Ask) -> None:
        self.send_raw(ask.raw())

    def send_raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def hear(self, size: int) -> bytes:
        """The next ``size`` bytes, or fewer where the answer ends before."""
        while len(self._buffer) < size and self._more():
            pass
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def head(self) -> Answer:
        first, *rest = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in rest if line]
        return Answer(status=int(first.split()[1]), headers=[(name, value.strip()) for name, _, value in pairs])

    def chunk(self) -> bytes | None:
        """The next chunk; ``None`` for the last one. Raises ``Broken`` when the connection ends without it."""
        size = int(self._until(b"\r\n"), 16)
        data = self._exactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2] if size else None

    def answer(self, *, bodiless: bool = False) -> Answer:
        head = self.head()
        if bodiless or head.status == 204:
            return head
        if (length := head.header("Content-Length")) is not None:
            body = self._exactly(int(length))
            return Answer(status=head.status, headers=head.headers, writes=[body])
        assert head.header("Transfer-Encoding") == "chunked"
        return self.rest(head)

    def rest(self, head: Answer) -> Answer:
        """The answer of which the head was read."""
        writes: list[bytes] = []
        complete = True
        try:
            while (piece := self.chunk()) is not None:
                writes.append(piece)
        except Broken:
            complete = False
        return Answer(status=head.status, headers=head.headers, writes=writes, complete=complete)

    def to_the_end(self) -> bytes:
        """All that comes until the server closes the connection."""
        while self._more():
            pass
        data, self._buffer = self._buffer, b""
        return data

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._more():
                raise Broken
        data, _, self._buffer = self._buffer.partition(mark)
        return data

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._more():
                raise Broken
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self) -> bool:
        try:
            piece = self._socket.recv(self._at_once)
        except ConnectionError:
            return False
        self._buffer += piece
        return bool(piece)
