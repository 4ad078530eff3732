"""Several server processes behind one port: a parent that starts them, restarts those that die, ends them in order,
and adds up their figures.

A worker is a process of its own from the start, not a fork: nothing of the parent's loop, threads or connections is in
it, and one that is restarted is as fresh as the first. Its standard input is a line to the parent. The settings come
on it, figures are asked for on it, and its end means that the parent is gone, however that died.
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
from palaver.http.metrics import MEDIA_TYPE
from palaver.http.prometheus import merge_metrics, without_gauges
from palaver.http.stream import Receive, Send
from palaver.http.uvicorn_server import Application, listen
from palaver.shutdown import WORKER_SHARE, force_exit_after

RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before a worker that died is started again, by how often it did so in a row; the last one repeats."""
STABLE_AFTER_S = 30.0
"""Seconds after which a worker counts as having lived: the next pause is the shortest one again."""
ANSWERS_WITHIN = 1.0
"""Seconds a worker has to tell its figures; after that those it told last stand for it."""
COMMAND = ("-P", "-m", "palaver", "worker")
"""What the interpreter is told to run; ``-P``, or a folder ``palaver`` where the server was started would be run."""
_ONE_DOOR_EACH = sys.platform == "linux"
log = structlog.get_logger("palaver.supervisor")


class SharedPort:
    """The address that all workers serve. Nobody listens on the socket in here: it only keeps the address theirs.

    On Linux each worker gets a socket of its own there (``SO_REUSEPORT``), and the kernel gives every connection to
    one of them by a hash: streams, which last, are spread evenly. On one socket for all whoever wakes first would
    accept everything that waits. Elsewhere the kernel does not spread, so there they do share one.
    """

    def __init__(self, host: str, port: int) -> None:
        """Raises ``OSError`` when the port cannot be had."""
        held = listen(host, port)
        if _ONE_DOOR_EACH:
            # Taken once without SO_REUSEPORT: with it, a second server on the same port would go unnoticed.
            port = held.getsockname()[1]
            held.close()
            held = listen(host, port, shared=True)
        self._host = host
        self._held = held
        self.number: int = held.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def door(self) -> socket.socket:
        """A socket for one worker. It is closed here once the worker has it, so that it ends with the worker and new
        connections go to the others."""
        return listen(self._host, self.number, shared=True) if _ONE_DOOR_EACH else self._held.dup()


class WorkerStart(msgspec.Struct, frozen=True, kw_only=True, tag="orders"):
    """The first message to a worker. ``listening`` is the descriptor of its socket."""

    number: int
    listening: int
    settings: Settings


class WorkerReady(msgspec.Struct, frozen=True, tag="up"):
    """The worker takes connections."""


