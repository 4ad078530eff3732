"""Several server processes behind one port: a parent starts them, restarts those that die, shuts them down gracefully
and aggregates their metrics.

A worker is spawned, not forked: it inherits nothing of the parent's event loop, threads or connections, and a
restarted one is as fresh as the first. Its standard input is a socket to the parent. The settings and requests for
metrics arrive on it, and its end means that the parent is gone, however it died.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self, assert_never
from uuid import uuid4

import msgspec
import structlog

from palaver.config import Settings
from palaver.core.problems import Internal
from palaver.http.merged_metrics import merge_metrics, without_gauges
from palaver.http.metrics import MEDIA_TYPE
from palaver.http.stream import Receive, Send
from palaver.http.uvicorn_server import ASGIApp, bind_socket
from palaver.shutdown import WORKER_SHARE, force_exit_after

RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a dead worker is restarted, by its number of consecutive deaths; the last value repeats."""
STABLE_AFTER_S = 30.0
"""Seconds after which a worker counts as stable: its next restart delay is the shortest one again."""
METRICS_TIMEOUT_S = 1.0
"""Seconds for a worker to report its metrics; after that its last report is used."""
WORKER_ARGUMENTS = ("-P", "-m", "palaver", "worker")
"""Arguments of the interpreter. ``-P`` keeps it from running a folder ``palaver`` in the working directory."""
_SOCKET_PER_WORKER = sys.platform == "linux"
log = structlog.get_logger("palaver.supervisor")


class SharedPort:
    """The address that all workers serve. This socket does not listen: it only reserves the address.

    On Linux each worker gets its own socket (``SO_REUSEPORT``), and the kernel distributes connections by hash, so
    long-lived streams are spread evenly. On a shared socket, the first worker to wake would accept every waiting
    connection. Other kernels do not distribute connections, so there the workers share one socket.
    """

    def __init__(self, host: str, port: int) -> None:
        """Raises ``OSError`` if the port cannot be bound."""
        reservation = bind_socket(host, port)
        if _SOCKET_PER_WORKER:
            # Bound once without SO_REUSEPORT: with it, a second server on the same port would go unnoticed.
            port = reservation.getsockname()[1]
            reservation.close()
            reservation = bind_socket(host, port, shared=True)
        self._host = host
        self._reservation = reservation
        self.number: int = reservation.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reservation.close()

    def worker_socket(self) -> socket.socket:
        """A socket for one worker. The parent closes it once the worker has it, so that it closes when the worker ends
        and new connections go to the others."""
        return bind_socket(self._host, self.number, shared=True) if _SOCKET_PER_WORKER else self._reservation.dup()


class WorkerStart(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """The first message to a worker. ``listener_fd`` is the file descriptor of its listening socket."""

    number: int
    listener_fd: int
    settings: Settings


class WorkerReady(msgspec.Struct, frozen=True, tag="ready"):
    """The worker accepts connections."""


class MetricsRequest(msgspec.Struct, frozen=True, kw_only=True, tag="metrics_request"):
    """To a worker: report your metrics. To the parent: report those of all workers."""

    ticket: int


class MetricsSnapshot(msgspec.Struct, frozen=True, kw_only=True, tag="metrics_snapshot"):
    """The response to the ``MetricsRequest`` with that ticket, in Prometheus' text format."""

    ticket: int
    text: bytes


Message = WorkerStart | WorkerReady | MetricsRequest | MetricsSnapshot
_LENGTH_BYTES = 4
_decode: Callable[[bytes], Message] = msgspec.msgpack.Decoder(Message).decode


class Channel:
    """Messages over a socket pair, each prefixed with its length in four bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def over(sock: socket.socket) -> Channel:
        return Channel(*await asyncio.open_unix_connection(sock=sock))

    def send(self, message: Message) -> None:
        """Does nothing if the other side is gone: the receiver detects that."""
        if not self._writer.is_closing():
            body = msgspec.msgpack.encode(message)
            self._writer.write(len(body).to_bytes(_LENGTH_BYTES, "big") + body)

    async def receive(self) -> Message | None:
        """The next message; ``None`` if the other side is gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            return _decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError):
            return None

    def close(self) -> None:
        self._writer.close()


