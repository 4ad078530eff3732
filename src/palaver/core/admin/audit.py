"""The audit log: who changed what, when, and the outcome."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from palaver.core.ports.admin import AuditEntry, AuditRepository
from palaver.core.problems import Problem


class AuditLog:
    """Records the changes of one ``actor``. Without an actor, as for the server's own setup, nothing is recorded."""

    def __init__(self, entries: AuditRepository, actor: str | None) -> None:
        self._entries = entries
        self._actor = actor

    @asynccontextmanager
    async def record(self, action: str, *, application: str | None = None, **arguments: Any) -> AsyncGenerator[None]:
        """Record the block as a change: before it, that it begins; after it, ``done`` or ``failed: …``. ``arguments``
        that are empty are left out; they must not be secrets."""
        if self._actor is None:
            yield
            return
        entry = await self._entries.begin(
            actor=self._actor,
            action=action,
            application=application,
            arguments={name: value for name, value in arguments.items() if value},
        )
        try:
            yield
        finally:
            error = sys.exception()
            outcome = "done" if error is None else f"failed: {str(error) or type(error).__name__}"
            with suppress(Problem):  # without a database the outcome stays unknown; the block's own error matters more
                await self._entries.end(entry, outcome)

    async def list_newest(self, limit: int, *, application: str | None = None) -> list[AuditEntry]:
        """The last ``limit`` changes, oldest first; with ``application``, only those of that name."""
        return await self._entries.list_newest(limit, application=application)
