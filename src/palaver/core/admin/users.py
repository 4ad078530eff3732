"""The data stored about an end user: export and deletion."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from palaver.core.admin.applications import get_application
from palaver.core.admin.audit import AuditLog
from palaver.core.ports.admin import AdminStore
from palaver.core.problems import NotFound
from palaver.core.types import Application, StoredFile, User

CHUNK = 1_048_576
"""Bytes of a file that are read at a time."""


class UserAdmin:
    def __init__(self, store: AdminStore, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    async def get(self, application: str, ref: str) -> tuple[Application, User]:
        """An application and its end user of that name or issued uid. Raises ``NotFound``."""
        owner = await get_application(self._store.applications, application)
        user = await self._store.users.find(owner.id, ref)
        if user is None:
            raise NotFound(noun="user", ref=ref)
        return owner, user

    async def delete(self, application: str, ref: str) -> dict[str, int]:
        """Permanently delete an end user with conversations, messages, files, tokens and subscriptions; answers in
        progress are stopped. Returns the number of deleted rows by kind, all 0 for an unknown end user. Raises
        ``NotFound`` for an unknown application. The audit log does not name the end user."""
        async with self._audit.record("user forget", application=application):
            owner = await get_application(self._store.applications, application)
            return await self._store.user_data.delete(owner.id, await self._store.users.find(owner.id, ref))

    def export(self, owner: Application, user: User) -> AsyncGenerator[dict[str, Any]]:
        """All data stored about an end user, one object at a time: each has a ``type``, files also have a ``key``."""
        return self._store.user_data.export(owner.id, user)

    async def file_content(self, owner: Application, key: str) -> AsyncGenerator[bytes] | None:
        """The content of a stored file in chunks, or ``None`` if it does not exist."""
        file = await self._store.files.get(owner.id, key)
        return None if file is None else self._chunks(file)

    async def _chunks(self, file: StoredFile) -> AsyncGenerator[bytes]:
        for start in range(0, file.size, CHUNK):
            yield await self._store.files.content(file, start=start, length=CHUNK)
