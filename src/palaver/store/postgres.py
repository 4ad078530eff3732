"""The store: every table on one database."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from palaver.core.problems import Internal
from palaver.store.agents import AgentTable
from palaver.store.api_keys import ApiKeyTable
from palaver.store.applications import ApplicationTable
from palaver.store.audit import AuditTable
from palaver.store.conversations import ConversationTable
from palaver.store.database import Database
from palaver.store.driver import DRIVER_ERRORS, connect, to_problem
from palaver.store.files import FileTable
from palaver.store.idempotency import IdempotencyTable
from palaver.store.knowledge import KnowledgeTable
from palaver.store.master_key import MasterKey
from palaver.store.presence import LIVE_WORKERS, Presence
from palaver.store.quotas import Quotas
from palaver.store.rate_limits import RateLimitTable
from palaver.store.runs import RunTable
from palaver.store.secrets import SecretBox
from palaver.store.tokens import TokenTable
from palaver.store.turns import TurnTable
from palaver.store.user_data import UserDataTable
from palaver.store.users import UserTable

SETUP_LOCK = 0x70616C61766573
"""Advisory lock id of first-time setup."""

_IS_LIVE_WORKER = f"SELECT $1::bigint IN ({LIVE_WORKERS})"


class PostgresStore:
    """Implements ``core.ports.store.Store``. ``url`` may be that of a transaction pooler if ``direct`` is the URL of
    the same database without it. ``save_master_key`` stores a rotated key and returns whether it could; ``restart`` is
    called while the database is away."""

    def __init__(
        self,
        url: str,
        box: SecretBox,
        *,
        connections: int = 10,
        direct: str | None = None,
        save_master_key: Callable[[bytes], bool] = lambda _: False,
        restart: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.db = Database(url, connections=connections, transaction_pooler=direct is not None)
        self.presence = Presence(direct or url, restart=restart)
        self._direct = direct
        self.master_key = MasterKey(self.db, box, self.presence, save_master_key)
        self.applications = ApplicationTable(self.db)
        self.keys = ApiKeyTable(self.db, box, self.presence)
        self.agents = AgentTable(self.db, self.presence)
        self.quotas = Quotas(self.db)
        self.users = UserTable(self.db, self.presence, self.quotas)
        self.user_data = UserDataTable(self.db)
        self.conversations = ConversationTable(self.db, self.quotas)
        self.turns = TurnTable(self.db, self.quotas)
        self.runs = RunTable(self.db)
        self.rate_limits = RateLimitTable(self.db, self.quotas)
        self.knowledge = KnowledgeTable(self.db)
        self.files = FileTable(self.db)
        self.tokens = TokenTable(self.db, box, self.quotas)
        self.idempotency = IdempotencyTable(self.db, self.quotas)
        self.audit = AuditTable(self.db)

    async def open(self) -> None:
        """Connect. Raises ``Internal`` if the database cannot be reached or was used with another master key."""
        await self.presence.open()
        await self.db.open()
        if self._direct is not None and not await self.db.fetchval(_IS_LIVE_WORKER, self.presence.worker):
            detail = "PALAVER_DATABASE_DIRECT_URL leads to another database than PALAVER_DATABASE_URL"
            raise Internal(reason="database", detail=detail)
        await self.master_key.verify_or_register()

    async def close(self) -> None:
        await self.quotas.close()
        await self.presence.close()
        await self.db.close()

    @asynccontextmanager
    async def setup_lock(self) -> AsyncGenerator[None]:
        """Hold a lock across processes, for first-time setup. It is released even if the process is killed."""
        connection = await connect(self._direct or self.db.url, timeout=10)
        try:
            try:
                await connection.execute("SELECT pg_advisory_lock($1)", SETUP_LOCK)
            except DRIVER_ERRORS as error:
                raise to_problem(error) from error
            yield
        finally:
            connection.terminate()

    async def rotate_master_key(self, master: bytes) -> int:
        """Re-encrypt every stored secret with another master key and notify running processes. Returns the number of
        credentials. Raises ``Conflict`` if another process has just rotated the key."""
        return await self.master_key.rotate(self._direct or self.db.url, master)

    async def set_meta(self, name: str, value: str) -> None:
        """Set a named value of this installation."""
        await self.db.execute(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            name,
            value,
        )

    async def get_meta(self, name: str) -> str | None:
        """The value set under ``name``, or ``None``."""
        value: str | None = await self.db.fetchval("SELECT value FROM meta WHERE name = $1", name)
        return value
