"""The one way out for what is fetched on somebody's word.

A request goes to an address that was looked up once, checked, and is the only one its connection can be made to; the
name stays what the server is asked for and what its certificate must be for. A redirect is another request, checked
like the first. Nothing is kept between two requests: no connection, no cookie. No proxy is used, because a proxy
would look up the name again.
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
from palaver.tools.addresses import Address, is_allowed, kind, parse_allowed, read_address
from palaver.tools.targets import FetchTarget

MAX_BYTES = 20 * 1024 * 1024
TIMEOUT_S = 15.0
MAX_REDIRECTS = 5
"""How many are followed."""
MAX_CONCURRENT = 32
"""Requests that are out at a time; others wait. With ``MAX_BYTES`` it bounds what their answers take of the memory."""

_LOOK_UPS = 8
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_KEPT = frozenset({"accept", "accept-language", "content-type"})
"""What of a request's headers goes along to another origin: nothing that may be a secret."""
_WEB = frozenset({80, 443})
_FREE_PORTS = 1024
"""Below it are mail, SSH and what else is not HTTP but may be talked into something by it."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name, for a port. Raises ``OSError``."""

log = structlog.get_logger("palaver.tools")


class Guard:
    """``Fetcher``, and what it stands on.

    ``allow`` is the setting ``fetch_allow``; it raises ``ValueError`` when that cannot be read. ``max_bytes`` bounds a
    body after decompression, ``timeout_s`` a request from its begin to its body's end with all redirects. ``resolve``
    looks names up instead of the system, ``tls`` says which certificates are good instead of aiohttp's default.
    Close it in the loop it was used in.
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
        self._resolve = resolve or self._look_up
        self._tls: ssl.SSLContext | bool = tls or True
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._sessions: set[aiohttp.ClientSession] = set()
        self._threads: ThreadPoolExecutor | None = None

    async def get(self, url: str) -> FetchedFile:
        """What stands at ``url``, decompressed. Raises ``FetchError``; its ``detail`` names no address."""
        async with self.open("GET", url) as answer:
            if not 200 <= answer.status < 300:
                raise FetchError("status", f"{answer.host!r} answers with status {answer.status}")
            content = await answer.read()
        log.info("fetched", host=answer.host, bytes=len(content))
        name = naming.name(answer.headers, answer.url)
        media_type = naming.media_type(answer.headers, name)
        return FetchedFile(url=answer.url, content=content, media_type=media_type, name=name)

    @asynccontextmanager
    async def open(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> AsyncGenerator[GuardedResponse]:
        """The answer to a request, whatever its status but a redirect. Raises ``FetchError``, also while it is read.

        A GET or HEAD is redirected anywhere that is allowed, every other method within its origin, by 307 and 308:
        what was meant for one server is not shown to another.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        target = targets.parse_url(url)
        said = dict(headers or {})
        async with self._slot(deadline):
            for _ in range(MAX_REDIRECTS + 1):
                async with self._asked(method, target, said, body, deadline) as response:
                    following = _following(method, target, response)
                    if following is None:
                        yield GuardedResponse(target, response, self._max_bytes, deadline)
                        return
                if following.origin != target.origin:
                    said, body = {name: value for name, value in said.items() if name.lower() in _KEPT}, None
                target = following
            raise FetchError("redirects", f"more than {MAX_REDIRECTS} redirects; the last one is to {target.host!r}")

    async def close(self) -> None:
        """End what is under way. A look-up that hangs is not waited for; the end of the process waits for it, as long
        as the system's resolver takes."""
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
    async def _asked(
        self, method: str, target: FetchTarget, headers: Mapping[str, str], body: bytes | None, deadline: float
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer's headers. The connection is this request's alone, and closed with it."""
        async with _told(target, deadline):
            pinned = await self._addresses(target)
        session = session_to(pinned)
        self._sessions.add(session)
        try:
            async with _told(target, deadline):
                response = await session.request(
                    method, target.url, headers=headers, data=body, allow_redirects=False, ssl=self._tls
                )
            with closing(response):
                yield response
        finally:
            self._sessions.discard(session)
            await session.close()

    async def _addresses(self, target: FetchTarget) -> tuple[Address, ...]:
        """Every address of the target, as they are to be tried. One that must not be reached is enough to refuse them
        all: a name that has both kinds is one that somebody tries with. Raises ``FetchError``."""
        addresses = (target.address,) if target.address else await self._found(target)
        for address in addresses:
            why = kind(address) or (None if target.port in _WEB or target.port >= _FREE_PORTS else "port")
            if why is None or is_allowed(self._allowed, target.host, address, target.port):
                continue
            log.warning("address refused", host=target.host, port=target.port, address=str(address), kind=why)
            what = f"port {target.port} is not the web's" if why == "port" else f"{target.host!r} is not public"
            raise FetchError("address", f"{what}; an operator can allow it with fetch_allow")
        return addresses

    async def _found(self, target: FetchTarget) -> tuple[Address, ...]:
        try:
            found = await self._resolve(target.host, target.port)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise FetchError("name", f"the name {target.host!r} cannot be looked up at the moment") from error
            raise FetchError("name", f"nobody knows the name {target.host!r}") from error
        if not found:
            raise FetchError("name", f"nobody knows the name {target.host!r}")
        return tuple(dict.fromkeys(map(read_address, found)))

    async def _look_up(self, name: str, port: int) -> Sequence[str]:
        """The system's answer, in threads of the guard's own: the loop's are few, and names that are slow on purpose
        would keep them from the database and the models."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="look-up")
        return await asyncio.get_running_loop().run_in_executor(self._threads, _system, name, port)


class GuardedResponse:
    """What came back, and from where after redirects. ``headers`` are to be read in any case, as HTTP's are."""

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
        """The body as it comes, decompressed. Raises ``FetchError``: ``size``, ``time``, ``connection``."""
        if (self._response.content_length or 0) > self._max_bytes:
            raise self._too_large()
        size = 0
        while True:
            async with _told(self._target, self._deadline):
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


def _following(method: str, target: FetchTarget, response: aiohttp.ClientResponse) -> FetchTarget | None:
    """Where the answer sends us, ``None``: it is one. Raises ``FetchError``."""
    location = response.headers.get("Location")
    if response.status not in _REDIRECTING or location is None:
        return None
    following = targets.follow_redirect(target, location)
    if method not in {"GET", "HEAD"} and (response.status not in {307, 308} or following.origin != target.origin):
        raise FetchError("redirects", f"{target.host!r} redirects a {method} to {following.origin!r}")
    return following


# The connection -----------------------------------------------------------------------------------------------------


_Info = tuple[int, int, int, str, tuple[Any, ...]]
"""What ``socket.getaddrinfo`` gives for an address."""


class _Pinned(AbstractResolver):
    """Looks nothing up: the addresses are known. aiohttp does not ask it about URLs that name an address."""

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
    """A session whose connections lead to ``pinned``, whatever else aiohttp may come to think."""

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
        timeout=aiohttp.ClientTimeout(total=None),  # the request's own deadline holds, redirects and body included
        trust_env=False,
    )


def _system(name: str, port: int) -> Sequence[str]:
    infos = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(info[4][0]) for info in infos]


@asynccontextmanager
async def _told(target: FetchTarget, deadline: float) -> AsyncGenerator[None]:
    """What goes wrong inside, and that the time is over, as ``FetchError``."""
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
