"""Connections that break before the first word, in every way there is, and how often and how long it is tried again."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from support.model_endpoint import DONE, Upstream, answer, chunk, event, speech, stream
from support.model_runner import asked, listen_to_the_end, run, said

from palaver.core.ports.models import ModelDelta
from palaver.core.problems import Upstream as Failure
from palaver.models.openai import OpenAIModel, Timeouts

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = HEAD + b"Content-Length: 1000\r\n\r\n"
CLOSING = HEAD + b"Connection: close\r\n\r\n"
GOOD = CLOSING + speech("x")


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """What a connection says before it ends. ``reads``: it takes the request first; ``resets``: it ends at once and
    hard, as that of a process that was killed does."""

    says: bytes = b""
    reads: bool = True
    resets: bool = False


class Breaking:
    """A server whose connections end as they are told to, one after the other, the last one for all that come after."""

    def __init__(self, breaks: Sequence[Break]) -> None:
        self._breaks = breaks
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = self._breaks[min(self.connections, len(self._breaks) - 1)]
        self.connections += 1
        if now.reads:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        writer.write(now.says)
        await writer.drain()
        if now.resets:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()


@asynccontextmanager
async def breaking(*breaks: Break) -> AsyncGenerator[Breaking, None]:
    served = Breaking(breaks)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    async with server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield served


def heard(*breaks: Break, timeouts: Timeouts | None = None) -> tuple[list[ModelDelta], Failure | None, int]:
    """The deltas, the problem, and how many connections there were."""

    async def work() -> tuple[list[ModelDelta], Failure | None, int]:
        async with breaking(*breaks) as served, aiohttp.ClientSession() as session:
            model = OpenAIModel(lambda: session, base_url=served.url, timeouts=timeouts or Timeouts(), backoff=0.01)
            deltas, problem = await listen_to_the_end(model.stream(asked()))
            return deltas, problem, served.connections

    return run(work())


BEFORE_THE_FIRST_WORD: dict[str, bytes] = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 2",
    "half the headers": HEAD,
    "headers, a length": LENGTH,
    "headers, chunks to come": CHUNKED,
    "headers, the end to come": CLOSING,
    "half a chunk's size": CHUNKED + b"1",
    "a chunk's size": CHUNKED + b"100\r\n",
    "an end without a byte": CHUNKED + b"0\r\n\r\n",
    "a comment": CHUNKED + chunked(b": keep-alive\n\n"),
    "a role": CHUNKED + chunked(chunk({"role": "assistant", "content": ""})),
    "usage": CHUNKED + chunked(event({"choices": [], "usage": {"prompt_tokens": 1}})),
    "half an event": CHUNKED + chunked(chunk({"content": "y"})[:40]),
    "half a character": CHUNKED + chunked('data: {"choices":[{"delta":{"content":"中'.encode()[:-1]),
    "half a JSON answer": CLOSING.replace(b"text/event-stream", b"application/json") + b'{"choices":[{"mess',
}


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("name", BEFORE_THE_FIRST_WORD)
def test_a_connection_that_breaks_before_the_first_word_is_tried_again(name: str, resets: bool) -> None:
    broken = Break(says=BEFORE_THE_FIRST_WORD[name], resets=resets)
    deltas, problem, connections = heard(broken, broken, Break(says=GOOD))
    assert problem is None
    assert said(deltas) == "x"
    assert connections == 3


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
def test_a_connection_that_breaks_before_the_request_is_read_is_tried_again(resets: bool) -> None:
    deltas, problem, connections = heard(Break(reads=False, resets=resets), Break(says=GOOD))
    assert (said(deltas), problem, connections) == ("x", None, 2)


@pytest.mark.parametrize("name", BEFORE_THE_FIRST_WORD)
def test_a_third_break_is_the_last(name: str) -> None:
    deltas, problem, connections = heard(Break(says=BEFORE_THE_FIRST_WORD[name]))
    assert not said(deltas)
    assert problem is not None
    assert problem.reason in {"cut", "connect", "malformed"}
    assert connections == 3


@pytest.mark.parametrize("said_first", [{"content": "y"}, {"reasoning": "y"}])
def test_after_the_first_word_nothing_is_tried_again(said_first: dict[str, str]) -> None:
    words = CHUNKED + chunked(chunk(said_first))
    deltas, problem, connections = heard(Break(says=words), Break(says=GOOD))
    assert len(deltas) == 1
    assert problem is not None
    assert problem.reason == "cut"
    assert connections == 1


@pytest.mark.parametrize(
    "ended", [DONE, chunk(finish="stop"), chunk(finish="length") + DONE, event({"error": {"message": "no"}})]
)
def test_an_answer_that_its_endpoint_has_ended_is_not_asked_for_again(ended: bytes) -> None:
    _, problem, connections = heard(Break(says=CLOSING + ended), Break(says=GOOD))
    assert problem is not None
    assert connections == 1


def test_an_error_of_status_429_inside_the_stream_is_tried_again() -> None:
    limit = Break(says=CLOSING + event({"error": {"code": 429, "message": "slow down"}}))
    assert heard(limit, Break(says=GOOD))[2] == 2


@pytest.mark.parametrize("wait", ["0.2", "9"])
def test_no_attempt_begins_behind_the_time_for_the_first_byte(wait: str) -> None:
    async def work() -> tuple[Failure | None, int]:
        later = answer(503, b"", Retry_After=wait)
        async with Upstream.serving(later, later, later, stream(speech("x"))) as upstream:
            async with upstream.client(timeouts=Timeouts(first_byte=0.3)) as model:
                _, problem = await listen_to_the_end(model.stream(asked()))
            return problem, len(upstream.bodies)

    problem, attempts = run(work())
    assert problem is not None
    assert problem.status == 503
    assert attempts == (2 if wait == "0.2" else 1)
