"""A relay that breaks connections: what a client meets that reads over a bad network."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from support.http_clients import GUARD


class Cutting:
    """Passes a server's answers on, and hangs up after ``size`` bytes of each; from the ``times``-th connection on it
    passes on everything."""

    def __init__(self, server: tuple[str, int], *, size: int, times: int) -> None:
        self._server = server
        self._size = size
        self._times = times
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._work, name="relay", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # macOS: a listening socket is not connected
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(GUARD)

    def _work(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with client, socket.create_connection(self._server, timeout=GUARD) as server:
                client.settimeout(GUARD)
                self._pass_on(client, server, self._size if self.connections <= self._times else 1 << 30)

    @staticmethod
    def _pass_on(client: socket.socket, server: socket.socket, left: int) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (piece := client.recv(65_536)):
                return
            request += piece
        # One answer a connection, so that its end is seen here.
        server.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        while left and (piece := server.recv(min(left, 65_536))):
            left -= len(piece)
            try:
                client.sendall(piece)
            except OSError:  # the client has read what it wanted
                return
