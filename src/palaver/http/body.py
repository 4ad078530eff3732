"""Reads request bodies within limits: size, duration, transfer rate, and bytes held at once.

Bodies in memory and uploads spooled to disk each have a budget, of which one credential may use half: clients that send
much, or never finish, cannot starve the others.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import structlog

from palaver.core.disconnect import CallerDisconnected
from palaver.core.problems import Busy, Invalid
from palaver.core.types import ApiKey
from palaver.http.stream import Receive
from palaver.wire.contract import Upload

UNBUDGETED_BYTES = 65_536
"""Bytes per body that count against no budget: every connection may hold that many."""
SPOOL_THRESHOLD_BYTES = 1_048_576
"""Maximum size of an upload held in memory; a larger one is spooled to disk."""
MAX_PUBLIC_BODY_BYTES = 65_536
"""Maximum size of a body on a route that needs no credential."""
RATE_GRACE_S = 10.0
"""Seconds before the minimum transfer rate is enforced."""

T = TypeVar("T")

log = structlog.get_logger("palaver.http")


class BodyTooSlow(Invalid):
    """The body did not arrive in time. The rest of it may still be on its way."""

    def __init__(self) -> None:
        super().__init__(field="body", rule="json", detail="it did not come in time")


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """Limits on request bodies: sizes in bytes, rates in bytes per second."""

    max_body_bytes: int
    max_upload_bytes: int
    body_timeout_s: float = 60.0
    upload_timeout_s: float = 900.0
    min_rate: int = 500
    max_buffered_bytes: int = 67_108_864
    max_spooled_bytes: int = 2_147_483_648
    spool_folder: Path | None = None
    """Where uploads are spooled; ``None``: the system's temporary folder."""


class ByteBudget:
    """Maximum number of bytes held at once, in total; one credential may hold half of them."""

    def __init__(self, total: int) -> None:
        self.held = 0
        self._total = total
        self._held_by_key: Counter[tuple[int, int]] = Counter()

    def acquire(self, key: ApiKey | None, size: int) -> None:
        """Raises ``Busy(reason="overload")`` if that exceeds the budget."""
        owner = (0, 0) if key is None else (key.app, key.number)
        if self.held + size > self._total or self._held_by_key[owner] + size > self._total // 2:
            raise Busy(reason="overload", retry_after=1)
        self.held += size
        self._held_by_key[owner] += size

    def release(self, key: ApiKey | None, size: int) -> None:
        owner = (0, 0) if key is None else (key.app, key.number)
        self.held -= size
        self._held_by_key[owner] -= size
        if not self._held_by_key[owner]:
            del self._held_by_key[owner]


class SpooledUpload:
    """The raw body of an upload, in memory or in an unnamed temporary file. Must be closed."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.SpooledTemporaryFile(SPOOL_THRESHOLD_BYTES, dir=None if folder is None else str(folder))  # noqa: SIM115  close() closes it
        self._hash = sha256()
        self.size = 0

    @property
    def digest(self) -> bytes:
        """The SHA-256 digest."""
        return self._hash.digest()

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(max(0, end - start))

    def pieces(self, size: int) -> Iterator[bytes]:
        for start in range(0, self.size, size):
            yield self.read(start, min(self.size, start + size))

    async def run_in_thread(self, work: Callable[[Upload], T]) -> T:
        """The result of ``work``, run in a thread: it may take time proportional to the upload's size."""
        return await asyncio.get_running_loop().run_in_executor(_threads, work, self)

    def close(self) -> None:
        self._file.close()


_threads = ThreadPoolExecutor(2, "uploads")
"""For disk access and hashing, so that neither the event loop nor the default executor is blocked."""


