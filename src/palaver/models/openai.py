"""Chat Completions over HTTP: OpenAI and every endpoint that calls itself compatible with it.

A request is retried (connection failed or broken, 429, 500, 502, 503, 504) only until the first delta of an answer,
and all attempts share the ``first_byte`` timeout.
Closing the generator, or cancelling its task, closes the TCP connection at once, whatever it is waiting for.
"""

from __future__ import annotations

import asyncio
import copy
import io
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec

from palaver.core.ports.models import ModelDelta, ModelRequest, UsageDelta
from palaver.core.problems import Upstream
from palaver.core.types import Text
from palaver.models.completion import LONGEST, ChatCompletionParser
from palaver.models.errors import excerpt, redact_secrets, upstream_problem
from palaver.models.request_body import encode_body
from palaver.models.thinking import Mode

RETRIES = 2
"""Maximum number of retries."""
PATIENCE = 10.0
"""Longest ``Retry-After`` in seconds that is honoured; the request fails at once if an endpoint requests more."""

_RETRIED = frozenset({429, 500, 502, 503, 504})
_MAX_WHOLE = 16 * 1024 * 1024
"""Bytes of an answer sent as one JSON object."""
_MAX_MODEL_LIST = 4 * 1024 * 1024
_MAX_ERROR_BODY = 64 * 1024
_BLANK = b"\xef\xbb\xbf \t\r\n"
UNCOMPRESSED = {"Accept-Encoding": "identity"}
_READ_SIZE = 32_768
"""Bytes of an answer that are read at a time."""
_DRAIN_S = 0.1
"""Seconds to wait for the end of the response after the end of the answer, so that the connection can be reused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds to wait for a connection, for the first byte of the answer (all attempts together), and between bytes."""

    connect: float = 10.0
    first_byte: float = 120.0
    idle: float = 60.0


TIMEOUTS = Timeouts()


