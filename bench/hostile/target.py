"""The attacked server: ``palaver serve`` with limited memory, and the attackers' data in it."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from bench.calling import Failed
from bench.machine import Cpus, Process
from bench.stage import Server, palaver, scratch
from palaver import app
from palaver.config import Settings
from palaver.core.types import Agent, AgentSpec, ApiKey
from palaver.store.driver import Connection, connect
from palaver.store.embedded import EmbeddedPostgres

MEMORY = 512 * 2**20
"""The kernel's limit for the server's data, in bytes: all private writable memory, used or not."""
MEGA = 2**20
WORDS = "a whole answer"
_PIECE = " ".join(f"{secrets.token_hex(4)}" for _ in range(910))  # 8 KiB that hardly compress
AGENTS = {
    "quick": ("scripted", f"- text: {WORDS}"),
    "reader": ("scripted", "- text: ${files}"),
    "quoter": ("extract", ""),
    "long": ("scripted", f"- repeat: {{text: '{_PIECE}', times: 256, every: 0.03}}"),
    "hanging": ("scripted", "- text: begun\n- wait: 600"),
    "endless": ("scripted", "- repeat: {text: 'some words ', times: 100000, every: 0.05}"),
    "refused": ("scripted", "- text: UNSTORABLE"),
}
"""Name, model and instructions of the agents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The data: an application of the attackers, and one of the healthy caller."""

    folder: Path
    url: str
    keys: Mapping[str, ApiKey]
    """The attackers' keys, by dialect."""
    agents: Mapping[str, Agent]
    neighbour: ApiKey
    neighbours_agent: Agent


@asynccontextmanager
async def grounds() -> AsyncGenerator[Ground]:
    """Set up PostgreSQL and its data, and clean up afterwards."""
    async with scratch() as folder:
        embedded = EmbeddedPostgres(folder / "data")
        url = await asyncio.to_thread(embedded.start)
        try:
            yield await _ground(folder, url)
        finally:
            embedded.release()


async def _ground(folder: Path, url: str) -> Ground:
    async with app.open_core(Settings(data=str(folder / "data"), database_url=url), {}) as core:
        store = core.store

        async def key(application: str, dialect: str) -> ApiKey:
            owner = await store.applications.get_or_create(application)
            maker = next(one for one in app.all_dialects() if one.name == dialect)
            name, secret = maker.new_credential(secrets.token_bytes(32))
            return await store.keys.create(owner, dialect, name, secret, {"default_user": "somebody"})

        keys = {one.name: await key("attackers", one.name) for one in app.all_dialects()}
        attackers = await store.applications.get_or_create("attackers")
        agents = {
            name: await store.agents.upsert(attackers, AgentSpec(name=name, model=model, instructions=instructions))
            for name, (model, instructions) in AGENTS.items()
        }
        neighbour = await key("neighbours", "native")
        model, instructions = AGENTS["quick"]
        agent = AgentSpec(name="quick", model=model, instructions=instructions)
        return Ground(
            folder=folder,
            url=url,
            keys=keys,
            agents=agents,
            neighbour=neighbour,
            neighbours_agent=await store.agents.upsert(await store.applications.get_or_create("neighbours"), agent),
        )