class BodyReader:
    """Opens the request bodies of this process, and holds their shared budgets."""

    def __init__(self, limits: BodyLimits) -> None:
        self.limits = limits
        self.buffered = ByteBudget(limits.max_buffered_bytes)
        self.spooled = ByteBudget(limits.max_spooled_bytes)
        self.responses = ByteBudget(limits.max_buffered_bytes)
        """For large responses that clients have not read yet."""

    def open(self, receive: Receive, content_length: str, *, upload: bool = False, public: bool = False) -> RequestBody:
        """The body of one request; nothing is read yet. ``content_length`` is the header's value, empty without one.
        Raises ``Invalid(rule="size")`` if it exceeds the limit."""
        limits = self.limits
        limit = limits.max_upload_bytes if upload else limits.max_body_bytes
        body = RequestBody(self, receive, limit=min(limit, MAX_PUBLIC_BODY_BYTES) if public else limit, upload=upload)
        if content_length.isdigit() and int(content_length) > body.limit:
            raise body.too_large_error()
        return body


class RequestBody:
    """The body of one request. Must be closed.

    Reading raises ``Invalid(rule="size")`` above ``limit`` bytes, ``BodyTooSlow``, ``Busy(reason="overload")`` if a
    budget is exhausted, and ``CallerDisconnected``.
    """

    def __init__(self, reader: BodyReader, receive: Receive, *, limit: int, upload: bool) -> None:
        self.limit = limit
        self._limits = reader.limits
        self._receive = receive
        self._timeout_s = reader.limits.upload_timeout_s if upload else reader.limits.body_timeout_s
        self._budget = reader.spooled if upload else reader.buffered
        self._key: ApiKey | None = None
        self._budgeted = 0
        self._body: bytes | None = None
        self._upload: SpooledUpload | None = None

    def too_large_error(self) -> Invalid:
        return Invalid(field="body", rule="size", detail=f"more than {self.limit} bytes")

    async def read(self, key: ApiKey | None) -> bytes:
        """The complete body, in memory; it counts against the budget of ``key``. Repeated calls return the same."""
        if self._body is None:
            self._key = key
            body = bytearray()
            async for chunk in self._chunks():
                self._charge(len(body) + len(chunk))
                body += chunk
            self._body = bytes(body)
        return self._body

    async def spool(self, key: ApiKey) -> SpooledUpload:
        """The complete body as an upload, which ``close`` closes. Repeated calls return the same."""
        if self._upload is not None:
            return self._upload
        self._key = key
        self._upload = upload = SpooledUpload(self._limits.spool_folder)
        loop = asyncio.get_running_loop()
        unwritten = bytearray()
        try:
            async for chunk in self._chunks():
                self._charge(upload.size + len(unwritten) + len(chunk))
                unwritten += chunk
                if len(unwritten) >= UNBUDGETED_BYTES:
                    await loop.run_in_executor(_threads, upload.write, bytes(unwritten))
                    unwritten.clear()
            await loop.run_in_executor(_threads, upload.write, bytes(unwritten))
        except OSError as error:
            log.warning("upload could not be spooled", error=str(error), size=upload.size)
            raise Busy(reason="overload", retry_after=10) from error
        return upload

    async def drain(self) -> None:
        """Read the body and discard it."""
        async for _ in self._chunks():
            pass

    def close(self) -> None:
        """Release the body's budget and its upload."""
        self._budget.release(self._key, self._budgeted)
        self._budgeted = 0
        if self._upload is not None:
            self._upload.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        started = asyncio.get_running_loop().time()
        size = 0
        while True:
            rate_deadline = started + RATE_GRACE_S + size / self._limits.min_rate
            message = await self._receive_until(min(started + self._timeout_s, rate_deadline))
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self.limit:
                raise self.too_large_error()
            yield chunk
            if not message.get("more_body", False):
                return

    def _charge(self, size: int) -> None:
        """Count ``size`` bytes of this body, less the unbudgeted ones, against the budget."""
        if (added := size - UNBUDGETED_BYTES - self._budgeted) > 0:
            self._budget.acquire(self._key, added)
            self._budgeted += added

    async def _receive_until(self, deadline: float) -> Any:
        """The next ASGI message. ``deadline`` is in the event loop's time."""
        try:
            async with asyncio.timeout_at(deadline):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow from None
        if message["type"] == "http.disconnect":
            raise CallerDisconnected
        return message