class OpenAIModel:
    """A ``ChatModel`` behind an endpoint. ``session`` returns the HTTP session to use, ``base_url`` ends before
    ``/chat/completions``; without ``api_key`` no ``Authorization`` is sent. ``longest`` limits one answer, in
    characters. ``backoff`` is roughly the delay before the first retry, in seconds; it doubles."""

    def __init__(
        self,
        session: Callable[[], aiohttp.ClientSession],
        *,
        base_url: str,
        api_key: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
        longest: int = LONGEST,
        retries: int = RETRIES,
        backoff: float = 0.5,
    ) -> None:
        self._session = session
        self._base = base_url.rstrip("/")
        self._display_url = _without_user(self._base)
        if api_key:
            self._base = self._display_url  # one Authorization header: the key overrides the URL's user
        self._key = api_key
        self._timeouts = timeouts
        self._retries = retries
        self._backoff = backoff
        self._longest = longest
        self._thinking: Mode = "tags"
        self._headers = {**UNCOMPRESSED, **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
        self._proxy = proxy_for(self._base)

    def with_thinking(self, mode: Mode) -> OpenAIModel:
        """The same endpoint, for a model whose answers begin in this ``mode``."""
        if mode == self._thinking:
            return self
        other = copy.copy(self)
        other._thinking = mode  # noqa: SLF001  one of our own
        return other

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        """Stream the answer's deltas, as many at once as one network read holds. Raises ``Upstream``."""
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", **self._headers}
        if request.trace.isascii() and request.trace.isprintable() and request.trace:
            headers["X-Request-ID"] = request.trace
        body = encode_body(request)
        deadline = asyncio.get_running_loop().time() + self._timeouts.first_byte
        attempt = 0
        while True:
            begun = False
            connection = None
            try:
                connection = await self._try(body, headers, deadline, self._answer(request))
                while not connection.exhausted:
                    for delta in await connection.next_deltas():
                        begun = begun or not isinstance(delta, UsageDelta)
                        yield delta
                await connection.drain()
                return
            except Upstream as problem:
                problem.detail = redact_secrets(problem.detail, self._key)
                final = begun or (connection is not None and connection.ended)
                pause = None if final else self._pause(problem, attempt, deadline)
                if pause is None:
                    raise
            finally:
                if connection is not None:
                    connection.close()
            attempt += 1
            await asyncio.sleep(pause)

    def _answer(self, request: ModelRequest) -> ChatCompletionParser:
        last = request.history[-1] if request.history else None
        spoken = last is not None and last.role == "assistant" and any(isinstance(part, Text) for part in last.parts)
        return ChatCompletionParser(thinking=self._thinking, longest=self._longest, spoken=spoken)

    async def check(self, name: str) -> str | None:
        """Check the endpoint and that it has the model ``name``. Returns a sentence about the fault, or ``None``."""
        url, shown_url = f"{self._base}/models", f"{self._display_url}/models"
        try:
            async with (
                asyncio.timeout(5),
                self._session().get(url, headers=self._headers, proxy=self._proxy, allow_redirects=False) as response,
            ):
                content = await read_at_most(response, _MAX_MODEL_LIST)
        except TimeoutError:
            return f"{shown_url} did not answer within 5 seconds."
        except (aiohttp.ClientError, OSError) as error:
            return f"{shown_url} cannot be reached: {_reason(error)}"
        if response.status != 200:
            return f"{shown_url} answers {self._refused(response, content).detail}{_hint(response.status)}"
        try:
            offered = [model.id for model in msgspec.json.decode(content, type=_ModelList).data]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"{shown_url} answers, but not with a list of models: OPENAI_BASE_URL may lack its /v1."
        if offered and name not in offered:
            return f"{shown_url} does not offer {name!r} but {', '.join(sorted(offered)[:10])}."
        return None

    def _pause(self, problem: Upstream, attempt: int, deadline: float) -> float | None:
        """Seconds until the next attempt; ``None`` for no retry."""
        if attempt >= self._retries or "insufficient_quota" in problem.detail or not _is_transient(problem):
            return None
        pause = self._wait(problem.retry_after, attempt)
        return pause if pause is not None and asyncio.get_running_loop().time() + pause < deadline else None

    def _wait(self, retry_after: float | None, attempt: int) -> float | None:
        jitter = random.uniform(0.5, 1.5)  # noqa: S311  spreads retries; not security-relevant
        if retry_after is None:
            return self._backoff * 2**attempt * jitter
        return retry_after + self._backoff * jitter / 2 if retry_after <= PATIENCE else None

    async def _try(
        self, body: bytes, headers: dict[str, str], deadline: float, answer: ChatCompletionParser
    ) -> _AnswerStream:
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session().post(
                    f"{self._base}/chat/completions",
                    data=io.BytesIO(body) if len(body) > 2**20 else body,
                    headers=headers,
                    proxy=self._proxy,
                    # A redirected POST becomes a GET, and takes the key to another host.
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect),
                )
        except aiohttp.ServerTimeoutError as error:
            detail = f"no connection to {self._display_url} within {self._timeouts.connect:g} s"
            raise Upstream(reason="timeout", detail=detail) from error
        except TimeoutError as error:
            raise Upstream(reason="timeout", detail=_silence(self._timeouts)) from error
        except aiohttp.ClientHttpProxyError as error:
            detail = f"the proxy answers {error.status} {error.message}"
            raise Upstream(reason="connect", detail=detail) from error
        except aiohttp.ClientResponseError as error:
            detail = f"{self._display_url} does not speak HTTP: {_reason(error)}"
            raise Upstream(reason="malformed", detail=detail) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Upstream(reason="connect", detail=f"{self._display_url}: {_reason(error)}") from error
        if response.status == 200:
            if encoding_problem := compression_error(response):
                response.close()
                raise Upstream(reason="malformed", detail=encoding_problem)
            return _AnswerStream(response, answer, deadline, self._timeouts)
        try:
            async with asyncio.timeout_at(deadline):
                error_body = await read_at_most(response, _MAX_ERROR_BODY)
        except (TimeoutError, aiohttp.ClientError):
            error_body = b""
        finally:
            response.close()
        raise self._refused(response, error_body)

    def _refused(self, response: aiohttp.ClientResponse, body: bytes) -> Upstream:
        return upstream_problem(response.status, response.headers, body, phrase=response.reason or "", key=self._key)