class MetricsRequest(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """To a worker: tell your figures. To the parent: tell those of all."""

    ticket: int


class MetricsSnapshot(msgspec.Struct, frozen=True, kw_only=True, tag="figures"):
    """The answer to the ``MetricsRequest`` with that ticket, in Prometheus' text format."""

    ticket: int
    text: bytes


Message = WorkerStart | WorkerReady | MetricsRequest | MetricsSnapshot
_SIZE = 4
_decode: Callable[[bytes], Message] = msgspec.msgpack.Decoder(Message).decode


class Channel:
    """Messages over a pair of sockets, each behind its length in four bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def over(end: socket.socket) -> Channel:
        return Channel(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: Message) -> None:
        """Nothing happens when the other side is gone: whoever receives learns of it."""
        if not self._writer.is_closing():
            body = msgspec.msgpack.encode(message)
            self._writer.write(len(body).to_bytes(_SIZE, "big") + body)

    async def receive(self) -> Message | None:
        """The next message; ``None`` when the other side is gone."""
        try:
            size = int.from_bytes(await self._reader.readexactly(_SIZE), "big")
            return _decode(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, OSError):
            return None

    def close(self) -> None:
        self._writer.close()


class PendingMetrics:
    """Questions on a line that wait for their answer."""

    def __init__(self, line: Channel) -> None:
        self._line = line
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}

    async def figures(self, within: float) -> bytes:
        """What the other side says. Raises ``TimeoutError``."""
        ticket = next(self._tickets)
        self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._line.send(MetricsRequest(ticket=ticket))
        try:
            return await asyncio.wait_for(self._waiting[ticket], within)
        finally:
            del self._waiting[ticket]

    def answered(self, figures: MetricsSnapshot) -> None:
        waiting = self._waiting.get(figures.ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(figures.text)


def receive_start(end: socket.socket) -> WorkerStart | None:
    """What the parent wants of this process; ``None`` when there is no parent any more."""
    size = int.from_bytes(end.recv(_SIZE, socket.MSG_WAITALL), "big")
    body = end.recv(size, socket.MSG_WAITALL) if size else b""
    orders = _decode(body) if body and len(body) == size else None
    return orders if isinstance(orders, WorkerStart) else None


class ParentChannel:
    """The line to the parent, in a worker. ``own`` tells this process's figures."""

    def __init__(self, line: Channel) -> None:
        self._line = line
        self._asking = PendingMetrics(line)
        self.own: Callable[[], bytes] = bytes

    def tell_up(self) -> None:
        self._line.send(WorkerReady())

    async def attend(self) -> None:
        """Answer the parent until it is gone; then end this process as SIGTERM would, whatever it is doing."""
        while (message := await self._line.receive()) is not None:
            match message:
                case MetricsRequest(ticket=ticket):
                    self._line.send(MetricsSnapshot(ticket=ticket, text=self.own()))
                case MetricsSnapshot():
                    self._asking.answered(message)
                case WorkerStart() | WorkerReady():
                    pass
                case _:
                    assert_never(message)
        log.warning("the parent process is gone")
        signal.raise_signal(signal.SIGTERM)

    async def figures(self) -> bytes:
        """The figures of all workers; this one's where the parent does not answer."""
        try:
            return await self._asking.figures(2 * ANSWERS_WITHIN)
        except TimeoutError:
            return self.own()


@dataclass(slots=True, kw_only=True)
class _Worker:
    number: int
    process: Process
    line: Channel
    asking: PendingMetrics
    told: bytes = b""
    """Its figures, when it was asked last."""


class Supervisor:
    """The workers. ``end`` lets them end, and when it is called again, hurry."""

    def __init__(self, settings: Settings, port: SharedPort, announce: Callable[[], None]) -> None:
        self._settings = settings
        self._port = port
        self._announce = announce
        self._workers: dict[int, _Worker] = {}
        self._up: set[int] = set()
        self._announced = False
        self._ending = asyncio.Event()
        self._past: list[bytes] = []
        self._answers: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until ``end`` was called and every worker is gone. Raises ``Internal`` when the first ones cannot start."""
        places = [asyncio.create_task(self._keep(number)) for number in range(1, self._settings.workers + 1)]
        try:
            await asyncio.gather(*places)
        except Internal:
            self.end()
            await asyncio.gather(*places, return_exceptions=True)
            raise
        finally:
            log.info("stopped")

    def end(self) -> None:
        if not self._ending.is_set():
            log.info("stopping", workers=len(self._workers))
            self._ending.set()
            drain_s, stop_s = self._settings.drain_s, self._settings.stop_s
            force_exit_after(drain_s, stop_s)
            asyncio.get_running_loop().call_later(drain_s + stop_s * WORKER_SHARE, self._signal, signal.SIGKILL)
        self._signal(signal.SIGTERM)

    def _signal(self, name: signal.Signals) -> None:
        for worker in self._workers.values():
            _signal(worker.process, name)

    async def _keep(self, number: int) -> None:
        """One place in the crew: whoever falls out of it is replaced."""
        deaths = 0
        while not self._ending.is_set():
            begun = time.monotonic()
            how = await self._live(number)
            if self._ending.is_set():
                return
            if not self._announced:
                raise Internal(reason="unforeseen", detail=f"worker {number} did not start ({how})")
            deaths = 0 if time.monotonic() - begun > STABLE_AFTER_S else deaths + 1
            pause = RESTART_DELAYS_S[min(deaths, len(RESTART_DELAYS_S) - 1)]
            log.warning("a worker ended", worker=number, how=how, again_in=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    async def _live(self, number: int) -> str:
        """A worker's life; how it ended."""
        try:
            worker = await self._start(number)
        except OSError as error:  # the system is out of processes, descriptors or memory
            return str(error)
        try:
            await self._attend(worker)
            return f"exit {await worker.process.wait()}"
        finally:
            self._lose(worker)

    async def _start(self, number: int) -> _Worker:
        mine, theirs = socket.socketpair()
        with ExitStack() as failed, theirs, self._port.door() as door:
            failed.callback(mine.close)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *COMMAND,
                stdin=theirs.fileno(),
                pass_fds=(door.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C comes here first, and from here to them
            )
            line = await Channel.over(mine)
            line.send(WorkerStart(number=number, listening=door.fileno(), settings=self._settings))
            failed.pop_all()
        worker = _Worker(number=number, process=process, line=line, asking=PendingMetrics(line))
        self._workers[number] = worker
        if self._ending.is_set():  # it was told before it could hear
            _signal(process, signal.SIGTERM)
        return worker

    async def _attend(self, worker: _Worker) -> None:
        """Hear a worker until it is gone."""
        while (message := await worker.line.receive()) is not None:
            match message:
                case WorkerReady():
                    self._has_come_up(worker)
                case MetricsRequest(ticket=ticket):
                    answer = asyncio.create_task(self._tell_all(worker, ticket))
                    self._answers.add(answer)
                    answer.add_done_callback(self._answers.discard)
                case MetricsSnapshot(text=text):
                    worker.told = text
                    worker.asking.answered(message)
                case WorkerStart():
                    pass
                case _:
                    assert_never(message)

    def _has_come_up(self, worker: _Worker) -> None:
        log.info("a worker is up", worker=worker.number, pid=worker.process.pid)
        self._up.add(worker.number)
        if not self._announced and len(self._up) == self._settings.workers:
            self._announced = True
            self._announce()

    def _lose(self, worker: _Worker) -> None:
        del self._workers[worker.number]
        self._up.discard(worker.number)
        worker.line.close()
        self._past = [merge_metrics([*self._past, without_gauges(worker.told)])]

    async def _tell_all(self, asker: _Worker, ticket: int) -> None:
        await asyncio.gather(*map(_ask, list(self._workers.values())))
        told = (worker.told for worker in self._workers.values())
        asker.line.send(MetricsSnapshot(ticket=ticket, text=merge_metrics([*self._past, *told])))


async def _ask(worker: _Worker) -> None:
    with suppress(TimeoutError):
        await worker.asking.figures(ANSWERS_WITHIN)


def _signal(process: Process, name: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(name)


class AggregatedMetrics:
    """``application`` as one of several: asked for its figures it tells those of all, whichever of them is asked."""

    def __init__(self, application: Application, parent: ParentChannel) -> None:
        self._application = application
        self._parent = parent

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if (scope["type"], scope.get("method"), scope.get("path")) != ("http", "GET", "/metrics"):
            await self._application(scope, receive, send)
            return
        body = await self._parent.figures()
        headers = [
            (b"Content-Type", MEDIA_TYPE.encode()),
            (b"Content-Length", str(len(body)).encode()),
            (b"X-Request-ID", uuid4().hex.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
