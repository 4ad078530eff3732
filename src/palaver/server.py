"""Runs the server: one process or several, from listening to graceful shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from palaver.app import Core, all_dialects, open_core
from palaver.config import Settings
from palaver.core.problems import Problem
from palaver.heap import trim_when_quiet
from palaver.housekeeping import keep_house, save_key_usage
from palaver.http.app import App
from palaver.http.body import BodyLimits, BodyReader
from palaver.http.connections import ConnectionLimits, Connections, raise_file_limit
from palaver.http.metrics import Gauges, Metrics, PoolGauges
from palaver.http.revocation import RevocationWatcher
from palaver.http.stream import HeartbeatTimer
from palaver.http.uvicorn_server import Application, Server, listen
from palaver.http.watchdog import Watchdog
from palaver.installation import locate_database
from palaver.shutdown import RESPONSES_SHARE, RUNS_SHARE, TASKS_SHARE, force_exit_after, wait_at_most
from palaver.supervisor import AggregatedMetrics, Channel, ParentChannel, SharedPort, Supervisor, WorkerStart

log = structlog.get_logger("palaver")


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
        async with open_core(settings, upgrade=True) as core:
            await prepare(core, base_url(settings, listening.getsockname()[1]))
            await _serve_on(core, listening, announce)


async def _serve_together(
    settings: Settings, prepare: Callable[[Core, str], Awaitable[None]], announce: Callable[[], None]
) -> None:
    """Watch over the processes that serve."""
    with SharedPort(settings.host, settings.port) as port:
        async with locate_database(settings):
            async with open_core(settings, upgrade=True) as core:
                await prepare(core, base_url(settings, port.number))
            crew = Supervisor(settings, port, announce)
            _on_shutdown_signal(crew.end)
            await crew.serve()


async def run_worker(orders: WorkerStart, end: socket.socket) -> None:
    """Serve as one of several processes until SIGTERM, or until the parent, at the other side of ``end``, is gone."""
    parent = ParentChannel(await Channel.over(end))
    attending = asyncio.create_task(parent.attend())
    try:
        with socket.socket(fileno=orders.listening) as listening:
            async with open_core(orders.settings) as core:
                await _serve_on(core, listening, parent.tell_up, parent)
    finally:
        attending.cancel()
        await asyncio.gather(attending, return_exceptions=True)


async def _serve_on(
    core: Core, listening: socket.socket, announce: Callable[[], None], parent: ParentChannel | None = None
) -> None:
    settings = core.settings
    raise_file_limit()
    pulse = HeartbeatTimer(settings.heartbeat_s)
    connections = Connections(connection_limits(settings))
    watchdog = Watchdog()
    metrics = core.runs.observer = core.models.observer = _metrics(core, pulse, connections, watchdog)
    application: Application = build_app(core, pulse, metrics)
    if parent is not None:
        parent.own = metrics.text
        application = AggregatedMetrics(application, parent)
    closing_s = settings.drain_s + settings.stop_s * RESPONSES_SHARE
    server = Server(application, started=announce, closing_s=closing_s, connections=connections)
    closing: list[asyncio.Task[None]] = []

    def end() -> None:
        if closing:  # asked twice: no more waiting
            core.runs.skip_drain()
            server.force_exit = True
            return
        force_exit_after(settings.drain_s, settings.stop_s)
        server.should_exit = True
        closing.append(asyncio.create_task(core.runs.close(drain=settings.drain_s, limit=settings.stop_s * RUNS_SHARE)))
        log.info("stopping", live_runs=len(core.runs), drain_s=settings.drain_s)

    _on_shutdown_signal(end)
    keepers = [
        asyncio.create_task(work)
        for work in (keep_house(core, metrics.recovered.inc), save_key_usage(core), trim_when_quiet())
    ]
    pulse.start()
    watchdog.start()
    try:
        await server.serve(sockets=[listening])
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*closing, return_exceptions=True)
        watchdog.stop()
        await wait_at_most(settings.stop_s * TASKS_SHARE, *keepers, pulse.stop())
        log.info("stopped")


def _on_shutdown_signal(end: Callable[[], None]) -> None:
    """``end`` is called for every signal that ends a server in order."""
    for name in (signal.SIGINT, *shutdown_signals()):
        asyncio.get_running_loop().add_signal_handler(name, end)


def shutdown_signals() -> tuple[signal.Signals, ...]:
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


def _metrics(core: Core, pulse: HeartbeatTimer, connections: Connections, watchdog: Watchdog) -> Metrics:
    def read() -> Gauges:
        pool = core.store.db.usage
        return Gauges(
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
            pool=PoolGauges(
                limit=pool.limit, used=pool.used, idle=pool.idle, waiting=pool.waiting, lost=core.store.db.lost
            ),
        )

    return Metrics(read)


def build_app(core: Core, pulse: HeartbeatTimer, metrics: Metrics | None = None) -> App:
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

    callers = RevocationWatcher(core.store.keys.enabled)
    core.store.keys.on_change(callers.look)
    return App(
        dialects=all_dialects(),
        room=core.services,
        admission=core.admission,
        metrics=metrics or _metrics(core, pulse, Connections(connection_limits(core.settings)), Watchdog()),
        pulse=pulse,
        ready=ready,
        bodies=BodyReader(body_limits(core.settings)),
        callers=callers,
        site_url=core.settings.site_url,
        language=core.settings.language,
    )


def _record(error: Exception) -> dict[str, Any]:
    return error.record() if isinstance(error, Problem) else {"kind": type(error).__name__}


def base_url(settings: Settings, port: int) -> str:
    """Where a server that listens on ``port`` is reached: at the configured address, else at the one it listens on."""
    if settings.site_url:
        return settings.site_url.rstrip("/")
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104  an address to show
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
