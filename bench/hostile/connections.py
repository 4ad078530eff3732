"""Attacks with connections: many, slow, or with more requests than are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from bench.hostile.target import Target, ask, dial

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def lines(target: Target, number: int) -> AsyncGenerator[list[Line]]:
    """Open connections, and drop them afterwards."""
    connections: list[Line] = []
    try:
        for _ in range(number):
            with suppress(OSError):
                connections.append(await dial(target.port))
        yield connections
    finally:
        for _, writer in connections:
            writer.transport.abort()


def _open(connections: Sequence[Line]) -> int:
    return sum(not writer.transport.is_closing() and not reader.at_eof() for reader, writer in connections)


async def dripping(target: Target) -> str:
    """Connections that send a request line, headers or a body one byte at a time, or nothing."""
    number = target.number(600, least=300)  # more than may be unverified
    body = b"POST /snail-ai/open-api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    starts = (b"", b"GET /health", b"GET / HTTP/1.1\r\nHost: x\r\nA: ", body)
    async with lines(target, number) as connections:
        for at, (_, writer) in enumerate(connections):
            writer.write(starts[at % len(starts)])
        while target.left:
            for at, (_, writer) in enumerate(connections):
                if at % len(starts) and not writer.transport.is_closing():
                    writer.write(b"z")
            await asyncio.sleep(0.5)
        return f"{_open(connections)} of {number} still open"


async def pipelined_heads(target: Target) -> str:
    """Endless pipelined requests behind an answer that never ends, and behind answers that are not read."""
    behind_run = target.message("hanging", stream=True)
    behind_page = target.request("GET", "problems")
    further = target.request("GET", "conversations?limit=100") * 200
    huge_head = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 9000
    starts = (
        behind_run + further,
        behind_page * 50 + further,
        behind_run + huge_head,
        behind_run + b"GET / HTTP/1.1\r\n",
    )
    async with lines(target, target.number(24, least=8)) as connections:
        sent = await asyncio.gather(
            *(_push(target, line, starts[at % len(starts)], further) for at, line in enumerate(connections))
        )
    await target.stop_all()
    return f"{sum(sent) / 2**20:.0f} MiB taken by {len(sent)} connections"


async def _push(target: Target, line: Line, start: bytes, more: bytes) -> int:
    """Send as much as possible without reading. Returns the number of bytes sent."""
    reader, writer = line
    reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001  there is no other way
    sent = len(start)
    writer.write(start)
    with suppress(OSError, TimeoutError):
        while target.left:
            async with asyncio.timeout(target.left):
                await writer.drain()
            writer.write(more)
            sent += len(more)
    return sent


async def tiny_chunks(target: Target) -> str:
    """Bodies of 1 MiB in chunks of one byte with extensions, with valid and invalid credentials."""
    head = target.request("POST", "messages").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    body = b"".join(b"1;%s\r\n%c\r\n" % (b"e" * 16, byte) for byte in b'{"content":"' + b"x" * target.number(200_000))
    requests = [head + body + b"0\r\n\r\n", head.replace(b"pv-", b"no-") + body + b"0\r\n\r\n"] * 4
    statuses = [status for status, _ in await asyncio.gather(*(_sent(target, one) for one in requests))]
    return f"{len(statuses)} bodies, answered {sorted(set(statuses))}"


async def _sent(target: Target, request: bytes) -> tuple[int, bytes]:
    return await ask(target.port, request)
