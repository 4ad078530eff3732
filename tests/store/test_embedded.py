"""The PostgreSQL of a data folder: started by the first, stopped by the last, found again after any death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest
from kit import run

from palaver.core.problems import Internal
from palaver.store.database import Database
from palaver.store.embedded import Embedded

_USE = """
import sys, time
from pathlib import Path
from palaver.store.embedded import Embedded
embedded = Embedded(Path(sys.argv[1]))
print(embedded.start(), flush=True)
sys.stdin.read()
embedded.stop()
"""


@pytest.fixture
def folder() -> Generator[Path]:
    path = Path(mkdtemp(prefix="palaver-"))
    yield path
    for pid in postgres_of(path):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path, ignore_errors=True)


def postgres_of(folder: Path) -> list[int]:
    """Every PostgreSQL process that works in this folder."""
    return [
        process.pid
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and str(process.info["cwd"] or "").startswith(str(folder))
    ]


def user_of(folder: Path) -> subprocess.Popen[str]:
    """Another process that uses the folder's server; it stops when its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _USE, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any(line.startswith("postgresql://") for line in process.stdout)
    return process


def leave(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()


async def ask(url: str) -> int:
    database = Database(url)
    await database.open()
    try:
        return await database.fetchval("SELECT current_setting('server_version_num')::int")
    finally:
        await database.close()


def test_the_last_who_uses_it_stops_it(folder: Path) -> None:
    embedded = Embedded(folder)
    url = embedded.start()
    assert run(ask(url)) >= 180000
    other = user_of(folder)
    assert embedded.stop() is False
    assert run(ask(url)) >= 180000
    leave(other)
    assert postgres_of(folder) == []


def test_after_a_kill_the_next_one_finds_the_server_and_stops_it(folder: Path) -> None:
    doomed = user_of(folder)
    doomed.kill()
    doomed.communicate()
    assert postgres_of(folder) != []
    embedded = Embedded(folder)
    assert run(ask(embedded.start())) >= 180000
    assert embedded.stop() is True
    assert postgres_of(folder) == []


def test_a_server_that_was_killed_is_started_again(folder: Path) -> None:
    embedded = Embedded(folder)
    url = embedded.start()
    processes = [psutil.Process(pid) for pid in postgres_of(folder)]
    os.kill(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    embedded.ensure()
    assert run(ask(url)) >= 180000
    embedded.stop()


def test_a_folder_with_a_long_name_works(folder: Path) -> None:
    deep = folder / ("long-" * 20) / "名字 with spaces"
    embedded = Embedded(deep)
    assert run(ask(embedded.start())) >= 180000
    embedded.stop()
    assert postgres_of(folder) == []


def test_nobody_else_may_enter_the_cluster(folder: Path) -> None:
    embedded = Embedded(folder)
    url = embedded.start()
    assert (folder / "postgres").stat().st_mode & 0o777 == 0o700
    assert "127.0.0.1" not in url
    embedded.stop()


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    embedded = Embedded(folder)
    embedded.start()
    embedded.stop()
    (folder / "postgres" / "postgresql.conf").write_text("shared_buffers = nonsense\n")
    with pytest.raises(Internal, match="nonsense"):
        Embedded(folder).start()
