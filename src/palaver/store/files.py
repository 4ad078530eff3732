"""The tables of files and of their pieces, which hold the bytes."""

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
from palaver.core.fair_semaphore import FairSemaphore, QueueTimeout, fraction_of
from palaver.core.problems import Busy, Invalid
from palaver.core.types import StoredFile, clean, new_uid, parse_id, parse_uid
from palaver.store.conversations import json_text
from palaver.store.database import Database, Row

PIECE_BYTES = 1_048_576
"""Size of every piece but the last one, in bytes."""

LARGE_FILE_SHARE = 1 / 5
"""Maximum share of the connections that store files of more than one piece, each of which holds its connection for
seconds."""
QUEUE_TIMEOUT_S = 60.0
"""Seconds that a file waits for its turn to be stored."""

TOTAL_TTL_S = 10.0
"""Seconds for which the total size of an application's files is cached; what this process stores is added to it."""

_INSERT = """
INSERT INTO file (app, uid, end_user, key, name, media_type, size, digest, details, conversation)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (app, key) DO NOTHING"""
_FIND = """
SELECT * FROM file WHERE app = $1 AND end_user = $2 AND (key = $3 OR uid = $4 OR id = $5)
ORDER BY key = $3 DESC LIMIT 1"""
_INSERT_PIECE = """
INSERT INTO file_piece (app, file, number, bytes)
SELECT app, id, $3, $4 FROM file WHERE app = $1 AND uid = $2"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileQuota:
    """Maximum bytes of files of one end user, and of an application's end users together."""

    user: int
    application: int


class FileTable:
    """Files of end users. ``quota`` limits every way to store files; ``None`` is unlimited."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.quota: FileQuota | None = None
        self._totals: dict[int, tuple[float, int]] = {}
        """Per application: when its total was last queried, and its bytes."""
        self._per_user = FairSemaphore(sys.maxsize, 1)
        """An end user's files are stored one after another, so that each is counted for the next one's quota check."""
        self._large_files = FairSemaphore(fraction_of(db.max_connections, LARGE_FILE_SHARE), 1)

    async def add(
        self,
        app_id: int,
        user_id: int,
        *,
        key: str,
        name: str,
        media_type: str,
        content: bytes | ByteSource,
        details: dict[str, Any],
        conversation_id: int | None = None,
    ) -> StoredFile:
        """Store the file and return it; if the key exists, return the existing file. Raises ``Invalid(rule="size")`` if
        it exceeds the quota, and ``Busy`` if its turn to be stored does not come in time."""
        uid, source = new_uid(), _BytesSource(content) if isinstance(content, bytes) else content
        row = (
            app_id,
            uid,
            user_id,
            key,
            name,
            media_type,
            source.size,
            source.digest,
            json_text(details),
            conversation_id,
        )
        async with self._turn(app_id, user_id, source.size):
            if self.quota is not None:
                await self._check_quota(self.quota, app_id, user_id, source.size)
            await self._db.transaction(_InsertStatements(app_id, uid, row, source))
        stored = await self.get(app_id, key)
        assert stored is not None
        return stored

    @asynccontextmanager
    async def _turn(self, app_id: int, user_id: int, size: int) -> AsyncGenerator[None]:
        """Wait until the end user may store a file of that size. Raises ``Busy``."""
        try:
            async with AsyncExitStack() as turns:
                await turns.enter_async_context(self._per_user.slot((app_id, user_id), QUEUE_TIMEOUT_S))
                if size > PIECE_BYTES:
                    await turns.enter_async_context(self._large_files.slot((app_id, user_id), QUEUE_TIMEOUT_S))
                yield
        except QueueTimeout as error:
            raise Busy(reason="overload", retry_after=10) from error

    async def _check_quota(self, quota: FileQuota, app_id: int, user_id: int, size: int) -> None:
        """Raises ``Invalid(rule="size")``."""
        used: int = await self._db.fetchval(
            "SELECT coalesce(sum(size), 0)::bigint FROM file WHERE app = $1 AND end_user = $2", app_id, user_id
        )
        if used + size > quota.user:
            raise Invalid(field="file", rule="size", detail=f"an end user may keep {quota.user} bytes of files")
        now = time.monotonic()
        queried_at, total = self._totals.get(app_id, (float("-inf"), 0))
        if now > queried_at + TOTAL_TTL_S or total + size > quota.application:  # files may have been deleted
            queried_at = now
            total = await self._db.fetchval("SELECT coalesce(sum(size), 0)::bigint FROM file WHERE app = $1", app_id)
        if total + size > quota.application:
            raise Invalid(
                field="file", rule="size", detail=f"an application may keep {quota.application} bytes of files"
            )
        self._totals[app_id] = (queried_at, total + size)

    async def get(self, app_id: int, key: str) -> StoredFile | None:
        row = await self._db.fetchrow("SELECT * FROM file WHERE app = $1 AND key = $2", app_id, clean(key))
        return None if row is None else _file(row)

    async def find_for_user(self, app_id: int, user_id: int, ref: str) -> StoredFile | None:
        row = await self._db.fetchrow(_FIND, app_id, user_id, clean(ref), parse_uid(ref), parse_id(ref))
        return None if row is None else _file(row)

    async def get_unscoped(self, key: str) -> StoredFile | None:
        row = await self._db.fetchrow("SELECT * FROM file WHERE key = $1 LIMIT 1", clean(key))
        return None if row is None else _file(row)

    async def delete(self, app_id: int, user_id: int, key: str) -> bool:
        tag = await self._db.execute(
            "DELETE FROM file WHERE app = $1 AND end_user = $2 AND key = $3", app_id, user_id, clean(key)
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
            start // PIECE_BYTES,
            (end - 1) // PIECE_BYTES,
        )
        first = start - start % PIECE_BYTES
        return b"".join(row["bytes"] for row in rows)[start - first : end - first]


class _InsertStatements:
    """The statements that insert a file, generated anew at every iteration so that only one piece is in memory."""

    def __init__(self, app_id: int, uid: UUID, row: tuple[Any, ...], source: ByteSource) -> None:
        self._app = app_id
        self._uid = uid
        self._row = row
        self._source = source

    def __iter__(self) -> Iterator[tuple[str, Sequence[Any]]]:
        yield _INSERT, self._row
        for number, piece in enumerate(self._source.pieces(PIECE_BYTES)):
            yield _INSERT_PIECE, (self._app, self._uid, number, piece)


class _BytesSource:
    """A ``ByteSource`` over bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)
        self.digest = sha256(content).digest()

    def pieces(self, size: int) -> Iterator[bytes]:
        return (self._content[start : start + size] for start in range(0, self.size, size))


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