class Target:
    """A running server. ``size`` is the relative size of an attack (1: full), ``until`` its deadline."""

    def __init__(self, ground: Ground, server: Server, connection: Connection) -> None:
        self.ground = ground
        self.connection = connection
        self.port = server.port
        self.process = server.process
        self.size = 1.0
        self.until = 0.0
        self._read = 0

    def number(self, whole: int, *, least: int = 1) -> int:
        """``whole``, scaled by the size of the attack."""
        return max(least, int(whole * self.size))

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.until - time.monotonic())

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Any = b"",
        *,
        user: str = "mallory",
        key: str = "native",
        **more: str,
    ) -> bytes:
        """A request to palaver's own API; ``body`` is bytes, or a value to encode as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Host": "127.0.0.1",
            "Authorization": f"Bearer {self.ground.keys[key].secret}",
            "X-User-ID": user,
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{method} /palaver/v1/{path} HTTP/1.1\r\n{lines}\r\n".encode() + content

    def message(self, agent: str, content: str = "hi", *, user: str = "mallory", **members: Any) -> bytes:
        """A request that creates a conversation."""
        body = {"agent": self.ground.agents[agent].id, "content": content, **members}
        return self.request("POST", "messages", body, user=user)

    async def metric(self, name: str) -> float:
        status, body = await ask(self.port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        match = re.search(rf"(?m)^{name} ([0-9.e+]+)$".encode(), body)
        if status != 200 or match is None:
            raise Failed(f"no figure {name}")
        return float(match[1])

    async def stop_all(self, user: str = "mallory") -> None:
        """Stop the live runs of the user's conversations."""
        status, body = await ask(self.port, self.request("GET", "conversations?limit=100", user=user))
        for conversation in json.loads(body)["conversations"] if status == 200 else ():
            if conversation["working"]:
                path = f"conversations/{conversation['uid']}/stop"
                await ask(self.port, self.request("POST", path, b"{}", user=user))

    async def idle(self, within: float = 15.0) -> None:
        """Wait until there are no live runs and no open streams."""
        await self.falls("palaver_live_runs", 0, within)
        await self.falls("palaver_open_streams", 0, within)

    async def falls(self, name: str, to: float, within: float) -> None:
        until = time.monotonic() + within
        while (value := await self.metric(name)) > to:
            if time.monotonic() > until:
                raise Failed(f"{name} is still {value:g} after {within:g} s")
            await asyncio.sleep(0.2)

    def logged(self) -> list[dict[str, Any]]:
        """New lines of the log since the last call."""
        with (self.ground.folder / "palaver.log").open("rb") as log:
            log.seek(self._read)
            lines = log.read()
            self._read += len(lines)
        return [_decoded(line) for line in lines.decode(errors="replace").splitlines() if line]


def _decoded(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        broken = "Traceback" in line or "Error" in line
        return {"level": "error" if broken else "info", "event": line}


@asynccontextmanager
async def serving(ground: Ground, cpus: Cpus) -> AsyncGenerator[Target]:
    """Start a server with limited memory on the data; kill it afterwards if it still runs."""
    log = ground.folder / "palaver.log"
    log.unlink(missing_ok=True)
    server = palaver(ground.folder, cpus, PALAVER_DEMO="false", PALAVER_DATABASE_URL=ground.url)
    connection = await connect(ground.url, timeout=10)
    try:
        if sys.platform == "linux":
            resource.prlimit(server.process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
        await server.process.listens(server.port)
        yield Target(ground, server, connection)
    finally:
        server.process.kill()
        await connection.close()


class Memory:
    """The server's memory, sampled ten times per second."""

    def __init__(self, process: Process) -> None:
        self._watched = psutil.Process(process.pid)
        self.highest = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def now(self) -> int:
        """Private resident memory, in bytes."""
        return _status(self._watched.pid, "VmRSS")

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            self.highest = max(self.highest, _status(self._watched.pid, "VmData"))
            await asyncio.sleep(0.1)


def _status(pid: int, name: str) -> int:
    """A value from the kernel's status of a process, in bytes; 0 if it has exited."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    match = re.search(rf"(?m)^{name}:\s+([0-9]+) kB$", status)
    return 0 if match is None else int(match[1]) * 1024


# Requests -----------------------------------------------------------------------------------------------------------


async def dial(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, limit=2**16)


async def ask(port: int, request: bytes, within: float = 60.0) -> tuple[int, bytes]:
    """Send a request on a new connection. Returns (status, body); status 0 without a response."""
    try:
        async with asyncio.timeout(within):
            reader, writer = await dial(port)
            try:
                writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                answer = await reader.read(-1)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0), body
