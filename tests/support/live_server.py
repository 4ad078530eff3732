"""A server as tests ask it: all of palaver on a database and a socket of its own, in a thread with its own loop."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import uvloop
from support.http_clients import GUARD, Answer, Ask, Connection, Exchange
from support.stalls import STALLS

from palaver import app, server
from palaver.config import Settings
from palaver.core.types import Agent, AgentSpec, ApiKey, Message, Principal, Ref
from palaver.http.app import App
from palaver.http.connections import Connections
from palaver.http.stream import HeartbeatTimer
from palaver.http.uvicorn_server import Server, bind_socket
from palaver.store.quotas import QuotaKind

T = TypeVar("T")

Step = dict[str, Any]
"""One step of the scripted model."""
HOLD: Step = {"wait": 3600}
"""Keeps a run at work until somebody stops it."""
MASTER_KEY = "5a" * 32
APPLICATION = "shop"


class Served:
    """A running server. Everything here may be called from the test's thread."""

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None) -> None:
        self.settings = settings
        self.environment = environment or {}
        self.core: app.Core
        self.front: App
        self.address = ("127.0.0.1", 0)
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop
        self._server: Server
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="server", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    # Its life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        assert self._up.wait(GUARD), "the server did not start"
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self.do(self.core.runs.close(drain=0))
        self._server.should_exit = True
        self._thread.join(GUARD)
        assert not self._thread.is_alive(), "the server did not stop"
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as failure:  # noqa: BLE001  handed to the thread that asks
            self._failure = failure
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        with bind_socket("127.0.0.1", 0) as listening:
            self.address = listening.getsockname()
            async with app.open_core(self.settings, self.environment) as core:
                pulse = HeartbeatTimer(self.settings.heartbeat_s)
                self.core, self.front = core, server.build_app(core, pulse)  # pyright: ignore[reportPrivateUsage]
                connections = Connections(server.connection_limits(self.settings))
                self._server = Server(
                    self.front, on_started=self._up.set, graceful_shutdown_s=5, connections=connections
                )
                watchdog = STALLS.watchdog()
                pulse.start()
                watchdog.start()
                try:
                    await self._server.serve(sockets=[listening])
                finally:
                    watchdog.stop()
                    await pulse.stop()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(GUARD)

    # Asking it ------------------------------------------------------------------------------------------------------

    def exchange(self, ask: Ask) -> Exchange:
        return Exchange(self.front, self._loop, ask)

    def ask(self, ask: Ask) -> Answer:
        return self.exchange(ask).answer()

    def connection(self, *, at_once: int = 65_536) -> Connection:
        return Connection(self.address, at_once=at_once)

    # What it has ----------------------------------------------------------------------------------------------------

    def new_name(self, kind: str) -> str:
        """A name that nothing else here has."""
        return f"{kind}-{next(self._numbers)}"

    def key(
        self,
        dialect: str,
        *,
        application: str = APPLICATION,
        id: str | None = None,
        secret: str | None = None,
        **settings: Any,
    ) -> ApiKey:
        """A credential, made as the dialect makes its own where nothing else is said."""
        made = next(one for one in app.all_dialects() if one.name == dialect)
        new_id, new_secret = made.new_credential(sha256(str(next(self._numbers)).encode()).digest())

        async def create() -> ApiKey:
            owner = await self.core.store.applications.get_or_create(application)
            return await self.core.store.keys.create(owner, dialect, id or new_id, secret or new_secret, settings)

        return self.do(create())

    def agent(
        self,
        *script: Step | str,
        application: str = APPLICATION,
        name: str | None = None,
        model: str = "scripted",
        instructions: str | None = None,
        **members: Any,
    ) -> Agent:
        """An agent that plays ``script``; a text is said as it is. The same name again changes it."""
        steps = [{"text": step} if isinstance(step, str) else step for step in script]
        text = json.dumps(steps, ensure_ascii=False) if instructions is None else instructions
        spec = AgentSpec(name=name or self.new_name("agent"), model=model, instructions=text, **members)

        async def apply() -> Agent:
            owner = await self.core.store.applications.get_or_create(application)
            made = await self.core.store.agents.upsert(owner, spec)
            await self._noticed()
            return made

        return self.do(apply())

    async def _noticed(self) -> None:
        """Wait until the server has heard all that PostgreSQL told so far: notices come in the order of commits."""
        presence, word, heard = self.core.store.presence, self.new_name("notice"), asyncio.Event()
        presence.subscribe(word, lambda _: heard.set())
        await self.core.store.db.execute("SELECT pg_notify('palaver', $1)", word)
        async with asyncio.timeout(GUARD):
            await heard.wait()

    @staticmethod
    def principal(key: ApiKey, user: str) -> Principal:
        """Who a user of that key is to core, whatever dialect it speaks."""
        return Principal(key=key, user=user)

    def history(self, key: ApiKey, user: str, conversation: Ref, *, limit: int = 20) -> list[Message]:
        """What was said last in a conversation, oldest first."""
        return list(self.do(self.list_messages(key, user, conversation, limit=limit)))

    async def list_messages(self, key: ApiKey, user: str, ref: Ref, *, limit: int = 20) -> Sequence[Message]:
        """The same, on the server's event loop."""
        who = self.principal(key, user)
        return await self.core.chat.list_messages(who, await self.core.chat.conversation(who, ref), limit=limit)

    def stop_run(self, run: UUID) -> bool:
        """Stop one run, as another dialect's stop call would."""

        async def stop() -> bool:
            return self.core.runs.stop(run)

        return self.do(stop())

    def stop_conversation(self, key: ApiKey, user: str, conversation: str) -> int:
        """Stop the running turn and drop the waiting ones."""
        return self.do(
            self.core.chat.stop(self.do(self.core.chat.conversation(self.principal(key, user), conversation)))
        )

    @contextmanager
    def full(self, kind: QuotaKind) -> Generator[None]:
        """No more rows of the kind may be stored while the block lasts."""
        quotas = self.core.store.quotas
        before, none = quotas.limits, dict[QuotaKind, int]({kind: 0})
        quotas.limits = none
        try:
            yield
        finally:
            quotas.limits = before

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a statement: for looking, and for what time or a dying process would do."""
        return self.do(self.core.store.db.fetch(statement, *arguments))


@contextmanager
def serving(
    database_url: str, folder: Path, *, environment: Mapping[str, str] | None = None, **settings: Any
) -> Generator[Served]:
    """A server on that database while the block lasts."""
    chosen: dict[str, Any] = {"heartbeat_s": 0.6, "run_timeout_s": 30, **settings}
    served = Served(Settings(data=str(folder), database_url=database_url, master_key=MASTER_KEY, **chosen), environment)
    served.start()
    try:
        yield served
    finally:
        served.stop()
