"""Requests that arrive by the thousand are accepted and started a few at a time, and delay nobody else."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import uvloop

from palaver.http.connections import ConnectionLimits, Connections
from palaver.http.request_queue import STARTS_PER_ITERATION, RequestQueue
from palaver.http.uvicorn_server import ACCEPTS_PER_ITERATION, Receive, Send, Server, bind_socket


async def test_a_callers_request_does_not_wait_for_those_of_another() -> None:
    queue = RequestQueue()
    started: list[bytes] = []
    for _ in range(1000):
        queue.start([(b"authorization", b"Bearer many")], lambda: started.append(b"many"))
    queue.start([(b"authorization", b"Bearer one")], lambda: started.append(b"one"))
    assert len(started) == STARTS_PER_ITERATION
    for _ in range(1000 // STARTS_PER_ITERATION + 1):
        await asyncio.sleep(0)
    assert len(started) == 1001
    assert started.index(b"one") < 2 * STARTS_PER_ITERATION


async def test_requests_with_different_signatures_of_one_credential_are_one_callers() -> None:
    queue = RequestQueue(1)
    started: list[str] = []
    for number in range(100):
        signed = [(b"x-kso-authorization", b"KSO-1 many:%d" % number)]
        queue.start(signed, lambda: started.append("many"))
    queue.start([(b"x-kso-authorization", b"KSO-1 one:0")], lambda: started.append("one"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert started[:3] == ["many", "many", "one"]


async def test_each_iteration_starts_a_limited_number_in_their_order() -> None:
    queue = RequestQueue(4)
    started: list[int] = []
    for number in range(100):
        queue.start([], lambda number=number: started.append(number))
    counts = [len(started)]
    for _ in range(24):
        await asyncio.sleep(0)
        counts.append(len(started))
    assert counts == list(range(4, 101, 4))
    assert started == list(range(100))
    await asyncio.sleep(0)
    queue.start([], lambda: started.append(100))  # the queue is empty: at once
    assert started[-1] == 100


async def _hello(_scope: object, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def _accept(number: int) -> list[int]:
    """Connections accepted so far, after each iteration of the event loop."""
    connections = Connections(ConnectionLimits(max_unverified=10_000))
    listening = bind_socket("127.0.0.1", 0)
    address = listening.getsockname()
    up = asyncio.Event()
    server = Server(_hello, on_started=up.set, graceful_shutdown_s=5, connections=connections)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await up.wait()
    accepted: list[int] = []
    with ExitStack() as clients:
        for _ in range(number):
            clients.enter_context(socket.create_connection(address))
        while len(connections) < number:
            await asyncio.sleep(0)
            accepted.append(len(connections))
    server.should_exit = True
    await serving
    with socket.socket() as late:  # every handle of the listening socket is closed
        assert late.connect_ex(address) != 0
    return accepted


def test_several_connections_are_accepted_in_each_iteration() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        accepted = runner.run(_accept(400))
    assert len(accepted) < 2 * 400 / ACCEPTS_PER_ITERATION
