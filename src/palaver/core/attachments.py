"""The attachments of a conversation's messages, read before the model is called.

A file ref is the key, uid or id of an uploaded file, or a URL, which is fetched through ``Fetcher`` and stored with the
conversation, so that later turns read the same content. An unreadable file does not fail the turn: the model is
informed, and can mention it.
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
"""Maximum number of files that a turn reads, newest message first. For the rest, the model only sees the names."""
MAX_CHARACTERS = 60_000
"""Maximum characters of text from all files of a turn."""
MAX_IMAGE_BYTES = 20 * 1024 * 1024
"""Maximum bytes of all images of a turn, and of any single file."""
CONCURRENCY = 4
"""Number of files of a turn that are looked up or fetched concurrently."""
IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""The image types passed to models."""

log = structlog.get_logger("palaver.attachments")


class Attachments:
    """Reads the files of one conversation of application ``app``, with the permissions of its end user."""

    def __init__(
        self,
        *,
        store: Store,
        fetch: Fetcher,
        documents: DocumentReader,
        app_id: int,
        user_id: int,
        conversation_id: int,
        trace: str = "",
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._documents = documents
        self._app = app_id
        self._user = user_id
        self._conversation = conversation_id
        self._trace = trace

    async def read(self, question: Message, earlier: Sequence[Message]) -> dict[str, Attachment]:
        """The contents of the files of ``question`` and of the earlier messages (oldest first), by ref."""
        parts: dict[str, tuple[int, File]] = {}
        for message in (question, *reversed(earlier)):
            for part in message.files:
                if len(parts) < MAX_FILES:
                    parts.setdefault(part.ref, (message.id, part))
        if not parts:
            return {}
        semaphore = asyncio.Semaphore(CONCURRENCY)
        files = await asyncio.gather(*(self._file(message, part, semaphore) for message, part in parts.values()))
        budget = _Budget()
        # Sequentially: each file reduces the budget for the next one.
        return {
            part.ref: await self._attachment(part, file, budget)
            for (_, part), file in zip(parts.values(), files, strict=True)
        }

    async def _attachment(self, part: File, file: StoredFile | FetchError, budget: _Budget) -> Attachment:
        if isinstance(file, FetchError):
            return self._missing(part, part.name or part.ref, part.media_type, file.reason, file.detail)
        name, kind = part.name or file.name, _kind(file)
        try:
            return await self._content(name, kind, file, budget)
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

    async def _content(self, name: str, kind: str, file: StoredFile, budget: _Budget) -> Attachment:
        """Raises ``UnreadableDocument``."""
        if file.size > MAX_IMAGE_BYTES:
            raise UnreadableDocument(f"it has more than {MAX_IMAGE_BYTES} bytes")
        if kind in IMAGE_TYPES:
            if file.size > budget.image_bytes:
                raise UnreadableDocument("the pictures are too large")
            budget.image_bytes -= file.size
            return Attachment(name=name, media_type=kind, image=await self._store.files.content(file))
        load = partial(self._store.files.content, file)
        document = await self._documents.text(self._app, self._user, name, kind, load, budget.characters)
        budget.characters -= len(document.text)
        rest = f"\n[… {document.more} more characters]" if document.more else ""
        return Attachment(name=name, media_type=kind, text=f"{document.text}{rest}")

    async def _file(self, message: int, part: File, semaphore: asyncio.Semaphore) -> StoredFile | FetchError:
        """Look up the file of ``part``, or fetch and store it if its ref is a URL."""
        async with semaphore:
            try:
                return await self._find_or_fetch(message, part)
            except FetchError as error:
                return error

    async def _find_or_fetch(self, message: int, part: File) -> StoredFile:
        """Raises ``FetchError``."""
        is_url = part.ref.startswith(("http://", "https://"))
        key = f"fetched/{message}/{sha256(clean(part.ref).encode()).hexdigest()}" if is_url else part.ref
        file = await self._store.files.find_for_user(self._app, self._user, key)
        if file is not None:
            return file
        if not is_url:
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
                conversation_id=self._conversation,
            )
        except Problem as problem:
            log.warning("fetched file not kept", problem=problem.to_dict())
            raise FetchError("connection", "it could not be kept") from problem


@dataclass(slots=True)
class _Budget:
    """The remaining budget of a turn for its files."""

    characters: int = MAX_CHARACTERS
    image_bytes: int = MAX_IMAGE_BYTES


def _kind(file: StoredFile) -> str:
    """The media type; if it is generic, the one guessed from the file name extension."""
    kind = file.media_type.partition(";")[0].strip().lower()
    if kind in {"", "application/octet-stream", "binary/octet-stream"}:
        return guess_type(file.name)[0] or kind
    return kind
