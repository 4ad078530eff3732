"""Where everything meets: settings in, a running server out. The only room that sees every other."""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog

import palaver
from palaver import dialects
from palaver.config import Settings, SettingsError
from palaver.core.admit import Admission
from palaver.core.answers import Answers
from palaver.core.chat import Chat, Limits
from palaver.core.files import Drawer
from palaver.core.knowledge import KnowledgeBases
from palaver.core.media import Studio
from palaver.core.people import People
from palaver.core.problems import Internal, Problem
from palaver.core.runs import Runs
from palaver.core.slots import Slots
from palaver.core.turn import Ports
from palaver.heap import give_back
from palaver.http.body import Bodies, BodyLimits
from palaver.http.connections import ConnectionLimits, Connections, raise_file_limit
from palaver.http.front import Front
from palaver.http.metrics import Metrics, PoolReading, Reading
from palaver.http.revocation import Callers
from palaver.http.server import Application, Server, listen
from palaver.http.stream import Pulse
from palaver.http.watchdog import Watchdog
from palaver.knowledge.attached import Documents
from palaver.knowledge.pool import ReaderPool
from palaver.knowledge.search import Library
from palaver.models.catalog import Catalog
from palaver.models.openai import Timeouts
from palaver.stopping import ANSWERS, CLOSED, KEEPERS, RUNS, end_at_last, within
from palaver.store.dump import contents, dump, restore
from palaver.store.embedded import Embedded
from palaver.store.files import Quota
from palaver.store.migrate import migrate
from palaver.store.postgres import Postgres
from palaver.store.quotas import Kind
from palaver.store.secrets import SecretBox, master_key_file, read_master_key, replace_master_key_file
from palaver.tools.guard import Guard
from palaver.wire.contract import Dialect, Room, Site
from palaver.workers import Crew, Line, Orders, Parent, Port, Together

LOOK_EVERY = 2.0
"""Seconds between two looks for runs that a dead process left behind."""
SAVE_USE_EVERY = 10.0
"""Seconds between two saves of how often credentials were used."""
TIDY_EVERY = 600.0
"""Seconds between two removals of what has run out."""

