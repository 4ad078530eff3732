"""palaver as its users have it: a process with its own data folder, on a real socket."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_bytes
from typing import Any, TypeVar

import psutil
import requests
from support.kit import run, store_on
from support.model_endpoint import Act, Upstream
from support.stalls import STALLS

from palaver.agentfile import parse
from palaver.app import all_dialects
from palaver.core.types import Agent, ApiKey
from palaver.store.embedded import EmbeddedPostgres
from palaver.store.postgres import PostgresStore
from palaver.store.secrets import load_or_create_master_key

T = TypeVar("T")

STARTS_WITHIN = 30.0
STOPS_WITHIN = 30.0
PALAVER = str(Path(sys.executable).with_name("palaver"))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Installation:
    """A data folder, the commands on it, and the server when it runs."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PALAVER_", "OPENAI_"))},
            "PALAVER_DATA": str(folder / "data"),
            "PALAVER_PORT": str(self.port),
            **environment,
        }
        self.server: subprocess.Popen[bytes] | None = None
        self.log = folder / "server.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def palaver(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a command; what it printed."""
        done = subprocess.run(
            [PALAVER, *arguments],
            check=False,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def json(self, *arguments: str, stdin: str | None = None) -> Any:
        return json.loads(self.palaver(*arguments, "--json", stdin=stdin))

    def start(self, *arguments: str) -> float:
        """Start the server; the seconds until it was ready."""
        begun = time.monotonic()
        STALLS.follow(self.log)
        with self.log.open("ab") as log:
            self.server = subprocess.Popen(
                [PALAVER, "serve", *arguments], env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        while time.monotonic() < begun + STARTS_WITHIN:
            assert self.server.poll() is None, self.log.read_text()
            try:
                if requests.get(f"{self.url}/readyz", timeout=5).ok:
                    return time.monotonic() - begun
            except requests.ConnectionError:
                time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> float:
        """End the server with a signal; the seconds until it was gone."""
        assert self.server is not None
        begun = time.monotonic()
        self.server.send_signal(how)
        self.server.wait(STOPS_WITHIN)
        return time.monotonic() - begun

    def left(self) -> list[psutil.Process]:
        """Processes that still work in the data folder."""
        mark = str(self.folder)
        return [
            process
            for process in psutil.process_iter(["cwd", "cmdline"])
            if mark in str(process.info["cwd"]) or any(mark in word for word in process.info["cmdline"] or ())
        ]

    # Talking to it --------------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[PostgresStore], Awaitable[T]]) -> T:
        """Do something with the running server's database, as a command would, which costs more time."""
        data, named = self.folder / "data", self.environment.get("PALAVER_MASTER_KEY")
        own = self.environment.get("PALAVER_DATABASE_URL")
        url = own or EmbeddedPostgres(data)._url()  # pyright: ignore[reportPrivateUsage]
        master = bytes.fromhex(named) if named else load_or_create_master_key(data / "master.key")

        async def alone() -> T:
            async with store_on(url, master) as store:
                return await work(store)

        return run(alone())

    def agent(self, text: str, app: str = "demo") -> Any:
        async def apply(store: PostgresStore) -> Agent:
            return await store.agents.upsert(await store.applications.get_or_create(app), parse(text))

        made = self._do(apply)
        return {"id": made.id, "uid": made.uid.hex, "name": made.name}

    def key(self, app: str = "demo", dialect: str = "snail", **settings: Any) -> Any:
        made = next(one for one in all_dialects() if one.name == dialect)
        name, secret = made.new_credential(token_bytes(32))

        async def create(store: PostgresStore) -> ApiKey:
            return await store.keys.create(await store.applications.get_or_create(app), dialect, name, secret, settings)

        key = self._do(create)
        return {"id": key.id, "secret": key.secret}

    def chat(self, secret: str, agent: int, content: str = "hi", **members: Any) -> requests.Response:
        """Surface A of the snail dialect, streamed."""
        headers = {"Snail-Ai-Auth": secret, **members.pop("headers", {})}
        body = {"agentId": agent, "openId": "ann", "content": content, **members}
        return requests.post(f"{self.url}/snail-ai/open-api/chat", json=body, headers=headers, stream=True, timeout=30)


def lines(response: requests.Response) -> Iterator[Any]:
    """The events of a stream, as they come; raises where it breaks off."""
    for line in response.iter_lines(chunk_size=65536):  # of a chunked answer each chunk as it comes
        if line:
            yield json.loads(line)


def heard(stream: Iterator[Any]) -> tuple[list[Any], bool]:
    """Every event that is still to come of a stream, and whether it was broken off."""
    events: list[Any] = []
    try:
        events.extend(stream)
    except requests.RequestException:
        return events, True
    return events, False


@functools.cache
def prepared() -> Path:
    """The data folder of a server that was started and stopped once, for copies. It goes with the tests' process."""
    folder = Path(tempfile.mkdtemp(prefix="palaver-prepared-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    once = Installation(folder)
    once.start()
    once.stop()
    return folder / "data"


@contextmanager
def installed(used: bool = False, /, **environment: str) -> Generator[Installation]:
    """An installation that leaves nothing behind; a ``used`` one has been started before."""
    folder = Path(tempfile.mkdtemp(prefix="palaver-e2e-"))
    if used:
        folder.chmod(0o755)  # PostgreSQL's user has to pass
        subprocess.run(["cp", "-a", str(prepared()), str(folder / "data")], check=True)
    installation = Installation(folder, **environment)
    try:
        yield installation
    finally:
        if installation.server is not None and installation.server.poll() is None:
            installation.server.kill()
            installation.server.wait(10)
        for process in installation.left():
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile, as it should
                process.kill()
        STALLS.leave(installation.log)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def endpoint(*acts: Act) -> Generator[Upstream]:
    """A model's endpoint, served from a thread of its own."""
    ready: list[tuple[Upstream, asyncio.AbstractEventLoop, asyncio.Event]] = []
    up = threading.Event()

    async def serve() -> None:
        async with Upstream.serving(*acts) as upstream:
            end = asyncio.Event()
            ready.append((upstream, asyncio.get_running_loop(), end))
            up.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert up.wait(5)
    upstream, loop, end = ready[0]
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
