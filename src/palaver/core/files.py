"""Files that callers upload and that agents generate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from palaver.core.byte_source import ByteSource
from palaver.core.ports.store import Store
from palaver.core.problems import NotFound
from palaver.core.types import Principal, StoredFile, clean

PIECE_BYTES = 262_144
"""Chunk size for reading files, in bytes."""
MAX_NAME_CHARACTERS = 255
"""Maximum length of a file name, in characters."""
_MAX_ENDING = 16


def shorten_name(name: str, limit: int = MAX_NAME_CHARACTERS) -> str:
    """``name`` truncated to ``limit`` characters, keeping its extension."""
    stem, dot, ending = name.rpartition(".")
    if len(name) <= limit or not stem or len(ending) > _MAX_ENDING:
        return name[:limit]
    return f"{stem[: limit - len(ending) - 1]}{dot}{ending}"


class Files:
    """The files of an application, each owned by one end user."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(
        self,
        principal: Principal,
        *,
        key: str,
        name: str,
        media_type: str,
        content: bytes | ByteSource,
        details: dict[str, Any] | None = None,
        conversation_id: int | None = None,
    ) -> StoredFile:
        """Store ``content`` under ``key``, which must be new in the application. With a ``conversation_id``, it is
        deleted together with the conversation."""
        user = await self._store.users.get_or_create(principal.app, principal.user or "")
        return await self._store.files.add(
            principal.app,
            user.id,
            key=key,
            name=shorten_name(clean(name)),
            media_type=clean(media_type),
            content=content,
            details=details or {},
            conversation_id=conversation_id,
        )

    async def get(self, principal: Principal, key: str) -> StoredFile:
        """A file of the caller's end user. Raises ``NotFound``, also for other end users' files."""
        user = await self._store.users.get_by_name(principal.app, principal.user or "")
        file = None if user is None else await self._store.files.get(principal.app, key)
        if file is None or user is None or file.user != user.id:
            raise NotFound(noun="file", ref=key)
        return file

    async def delete(self, principal: Principal, key: str) -> None:
        """Permanently delete a file of the caller's end user. Messages keep their references to it. Raises
        ``NotFound``."""
        file = await self.get(principal, key)
        if not await self._store.files.delete(principal.app, file.user, file.key):
            raise NotFound(noun="file", ref=key)

    async def get_unscoped(self, key: str) -> StoredFile:
        """A file by its key alone, for unguessable public URLs. Raises ``NotFound``."""
        file = await self._store.files.get_unscoped(key)
        if file is None:
            raise NotFound(noun="file", ref=key)
        return file

    async def content(self, file: StoredFile, *, start: int = 0, length: int | None = None) -> bytes:
        """The file's bytes, or ``length`` of them from ``start``."""
        return await self._store.files.content(file, start=start, length=length)

    async def pieces(self, file: StoredFile, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Like ``content``, in chunks of ``PIECE_BYTES`` bytes, which bounds memory use. Raises ``NotFound`` if the
        file is deleted meanwhile."""
        end = file.size if length is None else min(file.size, start + length)
        for offset in range(start, end, PIECE_BYTES):
            piece = await self._store.files.content(file, start=offset, length=min(PIECE_BYTES, end - offset))
            if not piece:  # deleted meanwhile
                raise NotFound(noun="file", ref=file.key)
            yield piece