log = structlog.get_logger("palaver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The product, put together, on a database: what the server and every command work with."""

    settings: Settings
    store: Postgres
    models: Catalog
    library: Library
    runs: Runs
    chat: Chat
    room: Room
    admission: Admission
    url: str


def all_dialects() -> tuple[Dialect, ...]:
    """Every folder under ``dialects``: that it is there is its registration."""
    names = sorted(module.name for module in pkgutil.iter_modules(dialects.__path__) if module.ispkg)
    return tuple(importlib.import_module(f"{dialects.__name__}.{name}").DIALECT for name in names)


@asynccontextmanager
async def opened(
    settings: Settings, environment: Mapping[str, str] = os.environ, *, upgrade: bool = False
) -> AsyncGenerator[Core]:
    """The product on its database, which is started and set up if need be; one of an older palaver is migrated with
    ``upgrade`` alone. Everything is closed at the end.

    Raises ``Internal(reason="database")`` and ``SettingsError``, each with what to do.
    """
    box = SecretBox(_master_key(settings))
    async with located(settings) as (url, embedded):
        await migrate(settings.database_direct_url or url, upgrade=upgrade)
        async with _on(settings, url, box, embedded, environment) as core:
            yield core


@asynccontextmanager
async def located(settings: Settings) -> AsyncGenerator[tuple[str, Embedded | None]]:
    """The address of the database, and the server where it is the embedded one: that runs while the block lasts."""
    if settings.database_url:
        yield settings.database_url, None
        return
    embedded = Embedded(settings.folder)
    try:
        yield await _started(embedded), embedded
    finally:
        await asyncio.to_thread(embedded.stop)


async def _started(embedded: Embedded) -> str:
    """The address of the server. Whoever is cancelled meanwhile still waits for it: a server that comes up after
    all were stopped would stay."""
    starting = asyncio.create_task(asyncio.to_thread(embedded.start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting])
        raise


async def migrated(settings: Settings) -> list[str]:
    """Set the database up, or bring one of an older palaver up to date; the names of the migrations applied."""
    async with located(settings) as (url, _):
        return await migrate(settings.database_direct_url or url)


async def dumped(settings: Settings, file: Path, progress: Callable[[str], None]) -> int:
    """Write the database to ``file``; its size."""
    async with located(settings) as (url, _):
        return await dump(settings.database_direct_url or url, file, progress)


async def restored(settings: Settings, file: Path, progress: Callable[[str], None], *, force: bool) -> list[str]:
    """Fill the database from ``file``, which was sealed with this installation's master key; the migrations applied
    then. Raises ``Internal`` and ``SettingsError``."""
    sealed_with = (await contents(file)).master_key
    if sealed_with is not None and sealed_with != _present_fingerprint(settings):
        raise SettingsError(
            "master_key: the dump's secrets are sealed with another master key than this installation has: set"
            f" PALAVER_MASTER_KEY to that one, or put it into {settings.folder / 'master.key'}, and restore again"
        )
    async with located(settings) as (url, _):
        return await restore(settings.database_direct_url or url, file, force=force, progress=progress)


def _present_fingerprint(settings: Settings) -> str | None:
    """The fingerprint of the master key, if there is one yet."""
    if settings.master_key is None and not (settings.folder / "master.key").exists():
        return None
    return SecretBox(_master_key(settings)).identity


def catalog(settings: Settings, environment: Mapping[str, str] = os.environ) -> Catalog:
    """The models that the settings and the endpoint's own variables name."""
    return Catalog(
        default=settings.model,
        fallback=settings.fallback_model,
        image=settings.image_model,
        speech=settings.speech_model,
        base_url=environment.get("OPENAI_BASE_URL"),
        api_key=environment.get("OPENAI_API_KEY"),
        fallback_base_url=settings.fallback_base_url,
        fallback_api_key=settings.fallback_api_key,
        timeouts=Timeouts(first_byte=settings.model_first_byte_timeout_s, idle=settings.model_idle_timeout_s),
        longest=max(1, settings.max_answer_bytes // 4),  # characters: none has more than four bytes,
    )


@asynccontextmanager
async def _on(
    settings: Settings, url: str, box: SecretBox, embedded: Embedded | None, environment: Mapping[str, str]
) -> AsyncGenerator[Core]:
    async def revive() -> None:
        if embedded is not None:
            await asyncio.to_thread(embedded.ensure)

    connections, direct = settings.database_connections, settings.database_direct_url
    store = Postgres(
        url,
        box,
        connections=connections,
        direct=direct,
        keep_master_key=lambda master: keep_master_key(settings, master),
        revive=revive,
    )
    store.quotas.limits = quotas(settings)
    store.files.quota = Quota(user=settings.max_user_files_bytes, application=settings.max_application_files_bytes)
    models = catalog(settings, environment)
    library = Library(store.knowledge)
    readers = ReaderPool()
    guard = Guard(allow=settings.fetch_allow, max_bytes=settings.fetch_max_bytes, timeout_s=settings.fetch_timeout_s)
    ports = Ports(store=store, models=models, knowledge=library, documents=Documents(readers), fetch=guard)
    runs = Runs(
        ports,
        worker=lambda: store.presence.worker,
        timeout=settings.run_timeout_s,
        max_answer_bytes=settings.max_answer_bytes,
        max_live_bytes=settings.max_live_bytes,
        slots=Slots(
            settings.max_live_runs,
            application=settings.max_application_runs,
            credential=settings.max_credential_runs,
        ),
    )
    limits = Limits(
        max_waiting_turns=settings.max_waiting_turns,
        idempotency_ttl_s=settings.idempotency_ttl_s,
        max_page_bytes=settings.max_page_bytes,
    )
    chat = Chat(ports, runs, limits)
    admission = Admission(store.keys, store.usage, store.tokens)
    try:
        await store.open()
        _listen_for_runs(store, runs)
        runs.open()
        yield Core(
            settings=settings,
            store=store,
            models=models,
            library=library,
            runs=runs,
            chat=chat,
            room=_room(settings, store, models, library, chat, admission),
            admission=admission,
            url=url,
        )
    finally:
        await runs.close(drain=0, limit=settings.stop_s * RUNS)
        await within(settings.stop_s * CLOSED, readers.close(), guard.close(), models.close(), store.close())


def _room(
    settings: Settings, store: Postgres, models: Catalog, library: Library, chat: Chat, admission: Admission
) -> Room:
    """What the dialects' handlers get to use."""
    worker = lambda: store.presence.worker  # noqa: E731
    answers = Answers(store, store.claims, worker=worker, ttl=settings.idempotency_ttl_s)
    store.presence.on("claim", answers.wake)
    return Room(
        chat=chat,
        people=People(store, store.keys, admission),
        drawer=Drawer(store),
        studio=Studio(models),
        answers=answers,
        knowledge=KnowledgeBases(store.agents, library),
        site=Site(
            timezone=ZoneInfo(settings.timezone),
            language=settings.language,
            token_ttl_s=settings.token_ttl_s,
            refresh_token_ttl_s=settings.refresh_token_ttl_s,
            code_ttl_s=settings.code_ttl_s,
        ),
    )


def _listen_for_runs(store: Postgres, runs: Runs) -> None:
    """A run may start here because another process ended the one before it."""

    def start(run: str) -> None:
        if run:
            runs.may_start(int(run))

    async def catch_up() -> None:
        for run in await store.runs.heads(store.presence.worker):
            runs.may_start(run)

    def stop(run: str) -> None:
        if run:
            runs.stop(UUID(run))

    def stop_abandoned(run: str) -> None:
        if run:
            runs.stop_abandoned(int(run))

    def is_read(run: str) -> None:
        if run:
            runs.is_read_elsewhere(int(run))

    store.presence.on("abandoned", stop_abandoned)
    store.presence.on("read", is_read)
    store.presence.on("start", start)
    store.presence.on("stop", stop)
    store.presence.on_return(catch_up)


def _master_key(settings: Settings) -> bytes:
    try:
        if settings.master_key is not None:
            return read_master_key(settings.master_key)
        settings.folder.mkdir(parents=True, exist_ok=True)
        return master_key_file(settings.folder / "master.key")
    except (ValueError, OSError) as error:
        raise SettingsError(f"master_key: {error}") from error


def keep_master_key(settings: Settings, master: bytes) -> bool:
    """Put another master key where the present one is from; false where that is the environment or a settings file."""
    if settings.master_key is not None:
        return False
    replace_master_key_file(settings.folder / "master.key", master)
    return True


# Serving ------------------------------------------------------------------------------------------------------------


async def serve(
    settings: Settings, *, prepare: Callable[[Core, str], Awaitable[None]], announce: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM, in this process or in as many as the settings say. ``prepare`` gets the address
    before the first connection is taken, ``announce`` is called when connections are. Raises ``OSError`` when the port
    cannot be had."""
    if settings.workers > 1:
        await _serve_together(settings, prepare, announce)
        return
    with listen(settings.host, settings.port) as listening:
        async with opened(settings, upgrade=True) as core:
            await prepare(core, base_url(settings, listening.getsockname()[1]))
            await _serve_on(core, listening, announce)


async def _serve_together(
    settings: Settings, prepare: Callable[[Core, str], Awaitable[None]], announce: Callable[[], None]
) -> None:
    """Watch over the processes that serve."""
    with Port(settings.host, settings.port) as port:
        async with located(settings):
            async with opened(settings, upgrade=True) as core:
                await prepare(core, base_url(settings, port.number))
            crew = Crew(settings, port, announce)
            _when_told(crew.end)
            await crew.serve()


async def work(orders: Orders, end: socket.socket) -> None:
    """Serve as one of several processes until SIGTERM, or until the parent, at the other side of ``end``, is gone."""
    parent = Parent(await Line.over(end))
    attending = asyncio.create_task(parent.attend())
    try:
        with socket.socket(fileno=orders.listening) as listening:
            async with opened(orders.settings) as core:
                await _serve_on(core, listening, parent.tell_up, parent)
    finally:
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)


async def _serve_on(
    core: Core, listening: socket.socket, announce: Callable[[], None], parent: Parent | None = None
) -> None:
    settings = core.settings
    raise_file_limit()
    pulse = Pulse(settings.heartbeat_s)
    connections = Connections(connection_limits(settings))
    watchdog = Watchdog()
    metrics = core.runs.observer = core.models.observer = _metrics(core, pulse, connections, watchdog)
    application: Application = _front(core, pulse, metrics)
    if parent is not None:
        parent.own = metrics.text
        application = Together(application, parent)
    closing_s = settings.drain_s + settings.stop_s * ANSWERS
    server = Server(application, started=announce, closing_s=closing_s, connections=connections)
    closing: list[asyncio.Task[None]] = []

    def end() -> None:
        if closing:  # asked twice: no more waiting
            core.runs.hurry()
            server.force_exit = True
            return
        end_at_last(settings.drain_s, settings.stop_s)
        server.should_exit = True
        closing.append(asyncio.create_task(core.runs.close(drain=settings.drain_s, limit=settings.stop_s * RUNS)))
        log.info("stopping", live_runs=len(core.runs), drain_s=settings.drain_s)

    _when_told(end)
    keepers = [asyncio.create_task(work) for work in (_care(core, metrics.recovered.inc), _save_use(core), give_back())]
    pulse.start()
    watchdog.start()
    try:
        await server.serve(sockets=[listening])
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*closing, return_exceptions=True)
        watchdog.stop()
        await within(settings.stop_s * KEEPERS, *keepers, pulse.stop())
        log.info("stopped")


def _when_told(end: Callable[[], None]) -> None:
    """``end`` is called for every signal that ends a server in order."""
    for name in (signal.SIGINT, *endings()):
        asyncio.get_running_loop().add_signal_handler(name, end)


def endings() -> tuple[signal.Signals, ...]:
    """The signals that end a process in order, as Ctrl-C does: that of its terminal's closing among them, unless it
    was started with nohup."""
    closable = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGHUP) if closable else (signal.SIGTERM,)


def connection_limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(
        max_unverified=settings.max_unverified_connections,
        head_timeout_s=settings.head_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        min_rate=settings.min_rate,
    )


def quotas(settings: Settings) -> Mapping[Kind, int]:
    return {
        "users": settings.max_users,
        "conversations": settings.max_conversations,
        "user_conversations": settings.max_user_conversations,
        "conversation_messages": settings.max_conversation_messages,
        "idempotency_keys": settings.max_idempotency_keys,
        "codes": settings.max_codes,
        "tokens": settings.max_tokens,
        "request_ids": settings.max_request_ids,
    }


def body_limits(settings: Settings) -> BodyLimits:
    return BodyLimits(
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        body_timeout_s=settings.body_timeout_s,
        upload_timeout_s=settings.upload_timeout_s,
        min_rate=settings.min_rate,
        max_buffered_bytes=settings.max_buffered_bytes,
        max_spooled_bytes=settings.max_spooled_bytes,
        spool=settings.folder if os.access(settings.folder, os.W_OK) else None,
    )


def _metrics(core: Core, pulse: Pulse, connections: Connections, watchdog: Watchdog) -> Metrics:
    def read() -> Reading:
        pool = core.store.db.usage
        return Reading(
            live_runs=len(core.runs),
            waiting_runs=core.runs.waiting,
            max_live_runs=core.settings.max_live_runs,
            open_streams=len(pulse.open),
            stalls=watchdog.stalls,
            stalled_s=watchdog.stalled_s,
            connections=len(connections),
            unverified=connections.unverified,
            evicted=connections.evicted,
            tasks=len(asyncio.all_tasks()),
            statements=core.store.db.statements,
            pool=PoolReading(
                limit=pool.limit, used=pool.used, idle=pool.idle, waiting=pool.waiting, lost=core.store.db.lost
            ),
        )

    return Metrics(read)


def _front(core: Core, pulse: Pulse, metrics: Metrics | None = None) -> Front:
    async def ready() -> str | None:
        if core.runs.closing:
            return "the server is stopping"
        try:
            async with asyncio.timeout(2):
                await core.store.db.fetchval("SELECT 1")
        except (Problem, TimeoutError) as problem:
            log.warning("not ready", part="database", problem=_record(problem))
            return "the database does not answer"
        return None

    callers = Callers(core.store.keys.enabled)
    core.store.keys.on_change(callers.look)
    return Front(
        dialects=all_dialects(),
        room=core.room,
        admission=core.admission,
        metrics=metrics or _metrics(core, pulse, Connections(connection_limits(core.settings)), Watchdog()),
        pulse=pulse,
        ready=ready,
        bodies=Bodies(body_limits(core.settings)),
        callers=callers,
        site_url=core.settings.site_url,
        language=core.settings.language,
    )


def _record(error: Exception) -> dict[str, Any]:
    return error.record() if isinstance(error, Problem) else {"kind": type(error).__name__}


async def _care(core: Core, recovered: Callable[[float], None]) -> None:
    """End the runs that nobody works on, and remove what has run out."""
    pause, tidied = 0.3, 0.0  # two looks soon after the start: a restart finds its own dead runs at once
    suspects: set[int] = set()
    missed: set[int] = set()
    loop = asyncio.get_running_loop()
    while True:
        try:
            recovered(await _end_lost(core))
            known = core.runs.numbers()  # before the look: one that is added meanwhile cannot be missed
            stored = await core.store.runs.held(core.store.presence.worker)
            ended, suspects = await _end_forgotten(core, stored, suspects)
            recovered(ended)
            missed = core.runs.stop_vanished(known - stored, missed)
            for run in await core.store.runs.heads(core.store.presence.worker):
                core.runs.may_start(run)
            if loop.time() > tidied + TIDY_EVERY:
                tidied = loop.time()
                await tidy(core.store)
        except Problem as problem:
            log.warning("could not look after runs", problem=problem.record())
        await asyncio.sleep(pause)
        pause = min(pause * 2, LOOK_EVERY)


async def tidy(store: Postgres) -> None:
    """Remove what has run out."""
    await store.runs.forget_claims()
    await store.tokens.forget()
    await store.usage.forget()


async def _save_use(core: Core) -> None:
    """Store how often credentials are used, and once more at the end."""
    try:
        while True:
            await asyncio.sleep(SAVE_USE_EVERY)
            with suppress(Problem):  # the store said so in the log; the next time stores it
                await core.store.keys.save_use()
    finally:
        with suppress(Problem, TimeoutError):
            await asyncio.wait_for(core.store.keys.save_use(), 1)


async def _end_lost(core: Core) -> int:
    """End the runs of processes that are no more; how many."""
    dead = await core.store.presence.lost()
    count = 0
    if dead:
        count = await core.store.runs.interrupt(dead, Internal(reason="interrupted"))
        log.warning("ended runs that a dead process left behind", runs=count, processes=dead)
    return count


async def _end_forgotten(core: Core, stored: set[int], suspects: set[int]) -> tuple[int, set[int]]:
    """End runs that are this process's by what is stored, and that it does not know: the connection was lost after
    their message was stored and before it heard of it. A run between the two is only a suspect until the next look.
    How many were ended, and the suspects."""
    worker = core.store.presence.worker
    forgotten = {run for run in stored if not core.runs.knows(run)}
    count = 0
    if sure := sorted(forgotten & suspects):
        count = await core.store.runs.interrupt([worker], Internal(reason="interrupted"), only=sure)
        log.warning("ended runs that nobody here works on", runs=count)
    return count, forgotten


def base_url(settings: Settings, port: int) -> str:
    """Where a server that listens on ``port`` is reached: at the configured address, else at the one it listens on."""
    if settings.site_url:
        return settings.site_url.rstrip("/")
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104  an address to show
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# What ships with palaver --------------------------------------------------------------------------------------------


def own_documents() -> list[Path]:
    """palaver's documentation: inside the installed package, or beside it in a checkout."""
    package = Path(palaver.__file__).parent
    if (package / "guide").is_dir():
        return [package / "guide", package / "dialects"]
    checkout = package.parent.parent
    return [checkout / "README.md", checkout / "docs", package / "dialects"]
