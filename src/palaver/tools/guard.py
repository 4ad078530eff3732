"""The HTTP client for URLs that callers name: the only way out (against SSRF and DNS rebinding).

A name is resolved once, every address is checked, and the connection can be made only to these; the name is kept in
``Host`` and for certificate verification. A redirect is another request, checked like the first. Nothing is kept
between requests: no connection, no cookie. No proxy is used, because a proxy would resolve the name again.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from typing import Any

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult

import palaver
from palaver.core.fetch import FetchedFile, FetchError
from palaver.tools import naming, targets
from palaver.tools.addresses import Address, is_allowed, non_public_kind, parse_allowed, read_address
from palaver.tools.targets import FetchTarget

MAX_BYTES = 20 * 1024 * 1024
TIMEOUT_S = 15.0
MAX_REDIRECTS = 5
"""Maximum number of redirects to follow."""
MAX_CONCURRENT = 32
"""Maximum concurrent requests; others wait. Together with ``MAX_BYTES``, this limits the memory for responses."""

_LOOKUP_THREADS = 8
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_KEPT = frozenset({"accept", "accept-language", "content-type"})
"""Request headers that are also sent to another origin: none of them can be a secret."""
_WEB = frozenset({80, 443})
_FREE_PORTS = 1024
"""Ports below it belong to mail, SSH and other protocols that can be abused by HTTP requests."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name, for a port. Raises ``OSError``."""

log = structlog.get_logger("palaver.tools")


