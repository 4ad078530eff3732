"""Full-text search: questions to passages."""

from __future__ import annotations

from collections.abc import Sequence

from palaver.core.types import Passage, Ref
from palaver.knowledge.repository import KnowledgeRepository
from palaver.knowledge.tokenize import query_lexemes


class KnowledgeRetriever:
    """Searches an application's knowledge bases. Implements ``core.ports.documents.Knowledge``."""

    def __init__(self, repository: KnowledgeRepository) -> None:
        self._repository = repository

    async def search(self, app_id: int, names: Sequence[str], query: str, limit: int) -> list[Passage]:
        """The best passages for ``query`` (any text) in the bases called ``names``; unknown names are ignored. Empty
        for a question of nothing but stop words. ``score`` is between 0 and 1."""
        terms = query_lexemes(query)
        if not terms or not names or limit < 1:
            return []
        return await self._repository.search(
            app_id,
            names,
            lexemes=[term.lexeme for term in terms],
            weights=[term.weight for term in terms],
            missed=[term.missed for term in terms],
            beside=[term.beside for term in terms],
            limit=limit,
        )

    async def find_name(self, app_id: int, ref: Ref) -> str | None:
        """The name of the base with that number, uid or name; ``None`` if the application has no such base."""
        base = await self._repository.get(app_id, ref)
        return None if base is None else base.name
