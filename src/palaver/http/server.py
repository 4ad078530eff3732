"""uvicorn as palaver runs it: uvloop, httptools, one place that decides when to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from palaver.http.stream import Receive, Send

Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
"""What answers requests: ``Front``, or what stands before it."""
HEADER_TIMEOUT = 10.0
"""Seconds a caller has for sending a request's head; after that the connection is closed."""
HEADER_BYTES = 65_536
"""Bytes a request's head may have; what comes in one read after it may be counted with it."""


class Protocol(HttpToolsProtocol):
    """uvicorn's, with limits on how long a request's head may be and take: it has none of its own."""

    _head: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_body = False
    """A request's head is complete and its body is not: what comes is no head, even when the answer is out already."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if self._head is None and not self._in_body and (cycle is None or cycle.response_complete):
            self._await_head()
        if self._head is not None and not self._head_bytes:
            data = _without_upgrade(data)
        super().data_received(data)
        if self._head is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("Request head too large.")

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._forget_head()
        cast("dict[str, Any]", self.scope)["target"] = _origin_form(self.url)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head = self.loop.call_later(HEADER_TIMEOUT, self.transport.close)

    def _forget_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


def _origin_form(target: bytes) -> str:
    """Path and query byte for byte as they were sent, without the scheme and host that a proxy may be sent."""
    text = target.decode("latin-1")
    if text.startswith("/") or "://" not in text:
        return text
    authority_and_path = text.partition("://")[2]
    start = re.search(r"[/?]", authority_and_path)
    return "/" if start is None else authority_and_path[start.start() :]


_UPGRADE = re.compile(rb"(?im)^upgrade(?=[ \t]*:)")


def _without_upgrade(data: bytes) -> bytes:
    """A request without its offer to upgrade the connection: Java's HttpClient makes one (h2c) with a first request,
    and httptools would pass over the body of such a request."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"X-Upgrade", head) + end + rest if end else data


class Server(uvicorn.Server):
    """``started`` is called once connections are taken. Signals are the caller's business."""

    def __init__(self, application: Application, *, started: Callable[[], None], closing_s: float) -> None:
        config = uvicorn.Config(
            application,  # pyright: ignore[reportArgumentType]  uvicorn's types want TypedDicts for ASGI messages
            loop="uvloop",
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=int(closing_s),
            backlog=2048,
        )
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket at that address, ready to listen; ``shared``: others that say the same may have it as well. Raises
    ``OSError`` with what the system said."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening


class Quiet(logging.Filter):
    """Drops uvicorn's complaints about what palaver does on purpose (a failed stream is broken off) or cannot help
    (a caller who speaks no HTTP)."""

    _EXPECTED = ("ASGI callable returned without completing response.", "Invalid HTTP request received.")

    def filter(self, record: logging.LogRecord) -> bool:
        message: Any = record.msg
        return message not in self._EXPECTED