class _AnswerStream:
    """A response with status 200 whose body is being read. ``exhausted``: there are no more deltas.

    One timer watches the whole stream and is reset only when it fires: a timeout around every read would cost more
    than reading. ``_since`` is when the current wait began, 0 while the consumer of the deltas is running.
    """

    __slots__ = (
        *("_answer", "_limit", "_loop", "_patience", "_response", "_since", "_started", "_timeout_detail", "_timer"),
        "exhausted",
    )

    def __init__(
        self, response: aiohttp.ClientResponse, answer: ChatCompletionParser, deadline: float, patience: Timeouts
    ) -> None:
        self._response = response
        self._patience = patience
        self._answer = answer
        self._started = False
        self._timeout_detail = ""
        self._since = 0.0
        self._loop = asyncio.get_running_loop()
        self._limit = max(0.0, deadline - self._loop.time())
        self._timer = self._loop.call_later(self._limit, self._check_timeout)
        self.exhausted = False

    @property
    def ended(self) -> bool:
        """Whether the endpoint itself has ended the answer."""
        return self._answer.done or bool(self._answer.reason)

    async def next_deltas(self) -> list[ModelDelta]:
        """The deltas of the next network read, possibly none. Raises ``Upstream``."""
        answer = self._answer
        if answer.problem is not None:
            raise answer.problem
        if not self._started and self._response.content_type == "text/html":
            raise Upstream(reason="malformed", detail="a web page answered: OPENAI_BASE_URL may lack its /v1")
        try:
            first = not self._started
            data = await self._next()
            # Some endpoints send one JSON object although a stream was requested, with any content type.
            if first and (data.lstrip(_BLANK)[:1] == b"{" or self._response.content_type == "application/json"):
                data = await self._whole(data)
                return self._last(answer.whole(data) if data else answer.end())
        except Upstream:
            if not answer.reason:
                raise
            return self._last(answer.close([]))  # the answer is complete, only the end of the stream is missing
        if not data:
            return self._last(answer.end())
        deltas = answer.read(data)
        return self._last(answer.end(deltas)) if answer.done else deltas

    def _last(self, deltas: list[ModelDelta]) -> list[ModelDelta]:
        self.exhausted = self._answer.problem is None
        return deltas

    async def drain(self) -> None:
        """Read the end of the response if it comes at once, so that the connection can be reused."""
        try:
            async with asyncio.timeout(_DRAIN_S):
                while not self._response.content.at_eof():
                    await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass  # close() will do

    def close(self) -> None:
        """Close the connection, unless the response was read to its end and the connection is back in the pool."""
        self._timer.cancel()
        self._response.close()

    async def _next(self) -> bytes:
        """Read at least one byte; empty at the end. Raises ``Upstream``: ``timeout`` or ``cut``."""
        self._since = self._loop.time()
        try:
            data = await self._response.content.read(_READ_SIZE)
            if len(data) == _READ_SIZE:  # more has arrived already: let other tasks run
                await asyncio.sleep(0)
        except (aiohttp.ClientError, OSError) as error:
            if self._timeout_detail:
                raise Upstream(reason="timeout", detail=self._timeout_detail) from error
            raise Upstream(reason="cut", detail=f"the connection broke: {_reason(error)}") from error
        self._since = 0.0
        if not self._started:
            self._started = True
            self._limit = self._patience.idle
            self._timer.cancel()
            self._timer = self._loop.call_later(self._limit, self._check_timeout)
        return data

    def _check_timeout(self) -> None:
        waited = self._loop.time() - self._since if self._since else 0.0
        if waited < self._limit or not self._since:
            self._timer = self._loop.call_later(self._limit - waited, self._check_timeout)
        else:
            self._timeout_detail = f"no data for {self._limit:g} s" if self._started else _silence(self._patience)
            self._response.close()

    async def _whole(self, data: bytes) -> bytes:
        """Read the rest of the body that begins with ``data``. Raises ``Upstream`` if it is too long."""
        pieces: list[bytes] = []
        size = 0
        while data:
            pieces.append(data)
            size += len(data)
            if size > _MAX_WHOLE:
                raise Upstream(reason="malformed", detail=f"an answer of more than {_MAX_WHOLE} bytes")
            data = await self._next()
        return b"".join(pieces)


class _ListedModel(msgspec.Struct):
    id: str = ""


class _ModelList(msgspec.Struct):
    data: list[_ListedModel]


async def read_at_most(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read the beginning of a body, at most ``limit`` bytes."""
    content = bytearray()
    while len(content) < limit and (data := await response.content.readany()):
        content += data
    return bytes(content[:limit])


def compression_error(response: aiohttp.ClientResponse) -> str:
    """Why a compressed body is not read: a few bytes can decompress to any number. Empty if it is not compressed."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    return (
        ""
        if encoding in {"", "identity"}
        else f"the response is compressed ({excerpt(encoding)}), which was not requested"
    )


def _is_transient(problem: Upstream) -> bool:
    """Whether a retry may succeed."""
    cause = problem.__cause__
    if isinstance(cause, aiohttp.ClientConnectorCertificateError | aiohttp.InvalidURL):
        return False
    broken = problem.reason == "cut" or isinstance(cause, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError)
    return broken or problem.status in _RETRIED


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def proxy_for(url: str) -> str | None:
    """The proxy that the environment (or the system) sets for ``url``.

    Looked up once: the session's own ``trust_env`` looks it up for every request, in two threads, and rejects requests
    with a key of ours whose host is in ``~/.netrc``.
    """
    address = urlsplit(url)
    if not address.hostname or proxy_bypass(address.hostname):
        return None
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all") or ""
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def _silence(timeouts: Timeouts) -> str:
    return f"no answer within {timeouts.first_byte:g} s"


def _reason(error: BaseException) -> str:
    return excerpt(str(error)) or type(error).__name__


def _hint(status: int) -> str:
    match status:
        case 401 | 403:
            return " — check OPENAI_API_KEY."
        case 404:
            return " — OPENAI_BASE_URL may lack its /v1."
        case _:
            return "."
