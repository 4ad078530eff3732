"""PgBouncer as Debian ships it, in front of a PostgreSQL server: its settings as they are, but for mode and places."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import parse_qs, urlsplit

from support.server_process import free_port

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
STARTS_WITHIN = 10.0


@contextmanager
def pooled(url: str, mode: str, *, sessions: int) -> Generator[str]:
    """The address of ``url``'s database through a pooler in that mode, with that many sessions."""
    assert PROGRAM is not None
    parts = urlsplit(url)
    place = parse_qs(parts.query)
    port = free_port()
    folder = Path(mkdtemp(prefix="palaver-pgbouncer-"))
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={place['host'][0]} port={place['port'][0]} user={parts.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {sessions}\nmax_client_conn = 200\nserver_lifetime = 5\n"
    )
    words = [PROGRAM, str(settings)]
    if os.getuid() == 0:  # it refuses to be root, and has to reach the socket
        folder.chmod(0o755)
        words[1:1] = ["-u", pwd.getpwuid(Path(place["host"][0]).stat().st_uid).pw_name]
    with (folder / "log").open("wb") as log, subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=log) as pooler:
        try:
            _wait(pooler, port, folder / "log")
            yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
        finally:
            pooler.kill()
            pooler.wait(STARTS_WITHIN)
            shutil.rmtree(folder)


def _wait(pooler: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        assert pooler.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(log.read_text())
