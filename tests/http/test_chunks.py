"""Chunked bodies are parsed a few chunks at a time: every chunk has a cost, however small."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from palaver.http.stream import Receive, Send
from palaver.http.uvicorn_server import Server, bind_socket

CHUNKS = 200_000


async def _answers(*sent: bytes) -> tuple[bytes, list[int]]:
    """All bytes that a server responds to ``sent``, and the sizes of the body chunks that its application received."""
    pieces: list[int] = []

    async def application(_: dict[str, Any], receive: Receive, send: Send) -> None:
        size = 0
        while True:
            message = await receive()
            pieces.append(len(message["body"]))
            size += pieces[-1]
            if not message["more_body"]:
                break
        body = b"%d bytes" % size
        length = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})

    with bind_socket("127.0.0.1", 0) as listening:
        up = asyncio.Event()
        server = Server(application, on_started=up.set, graceful_shutdown_s=5)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await up.wait()
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        for piece in sent:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)  # each is a read of its own
        async with asyncio.timeout(30):
            answers = await reader.read(-1)
        writer.close()
        server.should_exit = True
        await serving
    return answers, pieces


def test_very_many_chunks_are_parsed_a_few_at_a_time_and_the_next_request_is_served() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * CHUNKS + b"0\r\n\r\n"
    last = head + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers, pieces = runner.run(_answers(chunked + last))
    assert [answer[-12:].split(b"\r\n")[-1] for answer in answers.split(b" bytes")[:2]] == [b"200000", b"3"]
    assert max(pieces) < 25_000  # of the 40,000 and more that come in one read


BODY = b"5\r\na\r\n\r\n\r\n2;x=y\r\nzz\r\n0\r\nX-Trailer: t\r\n\r\n"
"""Seven bytes, with what looks like an end of it in the middle."""
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"


@pytest.mark.parametrize("cut", range(1, len(BODY + NEXT), 3))
def test_a_request_after_a_chunked_body_is_served_however_the_bytes_are_split(cut: int) -> None:
    sent = BODY + NEXT
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers, _ = runner.run(_answers(HEAD + sent[:cut], sent[cut:]))
    assert [answer[-1:] for answer in answers.split(b" bytes")[:2]] == [b"7", b"3"]
    assert answers.count(b"HTTP/1.1 200") == 2