class PendingMetrics:
    """The ``MetricsRequest`` messages on a channel that await their response."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    async def metrics(self, timeout_s: float) -> bytes:
        """Request the other side's metrics. Raises ``TimeoutError``."""
        ticket = next(self._tickets)
        self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._channel.send(MetricsRequest(ticket=ticket))
        try:
            return await asyncio.wait_for(self._waiting[ticket], timeout_s)
        finally:
            del self._waiting[ticket]

    def resolve(self, metrics: MetricsSnapshot) -> None:
        waiting = self._waiting.get(metrics.ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(metrics.text)


def receive_start(sock: socket.socket) -> WorkerStart | None:
    """The parent's first message; ``None`` if the parent is gone."""
    size = int.from_bytes(sock.recv(_LENGTH_BYTES, socket.MSG_WAITALL), "big")
    body = sock.recv(size, socket.MSG_WAITALL) if size else b""
    start = _decode(body) if body and len(body) == size else None
    return start if isinstance(start, WorkerStart) else None


class ParentChannel:
    """A worker's channel to the parent. ``own_metrics`` returns this process's metrics."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pending = PendingMetrics(channel)
        self.own_metrics: Callable[[], bytes] = bytes

    def send_ready(self) -> None:
        self._channel.send(WorkerReady())

    async def handle_messages(self) -> None:
        """Handle the parent's messages until it is gone; then terminate this process with SIGTERM."""
        while (message := await self._channel.receive()) is not None:
            match message:
                case MetricsRequest(ticket=ticket):
                    self._channel.send(MetricsSnapshot(ticket=ticket, text=self.own_metrics()))
                case MetricsSnapshot():
                    self._pending.resolve(message)
                case WorkerStart() | WorkerReady():
                    pass
                case _:
                    assert_never(message)
        log.warning("parent process exited")
        signal.raise_signal(signal.SIGTERM)

    async def metrics(self) -> bytes:
        """The metrics of all workers; only this one's if the parent does not respond."""
        try:
            return await self._pending.metrics(2 * METRICS_TIMEOUT_S)
        except TimeoutError:
            return self.own_metrics()


@dataclass(slots=True, kw_only=True)
class _Worker:
    number: int
    process: Process
    channel: Channel
    pending_metrics: PendingMetrics
    last_metrics: bytes = b""
    """The last metrics it reported."""


class Supervisor:
    """Runs the workers. ``shut_down`` shuts them down gracefully; a second call makes them skip the drain."""

    def __init__(self, settings: Settings, port: SharedPort, announce: Callable[[], None]) -> None:
        self._settings = settings
        self._port = port
        self._announce = announce
        self._workers: dict[int, _Worker] = {}
        self._ready: set[int] = set()
        self._announced = False
        self._shutting_down = asyncio.Event()
        self._exited_metrics: list[bytes] = []
        self._metrics_tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Run until ``shut_down`` was called and every worker has exited. Raises ``Internal`` if one never starts."""
        slots = [asyncio.create_task(self._run_slot(number)) for number in range(1, self._settings.workers + 1)]
        try:
            await asyncio.gather(*slots)
        except Internal:
            self.shut_down()
            await asyncio.gather(*slots, return_exceptions=True)
            raise
        finally:
            log.info("stopped")

    def shut_down(self) -> None:
        if not self._shutting_down.is_set():
            log.info("stopping", workers=len(self._workers))
            self._shutting_down.set()
            drain_s, stop_s = self._settings.drain_s, self._settings.stop_s
            force_exit_after(drain_s, stop_s)
            asyncio.get_running_loop().call_later(drain_s + stop_s * WORKER_SHARE, self._signal, signal.SIGKILL)
        self._signal(signal.SIGTERM)

    def _signal(self, name: signal.Signals) -> None:
        for worker in self._workers.values():
            _signal(worker.process, name)

    async def _run_slot(self, number: int) -> None:
        """Keep one worker running: restart it whenever it exits."""
        deaths = 0
        while not self._shutting_down.is_set():
            started = time.monotonic()
            reason = await self._run_worker(number)
            if self._shutting_down.is_set():
                return
            if not self._announced:
                raise Internal(reason="unforeseen", detail=f"worker {number} did not start ({reason})")
            deaths = 0 if time.monotonic() - started > STABLE_AFTER_S else deaths + 1
            delay = RESTART_DELAYS_S[min(deaths, len(RESTART_DELAYS_S) - 1)]
            log.warning("worker exited", worker=number, reason=reason, restart_in_s=delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._shutting_down.wait(), delay)

    async def _run_worker(self, number: int) -> str:
        """Run one worker until it exits. Returns its exit status, or why it could not be started, for the log."""
        try:
            worker = await self._start(number)
        except OSError as error:  # the system is out of processes, descriptors or memory
            return str(error)
        try:
            await self._handle_messages(worker)
            return f"exit {await worker.process.wait()}"
        finally:
            self._remove(worker)

    async def _start(self, number: int) -> _Worker:
        parent_end, worker_end = socket.socketpair()
        with ExitStack() as cleanup, worker_end, self._port.worker_socket() as listener:
            cleanup.callback(parent_end.close)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *WORKER_ARGUMENTS,
                stdin=worker_end.fileno(),
                pass_fds=(listener.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C reaches the parent, which forwards it
            )
            channel = await Channel.over(parent_end)
            channel.send(WorkerStart(number=number, listener_fd=listener.fileno(), settings=self._settings))
            cleanup.pop_all()
        worker = _Worker(number=number, process=process, channel=channel, pending_metrics=PendingMetrics(channel))
        self._workers[number] = worker
        if self._shutting_down.is_set():  # the signal was sent before this worker existed
            _signal(process, signal.SIGTERM)
        return worker

    async def _handle_messages(self, worker: _Worker) -> None:
        """Handle a worker's messages until it is gone."""
        while (message := await worker.channel.receive()) is not None:
            match message:
                case WorkerReady():
                    self._on_ready(worker)
                case MetricsRequest(ticket=ticket):
                    task = asyncio.create_task(self._send_all_metrics(worker, ticket))
                    self._metrics_tasks.add(task)
                    task.add_done_callback(self._metrics_tasks.discard)
                case MetricsSnapshot(text=text):
                    worker.last_metrics = text
                    worker.pending_metrics.resolve(message)
                case WorkerStart():
                    pass
                case _:
                    assert_never(message)

    def _on_ready(self, worker: _Worker) -> None:
        log.info("worker ready", worker=worker.number, pid=worker.process.pid)
        self._ready.add(worker.number)
        if not self._announced and len(self._ready) == self._settings.workers:
            self._announced = True
            self._announce()

    def _remove(self, worker: _Worker) -> None:
        del self._workers[worker.number]
        self._ready.discard(worker.number)
        worker.channel.close()
        self._exited_metrics = [merge_metrics([*self._exited_metrics, without_gauges(worker.last_metrics)])]

    async def _send_all_metrics(self, requester: _Worker, ticket: int) -> None:
        await asyncio.gather(*map(_request_metrics, list(self._workers.values())))
        last_metrics = (worker.last_metrics for worker in self._workers.values())
        requester.channel.send(
            MetricsSnapshot(ticket=ticket, text=merge_metrics([*self._exited_metrics, *last_metrics]))
        )


async def _request_metrics(worker: _Worker) -> None:
    with suppress(TimeoutError):
        await worker.pending_metrics.metrics(METRICS_TIMEOUT_S)


def _signal(process: Process, name: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(name)


class AggregatedMetrics:
    """ASGI middleware around a worker's ``App``: ``GET /metrics`` returns the metrics of all workers."""

    def __init__(self, app: ASGIApp, parent: ParentChannel) -> None:
        self._app = app
        self._parent = parent

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if (scope["type"], scope.get("method"), scope.get("path")) != ("http", "GET", "/metrics"):
            await self._app(scope, receive, send)
            return
        body = await self._parent.metrics()
        headers = [
            (b"Content-Type", MEDIA_TYPE.encode()),
            (b"Content-Length", str(len(body)).encode()),
            (b"X-Request-ID", uuid4().hex.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
