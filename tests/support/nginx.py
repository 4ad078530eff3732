"""nginx as Debian ships it, in front of a server: its settings as they are, but for where it listens and writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import requests
from support.server_process import free_port

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
SHIPPED = Path("/etc/nginx/nginx.conf")
STARTS_WITHIN = 10.0
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def configuration(folder: Path, port: int, behind: str) -> str:
    """The shipped configuration, with one site."""
    site = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {behind}; }} }}"
    paths = " ".join(f"{name}_temp_path {folder}/{name};" for name in _TEMPORARY)
    text = re.sub(
        r"(?m)^\s*(?:user|pid|error_log|access_log|include \S*modules-enabled\S*)\b.*;", "", SHIPPED.read_text()
    )
    text, sites = re.subn(r"(?m)^\s*include \S*/sites-enabled/\S*;", site, text)
    assert sites == 1, "Debian's configuration includes its sites once"
    text = re.sub(r"(?m)^\s*include \S*/conf\.d/\S*;", f"access_log off; {paths}", text)
    user = "user root;\n" if os.getuid() == 0 else ""  # the workers must reach the test's folder
    return f"{user}pid {folder}/pid;\nerror_log {folder}/error.log;\n{text}"


@contextmanager
def in_front_of(behind: str, folder: Path) -> Generator[tuple[str, int]]:
    """The address of an nginx that hands everything to ``behind``, while the block lasts."""
    assert PROGRAM is not None
    port = free_port()
    settings = folder / "nginx.conf"
    settings.write_text(configuration(folder, port, behind))
    arguments = [PROGRAM, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(settings), "-g", "daemon off;"]
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL) as proxy:
        try:
            _wait(proxy, port, folder)
            yield "127.0.0.1", port
        finally:
            proxy.terminate()
            proxy.wait(STARTS_WITHIN)


def _wait(proxy: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < until:
        assert proxy.poll() is None, (folder / "error.log").read_text()
        try:
            requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
        except requests.ConnectionError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError((folder / "error.log").read_text())
