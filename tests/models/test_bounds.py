"""An endpoint that never ends: whatever it goes on with, what palaver holds of it is bounded."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from support.model_endpoint import DONE, chunk, event, speech
from support.model_runner import asked as asking
from support.model_runner import joined, listen_to_the_end, run, said, thought

from palaver.core.ports.models import ModelDelta
from palaver.core.problems import Upstream as Failure
from palaver.models.media import LARGEST
from palaver.models.openai import OpenAIModel, Timeouts
from palaver.models.registry import ModelRegistry

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
JSON = HEAD.replace(b"text/event-stream", b"application/json")
LONGEST = 200_000
"""Characters of an answer that the client under test takes."""
MOST = 100 * 2**20
"""Bytes of memory that any of it may take: twice the largest limit, and what Python needs beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endless:
    """``again`` and again behind ``head``; what becomes of it is a problem with that ``reason`` and those words."""

    head: bytes = HEAD
    again: bytes
    reason: str = "malformed"
    detail: str = ""


@asynccontextmanager
async def endless(what: Endless) -> AsyncGenerator[str, None]:
    """The base URL of a server that goes on until nobody listens any more."""
    talking: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talking.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(what.head)
            block = what.again * max(1, 16_384 // len(what.again))
            while True:
                writer.write(block)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)


def heard(what: Endless, seconds: float | None = None) -> tuple[list[ModelDelta], Failure | None]:
    """What a client hears; with ``seconds`` it hangs up then, as the end of a run's time does."""

    async def work() -> tuple[list[ModelDelta], Failure | None]:
        async with endless(what) as url, aiohttp.ClientSession(auto_decompress=False) as session:
            timeouts = Timeouts(first_byte=1.0, idle=1.0)
            model = OpenAIModel(lambda: session, base_url=url, timeouts=timeouts, longest=LONGEST, retries=0)
            found: list[ModelDelta] = []
            try:
                async with asyncio.timeout(seconds), aclosing(model.stream(asking())) as deltas:
                    async for delta in deltas:
                        found.append(delta)  # noqa: PERF401  what was heard before the problem counts
            except Failure as problem:
                return found, problem
            except TimeoutError:
                return found, None
            return found, None

    tracemalloc.start(1)
    try:
        found = run(work())
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    return found


def call(**function: str) -> bytes:
    return chunk({"tool_calls": [{"index": 0, "function": function}]})


CALL = event({"choices": [{"delta": {"tool_calls": [{"id": None, "function": {"name": "f", "arguments": "{}"}}]}}]})
GROWING: dict[str, Endless] = {
    "a line": Endless(again=b"x", detail="a line of more than"),
    "a line of data": Endless(head=HEAD + b"data: {", again=b"x", detail="a line of more than"),
    "a line of blanks": Endless(head=HEAD + b"data:", again=b" ", detail="a line of more than"),
    "an event": Endless(again=b"data: x\n", detail="an event of more than"),
    "tool calls": Endless(again=CALL, detail="more than 128 tool calls"),
    "arguments": Endless(again=call(name="f", arguments="x" * 100), detail="longer than an answer"),
    "arguments of braces": Endless(
        head=HEAD + call(name="f", arguments="{}"), again=call(arguments="{}" * 50), detail="longer than an answer"
    ),
    "calls of one index": Endless(again=call(name="f", arguments="{}" * 50), detail="more than 128 tool calls"),
    "a tool's name": Endless(head=HEAD + call(name="f"), again=call(name="g" * 100), detail="name of more than"),
    "a JSON answer": Endless(head=JSON + b'{"choices":"', again=b"x", detail="an answer of more than"),
    "blanks for a JSON answer": Endless(head=JSON, again=b" ", detail="an answer of more than"),
    "a JSON answer called a stream": Endless(head=HEAD + b"{", again=b"x", detail="an answer of more than"),
    "brackets": Endless(head=HEAD + b'data: {"choices":', again=b"[", detail="a line of more than"),
    "a status line": Endless(head=b"HTTP/1.1 200 ", again=b"x", detail="does not speak HTTP"),
    "a header": Endless(head=b"HTTP/1.1 200 OK\r\nX-A: ", again=b"x", detail="does not speak HTTP"),
    "headers": Endless(head=b"HTTP/1.1 200 OK\r\n", again=b"X-A: x\r\n", detail="does not speak HTTP"),
    "an error's body": Endless(
        head=b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", again=b"x", reason="rejected", detail="HTTP 400"
    ),
    "a redirect": Endless(
        head=b"HTTP/1.1 302 Found\r\nLocation: /v1\r\nConnection: close\r\n\r\n", again=b"x", reason="rejected"
    ),
    "a gzip bomb": Endless(
        head=HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n", again=gzip.compress(b"\n" * 2**20), detail="compressed"
    ),
    "interim answers": Endless(
        head=b"", again=b"HTTP/1.1 100 Continue\r\n\r\n", reason="timeout", detail="no answer within"
    ),
    "thinking": Endless(again=chunk({"reasoning": "x" * 100}), reason="cut", detail="empty"),
    "thinking in tags": Endless(
        head=HEAD + chunk({"content": "<think>"}), again=chunk({"content": "x" * 100}), reason="cut", detail="empty"
    ),
    "blanks in thinking": Endless(
        head=HEAD + chunk({"content": "<think>"}), again=chunk({"content": " " * 100}), reason="cut", detail="empty"
    ),
    "blank words": Endless(again=chunk({"content": " " * 100}), reason="cut", detail="empty"),
}


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_without_end_has_a_limit(name: str) -> None:
    what = GROWING[name]
    deltas, problem = heard(what)
    assert problem is not None
    assert problem.reason == what.reason
    assert what.detail in problem.detail
    assert len(problem.detail) < 500
    assert len(said(deltas)) + len(thought(deltas)) <= LONGEST


