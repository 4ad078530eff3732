"""Configures uvicorn: uvloop, ``HttpProtocol``, no lifespan, no signal handling."""

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

ACCEPTS_PER_ITERATION = 16
"""Connections accepted per listening socket in one iteration of the event loop. libuv accepts one per handle, so every
socket has several."""

ASGIApp = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]
"""An ASGI 3 application: ``App``, or a middleware around it."""


class Server(uvicorn.Server):
    """A uvicorn server without signal handlers: its owner sets ``should_exit`` and ``force_exit``. ``on_started`` is
    called once connections are accepted; ``graceful_shutdown_s`` limits how long open responses may take at shutdown.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        on_started: Callable[[], None],
        graceful_shutdown_s: float,
        connections: Connections | None = None,
    ) -> None:
        connections = Connections(ConnectionLimits()) if connections is None else connections
        config = uvicorn.Config(
            app,  # pyright: ignore[reportArgumentType]  uvicorn types ASGI messages as TypedDicts
            loop="uvloop",
            http=partial(HttpProtocol, connections=connections),  # pyright: ignore[reportArgumentType]  a factory is accepted
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=graceful_shutdown_s,  # pyright: ignore[reportArgumentType]  a float works
            backlog=2048,
        )
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        await super().startup([*sockets, *(sock.dup() for sock in sockets for _ in range(ACCEPTS_PER_ITERATION - 1))])
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def bind_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound, non-blocking TCP socket that does not listen yet; ``shared`` sets ``SO_REUSEPORT``. Raises ``OSError``
    if it cannot be bound."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class ExpectedErrorFilter(logging.Filter):
    """Drops log records of uvicorn about expected events: a response aborted on purpose, a client that does not speak
    HTTP."""

    _EXPECTED_MESSAGES = ("ASGI callable returned without completing response.", "Invalid HTTP request received.")

    def filter(self, record: logging.LogRecord) -> bool:
        message: Any = record.msg
        return message not in self._EXPECTED_MESSAGES
