"""The files beside a conversation's messages, read before the model is asked.

A file is named by an uploaded one's key, uid or number, or by an address, which is fetched through ``Fetcher`` and kept
with the conversation, so that a later turn reads what this one read. What cannot be read does not end the turn: the
model is told so, and can say it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from mimetypes import guess_type

import structlog

from palaver.core.fetch import Fetcher, FetchError
from palaver.core.ports.documents import DocumentReader, UnreadableDocument
from palaver.core.ports.models import Attachment
from palaver.core.ports.store import Store
from palaver.core.problems import Problem
from palaver.core.redaction import redact_url
from palaver.core.types import File, Message, StoredFile, clean

MAX_FILES = 20
"""How many files a turn reads, the newest message's first. Others are only named."""
MAX_CHARACTERS = 60_000
"""… how many characters of them all,"""
MAX_IMAGE_BYTES = 20 * 1024 * 1024
"""… and how many bytes of pictures; no single file may have more."""
CONCURRENCY = 4
"""How many files of a turn are looked up, or fetched, at the same time."""
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What models look at."""

log = structlog.get_logger("palaver.attachments")


class Attachments:
    """The files of one conversation, of application ``app``, as its end user may read them."""

    def __init__(
        self,
        *,
        store: Store,
        fetch: Fetcher,
        documents: DocumentReader,
        app: int,
        user: int,
        conversation: int,
        trace: str = "",
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._documents = documents
        self._app = app
        self._user = user
        self._conversation = conversation
        self._trace = trace

    async def read(self, question: Message, earlier: Sequence[Message]) -> dict[str, Attachment]:
        """What stands in the files of ``question`` and of the messages before it (oldest first), by their refs."""
        wanted: dict[str, tuple[int, File]] = {}
        for message in (question, *reversed(earlier)):
            for part in message.files:
                if len(wanted) < MAX_FILES:
                    wanted.setdefault(part.ref, (message.id, part))
        if not wanted:
            return {}
        at_once = asyncio.Semaphore(CONCURRENCY)
        files = await asyncio.gather(*(self._file(message, part, at_once) for message, part in wanted.values()))
        room = _Budget()
        # One after the other: only then is it known how much of the next one still fits.
        return {
            part.ref: await self._one(part, file, room) for (_, part), file in zip(wanted.values(), files, strict=True)
        }

    async def _one(self, part: File, file: StoredFile | FetchError, room: _Budget) -> Attachment:
        if isinstance(file, FetchError):
            return self._missing(part, part.name or part.ref, part.media_type, file.reason, file.detail)
        name, kind = part.name or file.name, _kind(file)
        try:
            return await self._content(name, kind, file, room)
        except UnreadableDocument as unreadable:
            return self._missing(part, name, kind, "content", unreadable.reason)

    def _missing(self, part: File, name: str, kind: str, reason: str, detail: str) -> Attachment:
        log.info(
            "attachment not read",
            ref=redact_url(part.ref),
            name=redact_url(name) if name == part.ref else name[:200],
            reason=reason,
            detail=detail,
            conversation=self._conversation,
            trace=self._trace,
        )
        return Attachment(name=name, media_type=kind, missing=detail)

    async def _content(self, name: str, kind: str, file: StoredFile, room: _Budget) -> Attachment:
        """Raises ``UnreadableDocument``."""
        if file.size > MAX_IMAGE_BYTES:
            raise UnreadableDocument(f"it has more than {MAX_IMAGE_BYTES} bytes")
        if kind in IMAGE_TYPES:
            if file.size > room.image_bytes:
                raise UnreadableDocument("the pictures are too large")
            room.image_bytes -= file.size
            return Attachment(name=name, media_type=kind, image=await self._store.files.content(file))
        load = partial(self._store.files.content, file)
        read = await self._documents.text(self._app, self._user, name, kind, load, room.characters)
        room.characters -= len(read.text)
        rest = f"\n[… {read.more} more characters]" if read.more else ""
        return Attachment(name=name, media_type=kind, text=f"{read.text}{rest}")

    async def _file(self, message: int, part: File, at_once: asyncio.Semaphore) -> StoredFile | FetchError:
        """The file that ``part`` names; one at an address is fetched and kept."""
        async with at_once:
            try:
                return await self._found(message, part)
            except FetchError as reason:
                return reason

    async def _found(self, message: int, part: File) -> StoredFile:
        """Raises ``FetchError``."""
        address = part.ref.startswith(("http://", "https://"))
        key = f"fetched/{message}/{sha256(clean(part.ref).encode()).hexdigest()}" if address else part.ref
        file = await self._store.files.find(self._app, self._user, key)
        if file is not None:
            return file
        if not address:
            raise FetchError("name", "there is no such file")
        fetched = await self._fetch.get(part.ref)
        try:
            return await self._store.files.add(
                self._app,
                self._user,
                key=key,
                name=clean(fetched.name),
                media_type=clean(fetched.media_type),
                content=fetched.content,
                details={},
                conversation=self._conversation,
            )
        except Problem as problem:
            log.warning("fetched file not kept", problem=problem.record())
            raise FetchError("connection", "it could not be kept") from problem


@dataclass(slots=True)
class _Budget:
    """What a turn still takes of its files."""

    characters: int = MAX_CHARACTERS
    image_bytes: int = MAX_IMAGE_BYTES


def _kind(file: StoredFile) -> str:
    """The media type; where it only says "bytes", what the name's ending says."""
    kind = file.media_type.partition(";")[0].strip().lower()
    if kind in {"", "application/octet-stream", "binary/octet-stream"}:
        return guess_type(file.name)[0] or kind
    return kind