def test_an_answer_without_end_is_cut_and_says_so() -> None:
    deltas, problem = heard(Endless(again=chunk({"content": "中" * 7})))
    assert problem is None
    assert said(deltas) == "中" * LONGEST
    assert getattr(deltas[-1], "reason", "") == "length"


STANDING: dict[str, bytes] = {
    "comments": b": keep-alive\n\n",
    "blank lines": b"\n",
    "fields": b"x: y\n",
    "names": b"event: x\n\n",
    "pings": b"data: ping\n\n",
    "objects": b'data: {"a":1}\n\n',
    "chunks without words": chunk({"role": "assistant", "content": ""}),
    "empty pieces of a call": call(arguments=""),
    "other choices": event({"choices": [{"index": 1, "delta": {"content": "x"}}]}),
    "usage": event({"choices": [], "usage": {"prompt_tokens": 1}}),
}


@pytest.mark.parametrize("name", STANDING)
def test_what_says_nothing_without_end_takes_time_alone_until_the_runs_is_over(name: str) -> None:
    deltas, problem = heard(Endless(again=STANDING[name]), seconds=0.5)
    assert problem is None
    assert not said(joined(deltas))


def test_what_follows_the_end_without_end_is_not_waited_for() -> None:
    deltas, problem = heard(Endless(head=HEAD + speech("x"), again=b": more\n\n"))
    assert (said(deltas), problem) == ("x", None)
    assert said(heard(Endless(head=HEAD + chunk({"content": "x"}) + DONE, again=b"x"))[0]) == "x"


def test_a_drip_slower_than_the_idle_time_is_a_silence() -> None:
    async def work() -> Failure | None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            try:
                for byte in speech("x"):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.4)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with server, aiohttp.ClientSession() as session:
            model = OpenAIModel(lambda: session, base_url=url, timeouts=Timeouts(idle=0.1))
            return (await listen_to_the_end(model.stream(asking())))[1]

    problem = run(work())
    assert problem is not None
    assert problem.reason == "timeout"


@pytest.mark.parametrize(
    "what",
    [
        Endless(head=JSON + b'{"data":[{"b64_json":"', again=b"a" * 8192, detail=f"more than {LARGEST} bytes"),
        GROWING["an error's body"],
        GROWING["a gzip bomb"],
        GROWING["headers"],
    ],
    ids=["picture", "error", "bomb", "headers"],
)
def test_pictures_and_speech_have_limits_too(what: Endless) -> None:
    async def work() -> list[Failure]:
        async with endless(what) as url:
            catalog = ModelRegistry(base_url=url)
            found = catalog.image_model("openai:m")
            assert found is not None
            media, failures = found[0], list[Failure]()
            for make in (media.generate("m", "a cat"), media.synthesize("m", "hi", "v")):
                with pytest.raises(Failure) as caught:
                    await make
                failures.append(caught.value)
            await catalog.close()
            return failures

    for problem in run(work()):
        assert len(problem.detail) < 500
        assert problem.reason in {what.reason, "connect", "malformed"}


@pytest.mark.parametrize("name", ["a line", "headers", "an error's body", "a gzip bomb", "a redirect"])
def test_the_check_of_an_endpoint_ends_too(name: str) -> None:
    async def work() -> str | None:
        async with endless(GROWING[name]) as url:
            catalog = ModelRegistry(base_url=url)
            try:
                return await catalog.check("openai:m")
            finally:
                await catalog.close()

    wrong = run(work())
    assert wrong
    assert len(wrong) < 600
