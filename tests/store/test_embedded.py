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
from support.kit import run

from palaver.config import SettingsError, load
from palaver.core.problems import Internal
from palaver.store import embedded as module
from palaver.store.database import Database
from palaver.store.embedded import EmbeddedPostgres

_USE = """
import sys, time
from pathlib import Path
from palaver.store.embedded import EmbeddedPostgres
embedded = EmbeddedPostgres(Path(sys.argv[1]))
print(embedded.start(), flush=True)
sys.stdin.read()
embedded.release()
"""


@pytest.fixture
def folder() -> Generator[Path]:
    path = Path(mkdtemp(prefix="palaver-"))
    yield path
    for pid in postgres_of(path):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def made() -> Generator[Path]:
    """The database of a server that has been started and stopped."""
    path = Path(mkdtemp(prefix="palaver-"))
    embedded = EmbeddedPostgres(path)
    embedded.start()
    embedded.release()
    yield path / "postgres"
    shutil.rmtree(path)


@pytest.fixture
def used(folder: Path, made: Path) -> Path:
    """A folder with a database, which costs less than a new one."""
    folder.chmod(0o755)  # PostgreSQL's user has to pass
    subprocess.run(["cp", "-a", made, folder], check=True)
    return folder


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


def test_the_last_who_uses_it_stops_it(used: Path) -> None:
    embedded = EmbeddedPostgres(used)
    url = embedded.start()
    assert run(ask(url)) >= 180000
    other = user_of(used)
    assert embedded.release() is False
    assert run(ask(url)) >= 180000
    leave(other)
    assert postgres_of(used) == []


def test_after_a_kill_the_next_one_finds_the_server_and_stops_it(used: Path) -> None:
    doomed = user_of(used)
    doomed.kill()
    doomed.communicate()
    assert postgres_of(used) != []
    embedded = EmbeddedPostgres(used)
    assert run(ask(embedded.start())) >= 180000
    assert embedded.release() is True
    assert postgres_of(used) == []


def test_a_server_that_was_killed_is_started_again(used: Path) -> None:
    embedded = EmbeddedPostgres(used)
    url = embedded.start()
    processes = [psutil.Process(pid) for pid in postgres_of(used)]
    os.kill(int((used / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    embedded.ensure_running()
    assert run(ask(url)) >= 180000
    embedded.release()


def test_a_folder_with_a_long_name_works(folder: Path) -> None:
    deep = folder / ("long-" * 20) / "名字 with spaces"
    embedded = EmbeddedPostgres(deep)
    assert run(ask(embedded.start())) >= 180000
    embedded.release()
    assert postgres_of(folder) == []


def test_nobody_else_may_enter_the_cluster(folder: Path) -> None:
    embedded = EmbeddedPostgres(folder)
    url = embedded.start()
    assert (folder / "postgres").stat().st_mode & 0o777 == 0o700
    assert "127.0.0.1" not in url
    embedded.release()


def test_a_server_that_cannot_start_says_why(used: Path) -> None:
    embedded = EmbeddedPostgres(used)
    embedded.start()
    embedded.release()
    (used / "postgres" / "postgresql.conf").write_text("shared_buffers = nonsense\n")
    with pytest.raises(Internal, match="nonsense"):
        EmbeddedPostgres(used).start()


# Folders --------------------------------------------------------------------------------------------------------------

NAMES = [
    "with spaces/50%/a=b#c?d&e/数据 é 😀",
    "it's/`touch PWNED`/$(touch PWNED)/${HOME}",
    "a;touch PWNED;/a&&touch PWNED/|touch PWNED/-D/~/*",
    'say "hi"/a,b/back\\slash',
    "x" * 200,
    "/".join(["deep" * 12] * 8),
]
"""Each costs a new database: folders within folders have several names at once."""
REFUSED = [
    ("line\nbreak", "control character"),
    ("tab\there", "control character"),
    ("\x7f", "control character"),
    ("\udcff", "not UTF-8"),
    ("/".join(["deep" * 50] * 5), "more than 900 bytes"),
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder_works_and_none_is_run(folder: Path, name: str) -> None:
    (folder / "here").mkdir()
    embedded = EmbeddedPostgres(folder / "here" / name)
    assert run(ask(embedded.start())) >= 180000
    embedded.ensure_running()
    assert embedded.release() is True
    assert postgres_of(folder) == []
    assert list(folder.rglob("PWNED")) == []
    assert not Path("/PWNED").exists()


@pytest.mark.parametrize(("name", "why"), REFUSED, ids=[why for _, why in REFUSED])
def test_a_folder_that_cannot_be_is_refused_at_once_and_not_made(folder: Path, name: str, why: str) -> None:
    with pytest.raises(Internal, match=why):
        EmbeddedPostgres(folder / name).start()
    with pytest.raises(SettingsError, match=why):
        load({"PALAVER_DATA": str(folder / name)}, {})
    assert list(folder.iterdir()) == []


def test_a_link_to_a_folder_and_a_relative_one_are_that_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "real").mkdir(mode=0o700)
    (folder / "link").symlink_to("real/data")
    monkeypatch.chdir(folder)
    through, relative = EmbeddedPostgres(folder / "link"), EmbeddedPostgres(Path("real/data"))
    assert through.start() == relative.start()
    assert through.release() is False
    assert relative.release() is True
    assert postgres_of(folder) == []


def test_a_folder_that_cannot_be_written_is_one_error_with_its_name() -> None:
    with pytest.raises(OSError, match="/proc/1/palaver"):
        EmbeddedPostgres(Path("/proc/1/palaver")).start()


def test_a_log_that_leads_elsewhere_is_not_followed(used: Path) -> None:
    embedded = EmbeddedPostgres(used)
    embedded.start()
    embedded.release()
    log = used / "postgres" / "server.log"
    log.unlink()
    log.symlink_to(used / "elsewhere")
    with pytest.raises(OSError, match=r"server\.log"):
        EmbeddedPostgres(used).start()
    assert not (used / "elsewhere").exists()


def test_initdb_is_not_run_where_a_shell_would_read_its_own_folder_s_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = folder / "`touch PWNED`" / "bin"
    programs.mkdir(parents=True)
    monkeypatch.setattr(module, "_bin_folder", lambda: programs)
    with pytest.raises(Internal, match="hand to a shell"):
        EmbeddedPostgres(folder / "data").start()


def test_no_shell_is_on_any_way() -> None:
    """In the code: PostgreSQL's programs are started with a list of words, ``pg_ctl``, which runs a shell, never."""
    text = Path(module.__file__).read_text()
    assert "shell=True" not in text
    assert '"pg_ctl"' not in text


def test_a_number_that_another_process_has_now_is_no_server(used: Path) -> None:
    """After a power cut the file names a process that may be anybody's by now."""
    embedded = EmbeddedPostgres(used)
    embedded.start()
    embedded.release()
    (used / "postgres" / "postmaster.pid").write_text(
        f"{os.getpid()}\n{used}/postgres\n1\n5432\n{used}/postgres\n\n1 1\nready   \n"
    )
    assert run(ask(embedded.start())) >= 180000
    embedded.release()
    assert postgres_of(used) == []
