"""Knowledge bases, as an operator fills and inspects them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from palaver.core.admin.applications import get_application, get_or_create_application
from palaver.core.admin.audit import AuditLog
from palaver.core.ports.admin import AdminStore, Document, Ingest, IngestProgress, IngestReport, KnowledgeBase
from palaver.core.ports.documents import Knowledge
from palaver.core.problems import Invalid, NotFound
from palaver.core.types import Application, Passage


class KnowledgeBaseAdmin:
    def __init__(self, store: AdminStore, knowledge: Knowledge, ingest: Ingest, audit: AuditLog) -> None:
        self._store = store
        self._knowledge = knowledge
        self._ingest = ingest
        self._audit = audit

    async def list_all(self, application: str | None = None) -> list[tuple[str, KnowledgeBase]]:
        """Every knowledge base, of one application or of all, each with its application's name. Raises ``NotFound``."""
        repository = self._store.applications
        owners = (
            await repository.list_all() if application is None else [await get_application(repository, application)]
        )
        return [(owner.name, base) for owner in owners for base in await self._store.knowledge.list_bases(owner.id)]

    async def get(self, application: str, name: str) -> KnowledgeBase:
        """A knowledge base by name, id or uid. Raises ``NotFound``."""
        owner = await get_application(self._store.applications, application)
        base = await self._store.knowledge.get(owner.id, name)
        if base is None:
            raise NotFound(noun="knowledge", ref=name)
        return base

    async def list_documents(self, application: str, name: str) -> list[Document]:
        """The documents of a knowledge base, by source and folder. Raises ``NotFound``."""
        base = await self.get(application, name)
        return await self._store.knowledge.list_documents(base.app, base.id)

    async def search(self, application: str, name: str, query: str, limit: int) -> list[Passage]:
        """The passages that an agent would find, best first. Raises ``NotFound``."""
        base = await self.get(application, name)
        return await self._knowledge.search(base.app, [base.name], query, limit)

    async def add(
        self,
        application: str,
        name: str,
        paths: Sequence[Path],
        progress: Callable[[IngestProgress], None] | None = None,
        *,
        prune: bool = False,
        lost: bool = False,
    ) -> tuple[Application, IngestReport]:
        """Read files and folders into a knowledge base; it and its application are created if missing. See ``Ingest``
        for ``prune`` and ``lost``. Raises ``Invalid``."""
        places = [str(path) for path in paths]
        async with self._audit.record("knowledge add", application=application, name=name, paths=places, prune=prune):
            owner = await get_or_create_application(self._store.applications, application)
            return owner, await self._ingest(owner.id, name, paths, progress, prune=prune, lost=lost)

    async def remove(self, application: str, name: str, sources: Sequence[str] = ()) -> tuple[KnowledgeBase, list[str]]:
        """Delete documents, each named by its source or its path; without ``sources``, delete the knowledge base.
        Returns the sources of the deleted documents. Raises ``NotFound``, and ``Invalid`` for an ambiguous source."""
        async with self._audit.record("knowledge remove", application=application, name=name, source=list(sources)):
            base = await self.get(application, name)
            documents = await self._store.knowledge.list_documents(base.app, base.id)
            if sources:
                keys = [_document_key(source, documents) for source in sources]
                return base, await self._store.knowledge.delete_documents(base.app, base.id, keys)
            await self._store.knowledge.delete(base.app, base.id)
            return base, [document.source for document in documents]


def _document_key(name: str, documents: Sequence[Document]) -> tuple[str, str]:
    """Folder and source of the document with that source or path."""
    keys = {(one.root, one.source) for one in documents if name in {one.source, f"{one.root}/{one.source}"}}
    if not keys:
        raise NotFound(noun="document", ref=name)
    if len(keys) > 1:
        places = ", ".join(sorted(f"{root}/{source}" for root, source in keys))
        raise Invalid(field="source", rule="type", detail=f"{name!r} is in several folders; specify one of {places}")
    return keys.pop()
