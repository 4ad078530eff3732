"""Files, in pieces."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from palaver.core.byte_source import ByteSource
from palaver.core.fair_queue import FairQueue, QueueTimeout, share
from palaver.core.problems import Busy, Invalid
from palaver.core.types import StoredFile, as_number, as_uid, clean, new_uid
from palaver.store.conversations import json_text
from palaver.store.database import Database, Row

PIECE = 1_048_576
"""Bytes of a piece; all but the last one have as many."""

OF_CONNECTIONS = 1 / 5
"""Of the connections, how many store files of more than one piece: each holds its own for seconds. All but one of these
are an application's at most."""
PATIENCE_S = 60.0
"""How long a file waits to be stored."""

ADDED_UP_EVERY = 10.0
"""Seconds for which the sum of an application's files is believed; what this process adds is added to it."""

_ADD = """
INSERT INTO file (app, uid, end_user, key, name, media_type, size, digest, details, conversation)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (app, key) DO NOTHING"""
_FIND = """
SELECT * FROM file WHERE app = $1 AND end_user = $2 AND (key = $3 OR uid = $4 OR id = $5)
ORDER BY key = $3 DESC LIMIT 1"""
_ADD_PIECE = """
INSERT INTO file_piece (app, file, number, bytes)
SELECT app, id, $3, $4 FROM file WHERE app = $1 AND uid = $2"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileQuota:
    """How many bytes of files may be kept, for one end user and for all of an application."""

    user: int
    application: int


class FileTable:
    """``quota``, where there is one, holds for every way in which files come."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.quota: FileQuota | None = None
        self._kept: dict[int, tuple[float, int]] = {}
        """When an application's bytes were last added up, and to what."""
        self._each = FairQueue(sys.maxsize, 1)
        """An end user's files come one after the other, so that each finds those before it in the quota."""
        self._long = FairQueue(share(db.connections, OF_CONNECTIONS), 1)

    async def add(
        self,
        app: int,
        user: int,
        *,
        key: str,
        name: str,
        media_type: str,
        content: bytes | ByteSource,
        details: dict[str, Any],
        conversation: int | None = None,
    ) -> StoredFile:
        """Keep the file; under a key that is taken already the first one stays, and is what comes back. Raises
        ``Invalid(rule="size")`` for one that the quota has no room for."""
        uid, kept = new_uid(), _Whole(content) if isinstance(content, bytes) else content
        said = (app, uid, user, key, name, media_type, kept.size, kept.digest, json_text(details), conversation)
        async with self._turn(app, user, kept.size):
            if self.quota is not None:
                await self._make_sure_of_room(self.quota, app, user, kept.size)
            await self._db.together(_Adding(app, uid, said, kept))
        stored = await self.get(app, key)
        assert stored is not None
        return stored

    @asynccontextmanager
    async def _turn(self, app: int, user: int, size: int) -> AsyncGenerator[None]:
        """The end user's turn, and with a long file that of those. Raises ``Busy``."""
        try:
            async with AsyncExitStack() as turns:
                await turns.enter_async_context(self._each.slot((app, user), PATIENCE_S))
                if size > PIECE:
                    await turns.enter_async_context(self._long.slot((app, user), PATIENCE_S))
                yield
        except QueueTimeout as none:
            raise Busy(reason="overload", retry_after=10) from none

    async def _make_sure_of_room(self, quota: FileQuota, app: int, user: int, size: int) -> None:
        used: int = await self._db.fetchval(
            "SELECT coalesce(sum(size), 0)::bigint FROM file WHERE app = $1 AND end_user = $2", app, user
        )
        if used + size > quota.user:
            raise Invalid(field="file", rule="size", detail=f"an end user may keep {quota.user} bytes of files")
        now = time.monotonic()
        at, kept = self._kept.get(app, (float("-inf"), 0))
        if now > at + ADDED_UP_EVERY or kept + size > quota.application:  # in between, something may have gone
            at = now
            kept = await self._db.fetchval("SELECT coalesce(sum(size), 0)::bigint FROM file WHERE app = $1", app)
        if kept + size > quota.application:
            raise Invalid(
                field="file", rule="size", detail=f"an application may keep {quota.application} bytes of files"
            )
        self._kept[app] = (at, kept + size)

    async def get(self, app: int, key: str) -> StoredFile | None:
        row = await self._db.fetchrow("SELECT * FROM file WHERE app = $1 AND key = $2", app, clean(key))
        return None if row is None else _file(row)

    async def find_for_user(self, app: int, user: int, ref: str) -> StoredFile | None:
        row = await self._db.fetchrow(_FIND, app, user, clean(ref), as_uid(ref), as_number(ref))
        return None if row is None else _file(row)

    async def get_unscoped(self, key: str) -> StoredFile | None:
        row = await self._db.fetchrow("SELECT * FROM file WHERE key = $1 LIMIT 1", clean(key))
        return None if row is None else _file(row)

    async def delete(self, app: int, user: int, key: str) -> bool:
        tag = await self._db.execute(
            "DELETE FROM file WHERE app = $1 AND end_user = $2 AND key = $3", app, user, clean(key)
        )
        return tag != "DELETE 0"

    async def content(self, file: StoredFile, *, start: int = 0, length: int | None = None) -> bytes:
        end = file.size if length is None else min(file.size, start + length)
        if start >= end:
            return b""
        rows = await self._db.fetch(
            "SELECT bytes FROM file_piece WHERE app = $1 AND file = $2 AND number BETWEEN $3 AND $4 ORDER BY number",
            file.app,
            file.id,
            start // PIECE,
            (end - 1) // PIECE,
        )
        skipped = start - start % PIECE
        return b"".join(row["bytes"] for row in rows)[start - skipped : end - skipped]


class _Adding:
    """The statements that add a file. A transaction that is tried again reads its pieces again: one is in memory."""

    def __init__(self, app: int, uid: UUID, said: tuple[Any, ...], content: ByteSource) -> None:
        self._app = app
        self._uid = uid
        self._said = said
        self._content = content

    def __iter__(self) -> Iterator[tuple[str, Sequence[Any]]]:
        yield _ADD, self._said
        for number, piece in enumerate(self._content.pieces(PIECE)):
            yield _ADD_PIECE, (self._app, self._uid, number, piece)


class _Whole:
    """Content that is in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)
        self.digest = sha256(content).digest()

    def pieces(self, size: int) -> Iterator[bytes]:
        return (self._content[at : at + size] for at in range(0, self.size, size))


def _file(row: Row) -> StoredFile:
    return StoredFile(
        app=row["app"],
        id=row["id"],
        uid=row["uid"],
        user=row["end_user"],
        key=row["key"],
        name=row["name"],
        media_type=row["media_type"],
        size=row["size"],
        digest=row["digest"],
        details=msgspec.json.decode(row["details"]),
        created=row["created"],
    )
