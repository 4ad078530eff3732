"""The command in a process that is forked from one which has imported everything: all that is left out is to start
Python and to import, which is most of what a short command costs. What has no terminal and ends by itself can be run.

``python forks.py FD`` is the process that forks. Of each command it hears on the socket FD: its standard streams, and
a socket on which it tells the process id and then the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_NUMBER = 4
_STDIN = 60_000
"""Bytes that fit into a pipe before anybody reads."""


class Forks:
    """Whoever runs commands. It starts with the first one, and ends with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None

    def run(
        self, words: Sequence[str], stdin: str, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        mine, theirs = socket.socketpair()
        source, sink = os.pipe()
        with mine, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with theirs, os.fdopen(source, "rb"), os.fdopen(sink, "wb") as pipe:
                content = stdin.encode()
                assert len(content) < _STDIN
                pipe.write(content)
                self._ask([*words], dict(environment), (source, out.fileno(), err.fileno(), theirs.fileno()))
            mine.settimeout(timeout)
            pid = _number(mine)
            try:
                code = _number(mine)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            texts = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
        return subprocess.CompletedProcess(list(words), code, *texts)

    def _ask(self, words: list[str], environment: dict[str, str], streams: tuple[int, ...]) -> None:
        body = json.dumps([words, environment, str(Path.cwd())]).encode()
        with self._lock:
            if self._line is None:
                self._line = self._start()
            socket.send_fds(self._line, [len(body).to_bytes(_NUMBER, "big")], streams)
            self._line.sendall(body)

    @staticmethod
    def _start() -> socket.socket:
        mine, theirs = socket.socketpair()
        with theirs:
            subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "NO_COLOR": "1"},
                start_new_session=True,
            ).returncode = 0  # it ends when the socket does; nobody waits for it
        return mine


FORKS = Forks()


def _number(line: socket.socket) -> int:
    return int.from_bytes(_exactly(line, _NUMBER), "big", signed=True)


def _exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = line.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


# In the process that forks ------------------------------------------------------------------------------------------


def _serve(line: socket.socket) -> list[str]:
    """Fork for each command; in the process that is to run one, its words."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for those who wait
    while True:
        head, streams, _, _ = socket.recv_fds(line, _NUMBER, 4)
        if not head:
            os._exit(0)
        words, environment, folder = json.loads(_exactly(line, int.from_bytes(head, "big")))
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (pid := os.fork()) == 0:
                for number, stream in enumerate(streams[:3]):
                    os.dup2(stream, number)
                os.closerange(3, max(*streams, line.fileno()) + 1)
                os.chdir(folder)
                os.environ.clear()
                os.environ.update(environment)
                return words
            told = socket.socket(fileno=streams[3])
            told.sendall(pid.to_bytes(_NUMBER, "big", signed=True))
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            told.sendall(code.to_bytes(_NUMBER, "big", signed=True))
            os._exit(0)
        for stream in streams:
            os.close(stream)


if __name__ == "__main__":
    from palaver.__main__ import main

    line = socket.socket(fileno=int(sys.argv[1]))
    sys.argv = ["palaver", "--version"]
    with suppress(SystemExit):  # some modules are imported by the first command only
        main()
    sys.argv = ["palaver", *_serve(line)]
    main()
