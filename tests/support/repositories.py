"""A library of one application on a database of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from palaver.core.ports.admin import IngestProgress, IngestReport
from palaver.core.types import Passage
from palaver.knowledge.ingest import ingest
from palaver.knowledge.search import KnowledgeRetriever
from palaver.store.applications import ApplicationTable
from palaver.store.database import Database
from palaver.store.knowledge import KnowledgeTable


class Reader:
    """Somebody who fills bases and asks them."""

    def __init__(self, table: KnowledgeTable, app: int) -> None:
        self.table = table
        self.app = app
        self.library = KnowledgeRetriever(table)
        self.seen: list[IngestProgress] = []

    async def add(self, *paths: Path, base: str = "base", prune: bool = False) -> IngestReport:
        return await ingest(self.table, self.app, base, paths, self.seen.append, prune=prune)

    async def ask(self, question: str, *bases: str, limit: int = 3) -> list[Passage]:
        return await self.library.search(self.app, bases or ("base",), question, limit)


@asynccontextmanager
async def reader_on(url: str) -> AsyncGenerator[Reader]:
    db = Database(url)
    await db.open()
    try:
        app = await ApplicationTable(db).get_or_create("acme")
        yield Reader(KnowledgeTable(db), app.id)
    finally:
        await db.close()
