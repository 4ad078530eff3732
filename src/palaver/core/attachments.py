"""The files beside a conversation's messages, read before the model is asked.

A file is named by an uploaded one's key, uid or number, or by an address, which is fetched through ``Fetch`` and kept
with the conversation, so that a later turn reads what this one read. What cannot be read does not end the turn: the
model is told so, and can say it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from mimetypes import guess_type

import structlog

from palaver.core.ports import Attachment, Documents, Fetch, Store, Unfetched
from palaver.core.problems import Problem
from palaver.core.types import File, Message, StoredFile, clean

FILES = 20
"""How many files a turn reads, the newest message's first. Others are only named."""
CHARACTERS = 60_000
"""… how many characters of them all,"""
IMAGE_BYTES = 20 * 1024 * 1024
"""… and how many bytes of pictures."""
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What models look at."""

log = structlog.get_logger("palaver.attachments")


class Attachments:
    """The files of one conversation, of application ``app``, as its end user may read them."""

    def __init__(
        self, *, store: Store, fetch: Fetch, documents: Documents, app: int, user: int, conversation: int
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._documents = documents
        self._app = app
        self._user = user
        self._conversation = conversation

    async def read(self, question: Message, earlier: Sequence[Message]) -> dict[str, Attachment]:
        """What stands in the files of ``question`` and of the messages before it (oldest first), by their refs."""
        wanted: dict[str, tuple[int, File]] = {}
        for message in (question, *reversed(earlier)):
            for part in message.parts:
                if isinstance(part, File) and len(wanted) < FILES:
                    wanted.setdefault(part.ref, (message.id, part))
        if not wanted:
            return {}
        found = await asyncio.gather(*(self._one(message, part) for message, part in wanted.values()))
        return dict(zip(wanted, _fitting(found), strict=True))

    async def _one(self, message: int, part: File) -> Attachment:
        name, kind = part.name, part.media_type
        try:
            file, content = await self._content(message, part)
        except Unfetched as reason:
            log.info("attachment not read", ref=part.ref[:200], reason=reason.reason, detail=reason.detail)
            return Attachment(name=name or part.ref, media_type=kind, missing=reason.detail)
        name, kind = name or file.name, _kind(file)
        if kind in IMAGES:
            return Attachment(name=name, media_type=kind, image=content)
        text = await self._documents.text(name, kind, content)
        if text is None:
            return Attachment(name=name, media_type=kind, missing="it is neither text nor a picture")
        return Attachment(name=name, media_type=kind, text=clean(text))

    async def _content(self, message: int, part: File) -> tuple[StoredFile, bytes]:
        """Raises ``Unfetched``."""
        address = part.ref.startswith(("http://", "https://"))
        key = f"fetched/{message}/{sha256(clean(part.ref).encode()).hexdigest()}" if address else part.ref
        file = await self._store.files.find(self._app, self._user, key)
        if file is not None:
            if file.size > IMAGE_BYTES:
                raise Unfetched("size", f"it has more than {IMAGE_BYTES} bytes")
            return file, await self._store.files.content(file)
        if not address:
            raise Unfetched("name", "there is no such file")
        fetched = await self._fetch.get(part.ref)
        try:
            kept = await self._store.files.add(
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
            raise Unfetched("connection", "it could not be kept") from problem
        return kept, fetched.content


def _kind(file: StoredFile) -> str:
    """The media type; where it only says "bytes", what the name's ending says."""
    kind = file.media_type.partition(";")[0].strip().lower()
    if kind in {"", "application/octet-stream", "binary/octet-stream"}:
        return guess_type(file.name)[0] or kind
    return kind


def _fitting(found: Sequence[Attachment]) -> list[Attachment]:
    """The attachments, as much of them as a model is given."""
    characters, images = CHARACTERS, IMAGE_BYTES
    fitting: list[Attachment] = []
    for one in found:
        shown = one
        if one.image is not None:
            if len(one.image) > images:
                shown = Attachment(name=one.name, media_type=one.media_type, missing="the pictures are too large")
            else:
                images -= len(one.image)
        elif one.text is not None:
            if len(one.text) > characters:
                rest = len(one.text) - characters
                cut = f"{one.text[:characters]}\n[… {rest} more characters]"
                shown = Attachment(name=one.name, media_type=one.media_type, text=cut)
            characters = max(0, characters - len(one.text))
        fitting.append(shown)
    return fitting
