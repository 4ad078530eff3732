"""The world outside: HTTP servers on loopback addresses that do what a test tells them, and names that lead there."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from palaver.core.fetch import FetchError
from palaver.tools.guard import Guard

Writer = asyncio.StreamWriter
Act = bytes | Callable[[Writer], Awaitable[None]] | None
"""What a path answers: all of it, or by a function that writes it, or nothing until the client is gone."""


def answer(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """A whole answer. An underscore in a header's name stands for a hyphen."""
    all_headers = {"Content_Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in all_headers.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return answer(status=status, Location=location)


class Outside:
    """A server. ``requests`` are the heads it was sent, ``bodies`` what followed, ``connections`` how often somebody
    connected, ``abandoned`` is set when a client closes a connection."""

    def __init__(self, acts: Mapping[str, Act], host: str) -> None:
        self.acts = acts
        self.host = host
        self.port = 0
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.abandoned = asyncio.Event()

    @property
    def place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.place}"

    def header(self, name: str, request: int = -1) -> str | None:
        """A header of a request, the last one's unless said otherwise."""
        lines = [line.partition(": ") for line in self.requests[request].split("\r\n")[1:]]
        return next((value for key, _, value in lines if key.lower() == name.lower()), None)

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            self.bodies.append(await reader.readexactly(int(self.header("Content-Length") or 0)))
            self.asked.set()
            act = self.acts[head.split(" ")[1]]
            if act is None:
                await reader.read()
                self.abandoned.set()
            elif isinstance(act, bytes):
                writer.write(act)
                await writer.drain()
            else:
                await act(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.abandoned.set()
        finally:
            writer.close()

    @staticmethod
    @asynccontextmanager
    async def serving(
        acts: Mapping[str, Act] | None = None, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> AsyncGenerator[Outside]:
        outside = Outside(acts or {}, host)
        server = await asyncio.start_server(outside.serve, host, 0, ssl=tls)
        outside.port = server.sockets[0].getsockname()[1]
        async with server:
            yield outside


class Names:
    """A resolver whose answers a test gives: for each name its addresses, look-up after look-up, the last ones for
    all that are left. ``asked`` counts look-ups."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked = 0

    async def __call__(self, name: str, port: int) -> Sequence[str]:
        self.asked += 1
        if name not in self._answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self._answers[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def refused(guard: Guard, url: str) -> FetchError:
    """Why ``url`` is not fetched, which must be so."""
    try:
        fetched = await guard.get(url)
    except FetchError as reason:
        return reason
    raise AssertionError(fetched)


def pieces(*said: bytes, pause: float = 0) -> Callable[[Writer], Awaitable[None]]:
    """Each of ``said`` in a write of its own, the last one again and again, as long as somebody listens."""

    async def act(writer: Writer) -> None:
        for piece in said[:-1]:
            writer.write(piece)
        while True:
            writer.write(said[-1])
            await writer.drain()
            await asyncio.sleep(pause)

    return act
