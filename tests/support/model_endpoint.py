"""An endpoint with Chat Completions on a loopback socket, doing what the test tells it to.

``async with Upstream.serving(act, …) as upstream``: the first request meets the first act, the last act meets all
requests that are left. An act is an aiohttp handler; the functions below make the usual ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from palaver.models.openai import OpenAIModel, Timeouts

Act = Callable[[web.Request], Awaitable[web.StreamResponse]]
DONE = b"data: [DONE]\n\n"


class Upstream:
    """The endpoint. ``bodies`` and ``headers`` are what was asked, ``connections`` the clients' ports."""

    def __init__(self, acts: tuple[Act, ...]) -> None:
        self.acts = acts
        self.url = ""
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[int] = set()
        self.asked = asyncio.Event()
        """Set when a request is being answered."""
        self.abandoned = asyncio.Event()
        """Set when a client has closed the connection on which it was being answered."""
        self._awaited = (0, asyncio.Event())

    async def asked_times(self, count: int) -> None:
        """Wait until ``count`` requests have come."""
        if len(self.bodies) < count:
            self._awaited = (count, asyncio.Event())
            await self._awaited[1].wait()

    @staticmethod
    @asynccontextmanager
    async def serving(*acts: Act) -> AsyncGenerator[Upstream, None]:
        upstream = Upstream(acts)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", upstream.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield upstream
        finally:
            await runner.cleanup()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername")[1])
        act = self.acts[min(len(self.bodies), len(self.acts) - 1)]
        body = await request.read()
        self.bodies.append(msgspec.json.decode(body) if body else None)
        self.headers.append(dict(request.headers))
        self.asked.set()
        if len(self.bodies) >= self._awaited[0]:
            self._awaited[1].set()
        try:
            return await act(request)
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned.set()
            raise

    @asynccontextmanager
    async def client(
        self, *, api_key: str | None = "sk-secret-of-this-test", timeouts: Timeouts | None = None, retries: int = 2
    ) -> AsyncGenerator[OpenAIModel, None]:
        """A model that asks this endpoint, and does not dawdle between attempts."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            yield OpenAIModel(
                lambda: session,
                base_url=self.url,
                api_key=api_key,
                timeouts=timeouts or Timeouts(),
                retries=retries,
                backoff=0.01,
            )


# What is said -------------------------------------------------------------------------------------------------------


def chunk(
    delta: dict[str, Any] | None = None, *, finish: str | None = None, usage: dict[str, int] | None = None
) -> bytes:
    """One event as OpenAI writes it; without ``delta`` and ``finish`` the last one, with usage and no choices."""
    choices: list[Any] = []
    if delta is not None or finish is not None:
        choices = [{"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish}]
    return event(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": "some-model-2026",
            "system_fingerprint": "fp_1",
            "choices": choices,
            "usage": usage,
        }
    )


def event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def speech(*texts: str, finish: str = "stop") -> bytes:
    """A whole stream that says ``texts``."""
    first = chunk({"role": "assistant", "content": ""})
    return first + b"".join(chunk({"content": text}) for text in texts) + chunk(finish=finish) + DONE


# How it is said -----------------------------------------------------------------------------------------------------


async def begin(request: web.Request, content_type: str = "text/event-stream") -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    return response


def stream(*pieces: bytes, content_type: str = "text/event-stream") -> Act:
    """Each piece is a write of its own."""

    async def act(request: web.Request) -> web.StreamResponse:
        response = await begin(request, content_type)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    return act


def answer(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Act:
    async def act(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers={"Content-Type": content_type, **named})

    return act


def silence(*pieces: bytes) -> Act:
    """After ``pieces`` nothing comes any more, but the connection stays; without any not even the headers."""

    async def act(request: web.Request) -> web.StreamResponse:
        response = None
        if pieces:
            response = await begin(request)
            for piece in pieces:
                await response.write(piece)
        await asyncio.Event().wait()
        raise AssertionError(response)

    return act


def cut(*pieces: bytes) -> Act:
    """The connection breaks after ``pieces``; without any before the headers."""

    async def act(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        if pieces:
            await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        assert request.transport is not None
        request.transport.close()
        return response

    return act


def endless(piece: bytes) -> Act:
    """``piece`` again and again, as long as somebody listens."""

    async def act(request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        while True:
            await response.write(piece)
            await asyncio.sleep(0.005)

    return act


@asynccontextmanager
async def raw(pieces: Iterable[bytes]) -> AsyncGenerator[str, None]:
    """The base URL of a server that sends ``said``, whatever it is asked, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@asynccontextmanager
async def deaf() -> AsyncGenerator[tuple[str, asyncio.Event, asyncio.Event], None]:
    """The ``https`` base URL of a server that never answers the handshake, so that no connection comes about; set
    when somebody has tried, and when somebody has given up."""
    connected, abandoned = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        try:
            await reader.read()
        finally:
            abandoned.set()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", connected, abandoned
