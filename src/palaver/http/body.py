"""Reading bodies: how large, how long, how slowly, and how much at once.

What is held in memory and what is spooled to disk has a budget each, for the process and for one credential, so that
callers who send much, or never come to an end, take nothing from others.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import structlog

from palaver.core.problems import Busy, Invalid
from palaver.core.types import ApiKey
from palaver.wire.contract import Upload

FREE_BYTES = 65_536
"""Bytes of a body that are in no budget: a connection may have as many in any case."""
MEMORY_BYTES = 1_048_576
"""Bytes of an upload that are held in memory; a larger one is spooled."""
PUBLIC_BYTES = 65_536
"""Bytes of a body on a route that needs no credential."""
GRACE_S = 10.0
"""Seconds before a body must have come at the least rate."""

T = TypeVar("T")

log = structlog.get_logger("palaver.http")


class IncompleteBody(Exception):  # noqa: N818  not an error of ours
    """The caller went away before the request was complete."""


class BodyTooSlow(Invalid):
    """The rest of the body is not waited for."""

    def __init__(self, detail: str) -> None:
        super().__init__(field="body", rule="json", detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """Sizes are in bytes, rates in bytes a second. A credential may have half of each budget."""

    max_body_bytes: int
    max_upload_bytes: int
    body_timeout_s: float = 60.0
    upload_timeout_s: float = 900.0
    min_rate: int = 500
    max_buffered_bytes: int = 67_108_864
    max_spooled_bytes: int = 2_147_483_648
    spool: Path | None = None


class ByteBudget:
    """Bytes that may be held at once, in all and for one credential."""

    def __init__(self, whole: int) -> None:
        self.held = 0
        self._whole = whole
        self._of: Counter[tuple[int, int]] = Counter()

    def take(self, key: ApiKey | None, size: int) -> None:
        """Raises ``Busy(reason="overload")`` where that is more than there is."""
        name = (0, 0) if key is None else (key.app, key.number)
        if self.held + size > self._whole or self._of[name] + size > self._whole // 2:
            raise Busy(reason="overload", retry_after=1)
        self.held += size
        self._of[name] += size

    def release(self, key: ApiKey | None, size: int) -> None:
        name = (0, 0) if key is None else (key.app, key.number)
        self.held -= size
        self._of[name] -= size
        if not self._of[name]:
            del self._of[name]


class SpooledUpload:
    """A body as it came, in memory or in a file that has no name."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=None if folder is None else str(folder))  # noqa: SIM115  close() closes it
        self._sum = sha256()
        self.size = 0

    @property
    def digest(self) -> bytes:
        return self._sum.digest()

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._sum.update(piece)
        self.size += len(piece)

    def read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(max(0, end - start))

    def pieces(self, size: int) -> Iterator[bytes]:
        for start in range(0, self.size, size):
            yield self.read(start, min(self.size, start + size))

    async def run_in_thread(self, work: Callable[[Upload], T]) -> T:
        """What ``work`` makes of it, in a thread: what it does may take as long as the upload is large."""
        return await asyncio.get_running_loop().run_in_executor(_threads, work, self)

    def close(self) -> None:
        self._file.close()


_threads = ThreadPoolExecutor(2, "uploads")
"""For disk and digests, so that neither the loop nor the default threads wait for them."""


class BodyReader:
    """The bodies that this process reads."""

    def __init__(self, limits: BodyLimits) -> None:
        self.limits = limits
        self.buffered = ByteBudget(limits.max_buffered_bytes)
        self.spooled = ByteBudget(limits.max_spooled_bytes)
        self.answers = ByteBudget(limits.max_buffered_bytes)
        """What is read for callers, and not taken by them yet."""

    def open(
        self,
        receive: Callable[[], Awaitable[Mapping[str, Any]]],
        declared: str,
        *,
        upload: bool = False,
        public: bool = False,
    ) -> RequestBody:
        """The body of one request. Raises ``Invalid(rule="size")`` where its head says that it is too large."""
        limits = self.limits
        limit = limits.max_upload_bytes if upload else limits.max_body_bytes
        body = RequestBody(self, receive, limit=min(limit, PUBLIC_BYTES) if public else limit, upload=upload)
        if declared.isdigit() and int(declared) > body.limit:
            raise body.too_large()
        return body


class RequestBody:
    """One request's. It must be closed."""

    def __init__(
        self, bodies: BodyReader, receive: Callable[[], Awaitable[Mapping[str, Any]]], *, limit: int, upload: bool
    ) -> None:
        self.limit = limit
        self._limits = bodies.limits
        self._receive = receive
        self._upload = upload
        self._budget = bodies.spooled if upload else bodies.buffered
        self._key: ApiKey | None = None
        self._taken = 0
        self._whole: bytes | None = None
        self._file: SpooledUpload | None = None

    def too_large(self) -> Invalid:
        return Invalid(field="body", rule="size", detail=f"more than {self.limit} bytes")

    async def read(self, key: ApiKey | None) -> bytes:
        """All of it, read once; it counts against the budget of ``key``."""
        if self._whole is None:
            self._key = key
            whole = bytearray()
            await self._read(whole.extend)
            self._whole = bytes(whole)
        return self._whole

    async def spool(self, key: ApiKey) -> SpooledUpload:
        """All of it, as an upload, read once."""
        if self._file is not None:
            return self._file
        self._key = key
        self._file = file = SpooledUpload(self._limits.spool)
        loop = asyncio.get_running_loop()
        waiting = bytearray()

        async def keep(piece: bytes) -> None:
            waiting.extend(piece)
            if len(waiting) >= FREE_BYTES:
                await loop.run_in_executor(_threads, file.write, bytes(waiting))
                waiting.clear()

        try:
            await self._read_to(keep)
            await loop.run_in_executor(_threads, file.write, bytes(waiting))
        except OSError as error:
            log.warning("upload not spooled", error=str(error), size=file.size)
            raise Busy(reason="overload", retry_after=10) from error
        return file

    async def drain(self) -> None:
        """Only look how large it is."""
        await self._read(lambda _: None, keeps=False)

    def close(self) -> None:
        """Nothing of it is needed any more."""
        self._budget.release(self._key, self._taken)
        self._taken = 0
        if self._file is not None:
            self._file.close()

    async def _read(self, keep: Callable[[bytes], None], *, keeps: bool = True) -> None:
        async def kept(piece: bytes) -> None:
            keep(piece)

        await self._read_to(kept, keeps=keeps)

    async def _read_to(self, keep: Callable[[bytes], Awaitable[None]], *, keeps: bool = True) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        ends = begun + (self._limits.upload_timeout_s if self._upload else self._limits.body_timeout_s)
        size = 0
        while True:
            message = await self._next(min(ends, begun + GRACE_S + size / self._limits.min_rate))
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > self.limit:
                raise self.too_large()
            if keeps:
                self._take(size)
                await keep(piece)
            if not message.get("more_body", False):
                return

    def _take(self, size: int) -> None:
        if (more := size - FREE_BYTES - self._taken) > 0:
            self._budget.take(self._key, more)
            self._taken += more

    async def _next(self, until: float) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout_at(until):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow("it did not come in time") from None
        if message["type"] == "http.disconnect":
            raise IncompleteBody
        return message
