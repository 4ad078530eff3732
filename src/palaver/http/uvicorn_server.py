"""uvicorn as palaver runs it: uvloop, httptools, one place that decides when to end."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

import uvicorn

from palaver.http.connections import ConnectionLimits, Connections
from palaver.http.protocol import HttpProtocol
from palaver.http.stream import Receive, Send

Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
"""What answers requests: ``App``, or what stands before it."""


class Server(uvicorn.Server):
    """``started`` is called once connections are taken. Signals are the caller's business."""

    def __init__(
        self,
        application: Application,
        *,
        started: Callable[[], None],
        closing_s: float,
        connections: Connections | None = None,
    ) -> None:
        connections = Connections(ConnectionLimits()) if connections is None else connections
        config = uvicorn.Config(
            application,  # pyright: ignore[reportArgumentType]  uvicorn's types want TypedDicts for ASGI messages
            loop="uvloop",
            http=partial(HttpProtocol, connections=connections),  # pyright: ignore[reportArgumentType]  it is called
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=closing_s,  # pyright: ignore[reportArgumentType]  it is waited for as it is
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


def bind_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
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


class UvicornNoiseFilter(logging.Filter):
    """Drops uvicorn's complaints about what palaver does on purpose (a failed stream is broken off) or cannot help
    (a caller who speaks no HTTP)."""

    _EXPECTED = ("ASGI callable returned without completing response.", "Invalid HTTP request received.")

    def filter(self, record: logging.LogRecord) -> bool:
        message: Any = record.msg
        return message not in self._EXPECTED