class Guard:
    """Fetches URLs from permitted addresses. Implements ``core.fetch.Fetcher``.

    ``allow`` is the setting ``fetch_allow``; raises ``ValueError`` if it is invalid. ``max_bytes`` limits a body after
    decompression, ``timeout_s`` a request with all redirects until the end of the body. ``resolve`` replaces the
    system's resolver, ``tls`` aiohttp's default TLS settings. Close it in the event loop it was used in.
    """

    def __init__(
        self,
        *,
        allow: str = "",
        max_bytes: int = MAX_BYTES,
        timeout_s: float = TIMEOUT_S,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = parse_allowed(allow)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._resolve = resolve or self._system_lookup
        self._tls: ssl.SSLContext | bool = tls or True
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._sessions: set[aiohttp.ClientSession] = set()
        self._threads: ThreadPoolExecutor | None = None

    async def get(self, url: str) -> FetchedFile:
        """The file at ``url``, decompressed. Raises ``FetchError``; its ``detail`` does not contain the address."""
        async with self.open("GET", url) as response:
            if not 200 <= response.status < 300:
                raise FetchError("status", f"{response.host!r} answers with status {response.status}")
            content = await response.read()
        log.info("fetched", host=response.host, bytes=len(content))
        name = naming.name(response.headers, response.url)
        media_type = naming.media_type(response.headers, name)
        return FetchedFile(url=response.url, content=content, media_type=media_type, name=name)

    @asynccontextmanager
    async def open(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> AsyncGenerator[GuardedResponse]:
        """The response after any redirects, whatever its status. Raises ``FetchError``, also while it is read.

        A GET or HEAD may be redirected to any permitted address, every other method only within its origin, with 307
        or 308: a body meant for one server is not sent to another.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        target = targets.parse_url(url)
        sent_headers = dict(headers or {})
        async with self._slot(deadline):
            for _ in range(MAX_REDIRECTS + 1):
                async with self._request(method, target, sent_headers, body, deadline) as response:
                    redirect = _redirect(method, target, response)
                    if redirect is None:
                        yield GuardedResponse(target, response, self._max_bytes, deadline)
                        return
                if redirect.origin != target.origin:
                    sent_headers = {name: value for name, value in sent_headers.items() if name.lower() in _KEPT}
                    body = None
                target = redirect
            raise FetchError("redirects", f"more than {MAX_REDIRECTS} redirects; the last one is to {target.host!r}")

    async def close(self) -> None:
        """Abort all requests. Does not wait for a name lookup that hangs; only the process's exit does."""
        for session in tuple(self._sessions):
            await session.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    @asynccontextmanager
    async def _slot(self, deadline: float) -> AsyncGenerator[None]:
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError as error:
            raise FetchError("time", "too much else is being fetched") from error
        try:
            yield
        finally:
            self._slots.release()

    @asynccontextmanager
    async def _request(
        self, method: str, target: FetchTarget, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The response, with its body not read yet. The connection serves this request only and is closed with it."""
        async with _fetch_errors(target, deadline):
            pinned = await self._addresses(target)
        session = session_to(pinned)
        self._sessions.add(session)
        try:
            async with _fetch_errors(target, deadline):
                response = await session.request(
                    method, target.url, headers=headers, data=body, allow_redirects=False, ssl=self._tls
                )
            with closing(response):
                yield response
        finally:
            self._sessions.discard(session)
            await session.close()

    async def _addresses(self, target: FetchTarget) -> tuple[Address, ...]:
        """The target's addresses, in the order in which to try them. One address that is not permitted rejects them
        all: a name with both kinds is an attack. Raises ``FetchError``."""
        addresses = (target.address,) if target.address else await self._lookup(target)
        for address in addresses:
            why = non_public_kind(address) or (None if target.port in _WEB or target.port >= _FREE_PORTS else "port")
            if why is None or is_allowed(self._allowed, target.host, address, target.port):
                continue
            log.warning("address refused", host=target.host, port=target.port, address=str(address), kind=why)
            reason = f"port {target.port} is not the web's" if why == "port" else f"{target.host!r} is not public"
            raise FetchError("address", f"{reason}; an operator can allow it with fetch_allow")
        return addresses

    async def _lookup(self, target: FetchTarget) -> tuple[Address, ...]:
        try:
            addresses = await self._resolve(target.host, target.port)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise FetchError("name", f"the name {target.host!r} cannot be looked up at the moment") from error
            raise FetchError("name", f"nobody knows the name {target.host!r}") from error
        if not addresses:
            raise FetchError("name", f"nobody knows the name {target.host!r}")
        return tuple(dict.fromkeys(map(read_address, addresses)))

    async def _system_lookup(self, name: str, port: int) -> Sequence[str]:
        """The system's resolver, in threads of its own: names that are slow on purpose must not block the event loop's
        few threads, which the database and the models need."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="look-up")
        return await asyncio.get_running_loop().run_in_executor(self._threads, _system, name, port)


class GuardedResponse:
    """The response; ``url`` and ``host`` are those after redirects. Names in ``headers`` are case-insensitive."""

    def __init__(self, target: FetchTarget, response: aiohttp.ClientResponse, max_bytes: int, deadline: float) -> None:
        self.url = target.url
        self.host = target.host
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._target = target
        self._response = response
        self._max_bytes = max_bytes
        self._deadline = deadline

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The body as it arrives, decompressed. Raises ``FetchError``: ``size``, ``time``, ``connection``."""
        if (self._response.content_length or 0) > self._max_bytes:
            raise self._too_large()
        size = 0
        while True:
            async with _fetch_errors(self._target, self._deadline):
                chunk = await self._response.content.readany()
            if not chunk:
                return
            size += len(chunk)
            if size > self._max_bytes:
                raise self._too_large()
            yield chunk

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    def _too_large(self) -> FetchError:
        return FetchError("size", f"it has more than {self._max_bytes} bytes")


def _redirect(method: str, target: FetchTarget, response: aiohttp.ClientResponse) -> FetchTarget | None:
    """The target of a redirect, ``None`` if the response is not one. Raises ``FetchError``."""
    location = response.headers.get("Location")
    if response.status not in _REDIRECTING or location is None:
        return None
    redirect = targets.follow_redirect(target, location)
    if method not in {"GET", "HEAD"} and (response.status not in {307, 308} or redirect.origin != target.origin):
        raise FetchError("redirects", f"{target.host!r} redirects a {method} to {redirect.origin!r}")
    return redirect


# The connection -----------------------------------------------------------------------------------------------------


_Info = tuple[int, int, int, str, tuple[Any, ...]]
"""An entry returned by ``socket.getaddrinfo``."""


class _Pinned(AbstractResolver):
    """Returns the checked addresses without a lookup. aiohttp does not call it for URLs that contain an address."""

    def __init__(self, addresses: tuple[Address, ...]) -> None:
        self._addresses = addresses

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  the connection takes both
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


def session_to(pinned: tuple[Address, ...]) -> aiohttp.ClientSession:
    """A session that can connect to ``pinned`` only, enforced by its sockets."""

    def connecting(info: _Info) -> socket.socket:
        family, sort, protocol, _, address = info
        if read_address(str(address[0])) not in pinned:
            raise PermissionError(errno.EACCES, f"{address[0]} was not checked")
        return socket.socket(family, sort, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=_Pinned(pinned), use_dns_cache=False, force_close=True, socket_factory=connecting
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"palaver/{palaver.__version__}", "Accept-Encoding": "gzip, deflate"},
        timeout=aiohttp.ClientTimeout(total=None),  # the request has its own deadline, including redirects and body
        trust_env=False,
    )


def _system(name: str, port: int) -> Sequence[str]:
    infos = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(info[4][0]) for info in infos]


@asynccontextmanager
async def _fetch_errors(target: FetchTarget, deadline: float) -> AsyncGenerator[None]:
    """Converts errors in the block, and the end of the deadline, to ``FetchError``."""
    host = target.host
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise FetchError("time", f"{host!r} takes too long") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise FetchError("connection", f"the certificate of {host!r} is not good: {_certificate(error)}") from error
    except aiohttp.ClientSSLError as error:
        raise FetchError("connection", f"{host!r} does not speak TLS that palaver can") from error
    except aiohttp.ClientPayloadError as error:
        raise FetchError("connection", f"the answer of {host!r} breaks off or cannot be decompressed") from error
    except aiohttp.ClientResponseError as error:
        raise FetchError("connection", f"{host!r} does not speak HTTP that palaver can") from error
    except aiohttp.InvalidURL as error:
        raise FetchError("url", f"{host!r} is not a host") from error
    except (aiohttp.ClientError, OSError) as error:
        raise FetchError("connection", f"no connection to {host!r}") from error


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    why = error.certificate_error
    return why.verify_message if isinstance(why, ssl.SSLCertVerificationError) else type(why).__name__
