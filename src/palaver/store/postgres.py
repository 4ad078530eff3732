"""The store as a whole."""

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
from palaver.store.driver import FAILURES, connect, failure
from palaver.store.files import FileTable
from palaver.store.idempotency import IdempotencyTable
from palaver.store.knowledge import KnowledgeTable
from palaver.store.master_key import MasterKey
from palaver.store.presence import LOCK_CLASS, Presence
from palaver.store.quotas import Quotas
from palaver.store.runs import RunTable
from palaver.store.secrets import SecretBox
from palaver.store.tokens import TokenTable
from palaver.store.usage import RateLimitTable
from palaver.store.user_data import UserDataTable
from palaver.store.users import UserTable

SETUP_LOCK = 0x70616C61766573
"""Advisory lock of whoever sets something up."""

_PRESENT = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::bigint = $1 AND objid::bigint = $2
)"""


class PostgresStore:
    """Every noun's table, on one database. Implements ``core.ports.store.Store``. With ``direct``, an address at which
    a session is one's own, ``url`` may be that of a pooler that shares them."""

    def __init__(
        self,
        url: str,
        box: SecretBox,
        *,
        connections: int = 10,
        direct: str | None = None,
        keep_master_key: Callable[[bytes], bool] = lambda _: False,
        revive: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.db = Database(url, connections=connections, shared=direct is not None)
        self.presence = Presence(direct or url, revive=revive)
        self._direct = direct
        self.master = MasterKey(self.db, box, self.presence, keep_master_key)
        self.applications = ApplicationTable(self.db)
        self.keys = ApiKeyTable(self.db, box, self.presence)
        self.agents = AgentTable(self.db, self.presence)
        self.quotas = Quotas(self.db)
        self.users = UserTable(self.db, self.presence, self.quotas)
        self.privacy = UserDataTable(self.db)
        self.conversations = ConversationTable(self.db, self.quotas)
        self.runs = RunTable(self.db, self.quotas)
        self.usage = RateLimitTable(self.db, self.quotas)
        self.knowledge = KnowledgeTable(self.db)
        self.files = FileTable(self.db)
        self.tokens = TokenTable(self.db, box, self.quotas)
        self.claims = IdempotencyTable(self.db, self.quotas)
        self.audit = AuditTable(self.db)

    async def open(self) -> None:
        """Connect. Raises ``Internal`` when the database is away, or was sealed with another master key."""
        await self.presence.open()
        await self.db.open()
        if self._direct is not None and not await self.db.fetchval(_PRESENT, LOCK_CLASS, self.presence.worker):
            detail = "PALAVER_DATABASE_DIRECT_URL leads to another database than PALAVER_DATABASE_URL"
            raise Internal(reason="database", detail=detail)
        await self.master.open()

    async def close(self) -> None:
        await self.quotas.close()
        await self.presence.close()
        await self.db.close()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """While no other process is in here: for what is set up once. Ends with the process, however that ends."""
        connection = await connect(self._direct or self.db.url, timeout=10)
        try:
            try:
                await connection.execute("SELECT pg_advisory_lock($1)", SETUP_LOCK)
            except FAILURES as error:
                raise failure(error) from error
            yield
        finally:
            connection.terminate()

    async def rotate_master_key(self, master: bytes) -> int:
        """Seal every stored secret with another master key; how many credentials. Processes that run hear of it.
        Raises ``Conflict`` when somebody else has just done so."""
        return await self.master.rotate(self._direct or self.db.url, master)

    async def remember(self, name: str, value: str) -> None:
        """Keep a text about this installation, in place of an earlier one of that name."""
        await self.db.execute(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            name,
            value,
        )

    async def recall(self, name: str) -> str | None:
        """What was kept under ``name``."""
        value: str | None = await self.db.fetchval("SELECT value FROM meta WHERE name = $1", name)
        return value
