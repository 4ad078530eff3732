"""A model's endpoint that speaks without end, and notices at once when nobody listens any more."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from support.model_endpoint import chunk

PIECE = chunk({"content": "drop "})
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
EVERY = 0.005
"""Seconds between two pieces."""


class Faucet:
    """The endpoint. ``asked`` counts requests, ``sent`` the pieces that went out on all connections."""

    def __init__(self) -> None:
        self.asked = 0
        self.sent = 0
        self.flowing = threading.Event()
        """Something has been sent."""
        self.closed = threading.Event()
        """Somebody closed the connection, at ``closed_at`` by the monotonic clock."""
        self.closed_at = 0.0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"

    @contextmanager
    def open(self) -> Generator[Faucet]:
        thread = threading.Thread(target=self._accept, name="faucet", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            thread.join()

    def _accept(self) -> None:
        threads: list[threading.Thread] = []
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threads.append(threading.Thread(target=self._flow, args=(connection,), daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _flow(self, connection: socket.socket) -> None:
        with connection:
            request = b""
            while b'"stream"' not in request:
                request += connection.recv(65_536)
            self.asked += 1
            connection.sendall(HEAD)
            connection.settimeout(EVERY)
            while not self._over.is_set():
                with suppress(TimeoutError, ConnectionError):
                    if connection.recv(65_536) == b"":
                        break
                try:
                    connection.sendall(PIECE)
                except OSError:
                    break
                self.sent += 1
                self.flowing.set()
            self.closed_at = time.monotonic()
            self.closed.set()
