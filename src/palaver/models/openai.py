"""Chat Completions over HTTP: OpenAI and every endpoint that calls itself compatible with it.

A request is tried again (connection failed or broken, 429, 500, 502, 503, 504) only as long as no word of an answer
has come, and all attempts share the time in which the first one must.
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
from palaver.models.request_body import body
from palaver.models.thinking import Mode

RETRIES = 2
"""How often a request is sent once more."""
PATIENCE = 10.0
"""Seconds that an endpoint may ask us to wait before a retry; asked for more, the request fails at once."""

_RETRIED = frozenset({429, 500, 502, 503, 504})
_MAX_WHOLE = 16 * 1024 * 1024
"""Bytes of an answer that comes in one JSON object."""
_MAX_OFFER = 4 * 1024 * 1024
_MAX_REFUSAL = 64 * 1024
_BLANK = b"\xef\xbb\xbf \t\r\n"
UNCOMPRESSED = {"Accept-Encoding": "identity"}
_AT_ONCE = 32_768
"""Bytes of an answer that are read without a pause."""
_GOODBYE = 0.1
"""Seconds for the end of the response to follow the end of the answer, so that the connection can be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds to wait for a connection, for the first byte of the answer (in all attempts together), and for the next
    byte after any."""

    connect: float = 10.0
    first_byte: float = 120.0
    idle: float = 60.0


TIMEOUTS = Timeouts()


class OpenAIModel:
    """An endpoint. ``session`` gives the HTTP session to use, ``base_url`` ends before ``/chat/completions``; without
    ``api_key`` no ``Authorization`` is sent. ``longest`` is the most characters that are taken of one answer.
    ``backoff`` is about the seconds before the first retry; it doubles."""

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
        self._shown = _without_user(self._base)
        if api_key:
            self._base = self._shown  # one Authorization header; the key is the one that was meant
        self._key = api_key
        self._timeouts = timeouts
        self._retries = retries
        self._backoff = backoff
        self._longest = longest
        self._thinking: Mode = "tags"
        self._headers = {**UNCOMPRESSED, **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
        self._proxy = proxy_for(self._base)

    def with_thinking(self, mode: Mode) -> OpenAIModel:
        """The same endpoint, for a model whose answers begin so."""
        if mode == self._thinking:
            return self
        other = copy.copy(self)
        other._thinking = mode  # noqa: SLF001  one of our own
        return other

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta, None]:
        """The answer's deltas, as many at once as one network read holds. Raises ``Upstream``."""
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", **self._headers}
        if request.trace.isascii() and request.trace.isprintable() and request.trace:
            headers["X-Request-ID"] = request.trace
        said = body(request)
        deadline = asyncio.get_running_loop().time() + self._timeouts.first_byte
        attempt = 0
        while True:
            begun = False
            connection = None
            try:
                connection = await self._try(said, headers, deadline, self._answer(request))
                while not connection.over:
                    for delta in await connection.more():
                        begun = begun or not isinstance(delta, UsageDelta)
                        yield delta
                await connection.goodbye()
                return
            except Upstream as problem:
                problem.detail = redact_secrets(problem.detail, self._key)
                over = begun or (connection is not None and connection.ended)
                pause = None if over else self._pause(problem, attempt, deadline)
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
        """What is wrong with the endpoint, or with the model ``name`` there, as a sentence; ``None``: nothing."""
        url, shown = f"{self._base}/models", f"{self._shown}/models"
        try:
            async with (
                asyncio.timeout(5),
                self._session().get(url, headers=self._headers, proxy=self._proxy, allow_redirects=False) as response,
            ):
                said = await read_whole(response, _MAX_OFFER)
        except TimeoutError:
            return f"{shown} did not answer within 5 seconds."
        except (aiohttp.ClientError, OSError) as error:
            return f"{shown} cannot be reached: {_reason(error)}"
        if response.status != 200:
            return f"{shown} answers {self._refused(response, said).detail}{_hint(response.status)}"
        try:
            offered = [model.id for model in msgspec.json.decode(said, type=_Offer).data]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"{shown} answers, but not with a list of models: OPENAI_BASE_URL may lack its /v1."
        if offered and name not in offered:
            return f"{shown} does not offer {name!r} but {', '.join(sorted(offered)[:10])}."
        return None

    def _pause(self, problem: Upstream, attempt: int, deadline: float) -> float | None:
        """Seconds until the next attempt; ``None``: there is none."""
        if attempt >= self._retries or "insufficient_quota" in problem.detail or not _passing(problem):
            return None
        pause = self._wait(problem.retry_after, attempt)
        return pause if pause is not None and asyncio.get_running_loop().time() + pause < deadline else None

    def _wait(self, asked: float | None, attempt: int) -> float | None:
        jitter = random.uniform(0.5, 1.5)  # noqa: S311  spreads retries, guards nothing
        if asked is None:
            return self._backoff * 2**attempt * jitter
        return asked + self._backoff * jitter / 2 if asked <= PATIENCE else None

    async def _try(
        self, said: bytes, headers: dict[str, str], deadline: float, answer: ChatCompletionParser
    ) -> _AnswerStream:
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._session().post(
                    f"{self._base}/chat/completions",
                    data=io.BytesIO(said) if len(said) > 2**20 else said,
                    headers=headers,
                    proxy=self._proxy,
                    # A POST that is redirected becomes a GET, and takes the key to another host.
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect),
                )
        except aiohttp.ServerTimeoutError as error:
            detail = f"no connection to {self._shown} within {self._timeouts.connect:g} s"
            raise Upstream(reason="timeout", detail=detail) from error
        except TimeoutError as error:
            raise Upstream(reason="timeout", detail=_silence(self._timeouts)) from error
        except aiohttp.ClientHttpProxyError as error:
            detail = f"the proxy answers {error.status} {error.message}"
            raise Upstream(reason="connect", detail=detail) from error
        except aiohttp.ClientResponseError as error:
            raise Upstream(reason="malformed", detail=f"{self._shown} does not speak HTTP: {_reason(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Upstream(reason="connect", detail=f"{self._shown}: {_reason(error)}") from error
        if response.status == 200:
            if packing := packed(response):
                response.close()
                raise Upstream(reason="malformed", detail=packing)
            return _AnswerStream(response, answer, deadline, self._timeouts)
        try:
            async with asyncio.timeout_at(deadline):
                why = await read_whole(response, _MAX_REFUSAL)
        except (TimeoutError, aiohttp.ClientError):
            why = b""
        finally:
            response.close()
        raise self._refused(response, why)

    def _refused(self, response: aiohttp.ClientResponse, why: bytes) -> Upstream:
        return upstream_problem(response.status, response.headers, why, phrase=response.reason or "", key=self._key)


class _AnswerStream:
    """A response with status 200 whose body is being read. ``over`` says that ``more`` has nothing more.

    One timer watches the whole stream and is set anew only when it rings: a timeout around every read would cost more
    than reading. ``_since`` is when the present wait began, 0 while the reader of the deltas has the word.
    """

    __slots__ = ("_answer", "_began", "_limit", "_loop", "_patience", "_response", "_since", "_timer", "_why", "over")

    def __init__(
        self, response: aiohttp.ClientResponse, answer: ChatCompletionParser, deadline: float, patience: Timeouts
    ) -> None:
        self._response = response
        self._patience = patience
        self._answer = answer
        self._began = False
        self._why = ""
        self._since = 0.0
        self._loop = asyncio.get_running_loop()
        self._limit = max(0.0, deadline - self._loop.time())
        self._timer = self._loop.call_later(self._limit, self._ring)
        self.over = False

    @property
    def ended(self) -> bool:
        """Whether the endpoint has said itself that the answer is over."""
        return self._answer.done or bool(self._answer.reason)

    async def more(self) -> list[ModelDelta]:
        """The deltas of the next network read, possibly none. Raises ``Upstream``."""
        answer = self._answer
        if answer.problem is not None:
            raise answer.problem
        if not self._began and self._response.content_type == "text/html":
            raise Upstream(reason="malformed", detail="a web page answered: OPENAI_BASE_URL may lack its /v1")
        try:
            first = not self._began
            data = await self._next()
            # Some endpoints give one JSON object although a stream was asked for, and call it anything.
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
        self.over = self._answer.problem is None
        return deltas

    async def goodbye(self) -> None:
        """Read the end of the response, if it comes at once: then the connection can be used again."""
        try:
            async with asyncio.timeout(_GOODBYE):
                while not self._response.content.at_eof():
                    await self._response.content.readany()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass  # close() will do

    def close(self) -> None:
        """Close the connection, unless the response was read to its end and the connection is free again."""
        self._timer.cancel()
        self._response.close()

    async def _next(self) -> bytes:
        """What has arrived, at least a byte; nothing at the end. Raises ``Upstream``: ``timeout`` or ``cut``."""
        self._since = self._loop.time()
        try:
            data = await self._response.content.read(_AT_ONCE)
            if len(data) == _AT_ONCE:  # more is there already: others have their turn in between
                await asyncio.sleep(0)
        except (aiohttp.ClientError, OSError) as error:
            if self._why:
                raise Upstream(reason="timeout", detail=self._why) from error
            raise Upstream(reason="cut", detail=f"the connection broke: {_reason(error)}") from error
        self._since = 0.0
        if not self._began:
            self._began = True
            self._limit = self._patience.idle
            self._timer.cancel()
            self._timer = self._loop.call_later(self._limit, self._ring)
        return data

    def _ring(self) -> None:
        waited = self._loop.time() - self._since if self._since else 0.0
        if waited < self._limit or not self._since:
            self._timer = self._loop.call_later(self._limit - waited, self._ring)
        else:
            self._why = f"nothing came for {self._limit:g} s" if self._began else _silence(self._patience)
            self._response.close()

    async def _whole(self, data: bytes) -> bytes:
        """The body that begins with ``data``."""
        pieces: list[bytes] = []
        size = 0
        while data:
            pieces.append(data)
            size += len(data)
            if size > _MAX_WHOLE:
                raise Upstream(reason="malformed", detail=f"an answer of more than {_MAX_WHOLE} bytes")
            data = await self._next()
        return b"".join(pieces)


class _Offered(msgspec.Struct):
    id: str = ""


class _Offer(msgspec.Struct):
    data: list[_Offered]


async def read_whole(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The beginning of a body, at most about ``limit`` bytes."""
    said = bytearray()
    while len(said) < limit and (data := await response.content.readany()):
        said += data
    return bytes(said[:limit])


def packed(response: aiohttp.ClientResponse) -> str:
    """Why a body is not read: a few compressed bytes can become any number. Empty where it is as it was asked for."""
    packing = response.headers.get("Content-Encoding", "").strip().lower()
    return "" if packing in {"", "identity"} else f"the answer is compressed ({excerpt(packing)}), unasked"


def _passing(problem: Upstream) -> bool:
    """Whether another attempt may meet with more success."""
    cause = problem.__cause__
    if isinstance(cause, aiohttp.ClientConnectorCertificateError | aiohttp.InvalidURL):
        return False
    broken = problem.reason == "cut" or isinstance(cause, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError)
    return broken or problem.status in _RETRIED


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def proxy_for(url: str) -> str | None:
    """The proxy that the environment (or the system) prescribes for ``url``.

    Asked for once: the session's own ``trust_env`` asks again for every request, in two threads, and refuses requests
    whose host stands in ``~/.netrc`` because they carry a key of ours.
    """
    address = urlsplit(url)
    if not address.hostname or proxy_bypass(address.hostname):
        return None
    proxies = getproxies()
    named = proxies.get(address.scheme) or proxies.get("all") or ""
    return named if "://" in named or not named else f"http://{named}"


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
