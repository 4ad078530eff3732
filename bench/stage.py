"""The setup of a measurement: the model's endpoint, PostgreSQL, the relay, palaver, the callers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from bench.callers import SETTINGS, USER, Caller, get
from bench.calling import Line
from bench.machine import Cpus, Process, free_port, pin
from bench.upstream import Upstream
from palaver import app
from palaver.config import Settings
from palaver.core.types import Agent, AgentSpec, Application
from palaver.store.driver import Connection, connect
from palaver.store.embedded import EmbeddedPostgres

LIMITS: Mapping[str, Any] = {"rpm": 10**9, "total": 10**12}
"""Every call is counted, none is rejected."""
_STATEMENTS = re.compile(rb"(?m)^palaver_statements_total ([0-9.e+]+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A measured server: its process and its port."""

    process: Process
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The data of the callers in palaver."""

    application: Application
    agent: Agent
    callers: Mapping[str, Caller]
    """By dialect."""


class Stage:
    """The setup. ``renew`` replaces ``palaver``."""

    def __init__(
        self, folder: Path, cpus: Cpus, upstream: Upstream, url: str, connection: Connection, ground: Ground
    ) -> None:
        self.folder = folder
        self.cpus = cpus
        self.upstream = upstream
        self.url = url
        self.connection = connection
        self.ground = ground
        self.relay: Server
        self.palaver: Server
        self._alone = asyncio.Lock()

    async def open(self) -> None:
        port = free_port()
        command = [sys.executable, "-m", "bench.relay", str(port), self.upstream.url]
        relay = Process(command, environment(), self.folder / "relay.log", self.cpus.server)
        self.relay = Server(process=relay, port=port)
        self.palaver = palaver(self.folder, self.cpus, OPENAI_BASE_URL=self.upstream.url, PALAVER_DEMO="false")
        await relay.listens(port)
        await self.palaver.process.listens(self.palaver.port)

    def close(self) -> None:
        for name in ("relay", "palaver"):
            server: Server | None = getattr(self, name, None)
            if server is not None:
                server.process.kill()

    async def renew(self) -> None:
        """Restart palaver."""
        await asyncio.to_thread(self.palaver.process.stop)
        self.palaver = palaver(self.folder, self.cpus, OPENAI_BASE_URL=self.upstream.url, PALAVER_DEMO="false")
        await self.palaver.process.listens(self.palaver.port)

    async def conversations(self, count: int, user: str = USER) -> list[UUID]:
        """Create empty conversations."""
        async with self._alone:
            rows = await self.connection.fetch(
                "INSERT INTO conversation (app, uid, end_user, agent, title)"
                " SELECT $1, gen_random_uuid(), u.id, $2, 'bench' FROM end_user u, generate_series(1, $4::integer)"
                " WHERE u.app = $1 AND u.name = $3 RETURNING uid",
                self.ground.application.id,
                self.ground.agent.id,
                user,
                count,
            )
        return [row["uid"] for row in rows]

    async def statements(self) -> int:
        """The number of statements that palaver has sent to PostgreSQL."""
        line = await Line.to(self.palaver.port)
        match = _STATEMENTS.search(await line.whole(get("/metrics")))
        line.hang_up()
        assert match is not None
        return int(float(match[1]))


def environment(**more: str) -> dict[str, str]:
    """The environment of a server: this process's without settings of palaver, with ``more``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PALAVER_", "OPENAI_"))}
    return {**inherited, **more}


def palaver(folder: Path, cpus: Cpus, **more: str) -> Server:
    """Start palaver on the data folder in ``folder``, with default settings and ``more``."""
    port = free_port()
    variables = environment(
        PALAVER_DATA=str(folder / "data"), PALAVER_PORT=str(port), PALAVER_MODEL="openai:gpt", **more
    )
    command = [sys.executable, "-m", "palaver", "serve"]
    return Server(process=Process(command, variables, folder / "palaver.log", cpus.server), port=port)


@asynccontextmanager
async def scratch() -> AsyncGenerator[Path]:
    """A temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="palaver-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def staged(cpus: Cpus, dialects: Sequence[str], users: Sequence[str] = ()) -> AsyncGenerator[Stage]:
    """Set up, and clean up afterwards. ``users`` are end users in addition to ``USER``."""
    pin(0, cpus.others)
    async with scratch() as folder:
        embedded = EmbeddedPostgres(folder / "data")
        upstream = Upstream()
        url = await asyncio.to_thread(embedded.start)
        try:
            ground = await _ground(Settings(data=str(folder / "data"), database_url=url), dialects, users)
            await upstream.open()
            connection = await connect(url, timeout=10)
            stage = Stage(folder, cpus, upstream, url, connection, ground)
            try:
                await stage.open()
                yield stage
            finally:
                stage.close()
                await connection.close()
                await upstream.close()
        finally:
            embedded.release()


async def _ground(settings: Settings, dialects: Sequence[str], users: Sequence[str]) -> Ground:
    async with app.open_core(settings, {}) as core:
        admin = core.admin()
        applied = await admin.agents.upsert_all(
            "bench", [AgentSpec(name="bench", instructions="Answer in a few words.")]
        )
        owner, agent = applied.application, applied.agents[0]
        callers: dict[str, Caller] = {}
        for user in (USER, *users):
            await core.store.users.get_or_create(owner.id, user)
            for dialect in dialects:
                values = {**LIMITS, "default_user": user, **SETTINGS.get(dialect, {})}
                key = (await admin.credentials.create("bench", dialect, values)).key
                callers[dialect if user == USER else f"{dialect} {user}"] = Caller(key=key, agent=agent, user=user)
        return Ground(application=owner, agent=agent, callers=callers)
