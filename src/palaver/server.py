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
from palaver.heap import trim_when_idle
from palaver.housekeeping import run_housekeeping, save_key_usage
from palaver.http.app import App
from palaver.http.body import BodyLimits, BodyReader
from palaver.http.connections import ConnectionLimits, Connections, raise_fd_limit
from palaver.http.metrics import Gauges, Metrics, PoolGauges
from palaver.http.revocation import RevocationWatcher
from palaver.http.stream import HeartbeatTimer
from palaver.http.uvicorn_server import ASGIApp, Server, bind_socket
from palaver.http.watchdog import Watchdog
from palaver.installation import locate_database
from palaver.shutdown import RESPONSES_SHARE, RUNS_SHARE, TASKS_SHARE, force_exit_after, wait_at_most
from palaver.supervisor import AggregatedMetrics, Channel, ParentChannel, SharedPort, Supervisor, WorkerStart

log = structlog.get_logger("palaver")


async def serve(
    settings: Settings, *, prepare: Callable[[Core, str], Awaitable[None]], announce: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM, in this process or in ``settings.workers`` processes. ``prepare`` receives the
    base URL before the first connection is accepted; ``announce`` is called once connections are accepted. Raises
    ``OSError`` if the port cannot be bound."""
    if settings.workers > 1:
        await _serve_with_workers(settings, prepare, announce)
        return
    with bind_socket(settings.host, settings.port) as listener:
        async with open_core(settings, upgrade=True) as core:
            await prepare(core, base_url(settings, listener.getsockname()[1]))
            await _serve_listener(core, listener, announce)


async def _serve_with_workers(
    settings: Settings, prepare: Callable[[Core, str], Awaitable[None]], announce: Callable[[], None]
) -> None:
    """Prepare the database, then supervise the worker processes."""
    with SharedPort(settings.host, settings.port) as port:
        async with locate_database(settings):
            async with open_core(settings, upgrade=True) as core:
                await prepare(core, base_url(settings, port.number))
            supervisor = Supervisor(settings, port, announce)
            _on_shutdown_signal(supervisor.shut_down)
            await supervisor.serve()


async def run_worker(start: WorkerStart, sock: socket.socket) -> None:
    """Serve as one of several processes until SIGTERM, or until the parent, at the other end of ``sock``, is gone."""
    parent = ParentChannel(await Channel.over(sock))
    messages = asyncio.create_task(parent.handle_messages())
    try:
        with socket.socket(fileno=start.listener_fd) as listener:
            async with open_core(start.settings) as core:
                await _serve_listener(core, listener, parent.send_ready, parent)
    finally:
        messages.cancel()
        await asyncio.gather(messages, return_exceptions=True)


async def _serve_listener(
    core: Core, listener: socket.socket, announce: Callable[[], None], parent: ParentChannel | None = None
) -> None:
    settings = core.settings
    raise_fd_limit()
    heartbeats = HeartbeatTimer(settings.heartbeat_s)
    connections = Connections(connection_limits(settings))
    watchdog = Watchdog()
    metrics = core.runs.observer = core.models.observer = build_metrics(core, heartbeats, connections, watchdog)
    app: ASGIApp = build_app(core, heartbeats, metrics)
    if parent is not None:
        parent.own_metrics = metrics.text
        app = AggregatedMetrics(app, parent)
    graceful_s = settings.drain_s + settings.stop_s * RESPONSES_SHARE
    server = Server(app, on_started=announce, graceful_shutdown_s=graceful_s, connections=connections)
    closing: list[asyncio.Task[None]] = []

    def shut_down() -> None:
        if closing:  # second signal: skip the drain
            core.runs.skip_drain()
            server.force_exit = True
            return
        force_exit_after(settings.drain_s, settings.stop_s)
        server.should_exit = True
        closing.append(asyncio.create_task(core.runs.close(drain=settings.drain_s, limit=settings.stop_s * RUNS_SHARE)))
        log.info("stopping", live_runs=len(core.runs), drain_s=settings.drain_s)

    _on_shutdown_signal(shut_down)
    background = [
        asyncio.create_task(coroutine)
        for coroutine in (run_housekeeping(core, metrics.runs_recovered.inc), save_key_usage(core), trim_when_idle())
    ]
    heartbeats.start()
    watchdog.start()
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*closing, return_exceptions=True)
        watchdog.stop()
        await wait_at_most(settings.stop_s * TASKS_SHARE, *background, heartbeats.stop())
        log.info("stopped")


def _on_shutdown_signal(shut_down: Callable[[], None]) -> None:
    """Call ``shut_down`` on every signal that shuts a server down gracefully."""
    for signum in (signal.SIGINT, *shutdown_signals()):
        asyncio.get_running_loop().add_signal_handler(signum, shut_down)


def shutdown_signals() -> tuple[signal.Signals, ...]:
    """The signals that, like Ctrl-C, shut a process down gracefully. Includes SIGHUP (the terminal closed) unless the
    process was started with nohup."""
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
        spool_folder=settings.data_folder if os.access(settings.data_folder, os.W_OK) else None,
    )


def build_metrics(core: Core, heartbeats: HeartbeatTimer, connections: Connections, watchdog: Watchdog) -> Metrics:
    def read_gauges() -> Gauges:
        pool = core.store.db.usage
        return Gauges(
            live_runs=len(core.runs),
            waiting_runs=core.runs.waiting,
            max_live_runs=core.settings.max_live_runs,
            open_streams=len(heartbeats.streams),
            stalls=watchdog.stalls,
            stalled_s=watchdog.stalled_s,
            connections=len(connections),
            unverified=connections.unverified,
            evicted=connections.evicted,
            tasks=len(asyncio.all_tasks()),
            statements=core.store.db.statement_count,
            pool=PoolGauges(
                limit=pool.limit,
                used=pool.used,
                idle=pool.idle,
                waiting=pool.waiting,
                lost=core.store.db.lost_connections,
            ),
        )

    return Metrics(read_gauges)


def build_app(core: Core, heartbeats: HeartbeatTimer, metrics: Metrics | None = None) -> App:
    """The ASGI application on ``core``. The caller starts and stops ``heartbeats``."""

    async def ready() -> str | None:
        if core.runs.closing:
            return "the server is stopping"
        try:
            async with asyncio.timeout(2):
                await core.store.db.fetchval("SELECT 1")
        except (Problem, TimeoutError) as problem:
            log.warning("not ready", part="database", problem=_loggable_error(problem))
            return "the database does not answer"
        return None

    revocations = RevocationWatcher(core.store.keys.get_enabled)
    core.store.keys.on_change(revocations.on_credentials_changed)
    return App(
        dialects=all_dialects(),
        services=core.services,
        admission=core.admission,
        metrics=metrics or build_metrics(core, heartbeats, Connections(connection_limits(core.settings)), Watchdog()),
        heartbeats=heartbeats,
        ready=ready,
        body_reader=BodyReader(body_limits(core.settings)),
        revocations=revocations,
        site_url=core.settings.site_url,
        language=core.settings.language,
    )


def _loggable_error(error: Exception) -> dict[str, Any]:
    return error.to_dict() if isinstance(error, Problem) else {"kind": type(error).__name__}


def base_url(settings: Settings, port: int) -> str:
    """The base URL of a server that listens on ``port``: the configured one, else the address it listens on."""
    if settings.site_url:
        return settings.site_url.rstrip("/")
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104  an address to show
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
