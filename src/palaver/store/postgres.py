"""The store as a whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from palaver.core.problems import Internal
from palaver.store.agents import Agents
from palaver.store.applications import Applications
from palaver.store.audit import Audit
from palaver.store.claims import Claims
from palaver.store.conversations import Conversations
from palaver.store.database import Database
from palaver.store.driver import FAILURES, connect, failure
from palaver.store.files import Files
from palaver.store.keys import Keys
from palaver.store.knowledge import KnowledgeTable
from palaver.store.master import MasterKey
from palaver.store.presence import LOCK_CLASS, Presence
from palaver.store.privacy import Privacy
from palaver.store.quotas import Quotas
from palaver.store.runs import Runs
from palaver.store.secrets import SecretBox
from palaver.store.tokens import Tokens
from palaver.store.usage import Usage
from palaver.store.users import Users

SETUP_LOCK = 0x70616C61766573
"""Advisory lock of whoever sets something up."""

_PRESENT = """
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::bigint = $1 AND objid::bigint = $2
)"""


class Postgres:
    """Every noun's table, on one database. Implements ``core.ports.Store``. With ``direct``, an address at which a
    session is one's own, ``url`` may be that of a pooler that shares them."""

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
        self.applications = Applications(self.db)
        self.keys = Keys(self.db, box, self.presence)
        self.agents = Agents(self.db, self.presence)
        self.quotas = Quotas(self.db)
        self.users = Users(self.db, self.presence, self.quotas)
        self.privacy = Privacy(self.db)
        self.conversations = Conversations(self.db, self.quotas)
        self.runs = Runs(self.db, self.quotas)
        self.usage = Usage(self.db, self.quotas)
        self.knowledge = KnowledgeTable(self.db)
        self.files = Files(self.db)
        self.tokens = Tokens(self.db, box, self.quotas)
        self.claims = Claims(self.db, self.quotas)
        self.audit = Audit(self.db)

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
