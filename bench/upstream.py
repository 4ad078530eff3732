"""A model's endpoint of minimal cost: Chat Completions from prepared bytes.

It answers every request with the same text in chunks like OpenAI's, at the pace of its ``plan``. It runs in the
bench's event loop, so that a measurement can hold and resume it, and see what it has sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

BEGIN = "BEGIN"
"""The text of the first chunk."""
WORD = " word"
"""The text of every chunk between."""
END = " FINIS"
"""The text of the last chunk."""

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_SLOTS = 10
"""Number of ticks over which the chunks of all streams are spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to answer: the number of ``chunks`` with text, and the seconds between two of them (0: all in one write).

    ``gated``: only the first chunk is sent at once, the others after ``go``, the end of the stream after ``finish``.
    """

    chunks: int
    every: float = 0.0
    gated: bool = False


def text(plan: Plan) -> str:
    """The complete text of an answer."""
    return BEGIN + WORD * (plan.chunks - 2) + END


class Upstream:
    """The endpoint; ``url`` is the value for ``OPENAI_BASE_URL``."""

    def __init__(self) -> None:
        self.url = ""
        self.plan = Plan(chunks=20)
        self.sent = 0
        """The number of chunks sent."""
        self.began_flowing = self.ended = 0.0
        """The times of ``go`` and of the last chunk, by ``perf_counter``."""
        self.live: set[Speech] = set()
        self.broken_off = 0
        """The number of answers that the other side aborted."""
        self._server: asyncio.Server | None = None
        self._pacer = Pacer()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Speech(self), "127.0.0.1", 0, backlog=4096)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def close(self) -> None:
        self._pacer.stop()
        if self._server is not None:
            self._server.close()
            for speech in list(self.live):
                speech.abort()

    def fresh(self, plan: Plan) -> None:
        """Use ``plan`` from now on, and reset the counts."""
        self.plan = plan
        self.sent = 0
        self.began_flowing = self.ended = 0.0

    def go(self) -> None:
        """Resume every held answer at its pace; one without a pace continues with ``step``."""
        self.began_flowing = time.perf_counter()
        if self.plan.every:
            for speech in list(self.live):
                self.pace(speech)

    def step(self) -> None:
        """Write one more chunk of every held answer."""
        for speech in list(self.live):
            speech.step()

    def finish(self) -> None:
        """End every held answer."""
        for speech in list(self.live):
            speech.finish()

    def pace(self, speech: Speech) -> None:
        self._pacer.add(speech.step, self.plan.every)

    def wrote(self) -> None:
        self.ended = time.perf_counter()
        self.sent += 1


class Speech(asyncio.Protocol):
    """One connection and its answer."""

    __slots__ = ("_left", "_missing", "_plan", "_request", "_transport", "_upstream")

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._transport: asyncio.Transport
        self._request = b""
        self._missing = 0
        self._left = 0
        self._plan = upstream.plan

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self in self._upstream.live:
            self._upstream.live.discard(self)
            self._upstream.broken_off += 1
        self._left = 0

    def data_received(self, data: bytes) -> None:
        """Requests are not parsed except for their ``Content-Length``."""
        if self._missing:
            self._missing -= len(data)
        else:
            self._request += data
            head, end, body = self._request.partition(b"\r\n\r\n")
            if not end:
                return
            _, _, declared = head.lower().partition(b"content-length:")
            self._missing = int(declared.split(b"\r\n", 1)[0] or b"0") - len(body)
            self._request = b""
        if self._missing <= 0:
            self._missing = 0
            self._answer()

    def _answer(self) -> None:
        upstream = self._upstream
        self._plan = plan = upstream.plan
        upstream.live.add(self)
        if not plan.every and not plan.gated:
            self._transport.write(_whole(plan))
            upstream.sent += plan.chunks
            upstream.live.discard(self)
            return
        self._transport.write(_HEAD + _FIRST)
        upstream.wrote()
        self._left = plan.chunks - 1
        if not plan.gated:
            upstream.pace(self)

    def step(self) -> bool:
        """Write one chunk. Returns whether there are more."""
        if self._left <= 0:
            return False
        self._left -= 1
        self._transport.write(_MIDDLE if self._left else _LAST)
        self._upstream.wrote()
        if self._left == 0 and not self._plan.gated:
            self.finish()
        return self._left > 0

    def finish(self) -> None:
        self._upstream.live.discard(self)
        self._transport.write(_CLOSING)

    def abort(self) -> None:
        self._transport.abort()


class Pacer:
    """Calls every ``step`` once per ``every`` seconds until it returns False. Deadlines are absolute: late calls are
    caught up at once, and the measurement reports the actual rate."""

    def __init__(self) -> None:
        self._slots: list[list[Callable[[], bool]]] = [[] for _ in range(_SLOTS)]
        self._filled = 0
        self._every = 0.0
        self._due = 0.0
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, step: Callable[[], bool], every: float) -> None:
        self._every = every
        self._slots[self._filled % _SLOTS].append(step)
        self._filled += 1
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._due = loop.time() + every / _SLOTS
            self._timer = loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self) -> None:
        at = self._tick % _SLOTS
        self._tick += 1
        self._slots[at] = [step for step in self._slots[at] if step()]
        if any(self._slots):
            self._due += self._every / _SLOTS
            self._timer = asyncio.get_running_loop().call_at(self._due, self._beat)
        else:
            self._timer = None


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-C1pQv7nWzJ8yLr2tKd5mXbF0hSgUe",
        "object": "chat.completion.chunk",
        "created": 1_754_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    }
    return b"data: %s\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_USAGE = (
    b'data: {"id":"chatcmpl-C1pQv7nWzJ8yLr2tKd5mXbF0hSgUe","object":"chat.completion.chunk","created":1754000000,'
    b'"model":"gpt-4o-mini-2024-07-18","choices":[],'
    b'"usage":{"prompt_tokens":19,"completion_tokens":200,"total_tokens":219}}\n\n'
)
_FIRST = _framed(_event({"role": "assistant", "content": BEGIN}))
_MIDDLE = _framed(_event({"content": WORD}))
_LAST = _framed(_event({"content": END}))
_CLOSING = _framed(_event({}, "stop")) + _framed(_USAGE) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _whole(plan: Plan) -> bytes:
    return _HEAD + _FIRST + _MIDDLE * (plan.chunks - 2) + _LAST + _CLOSING
