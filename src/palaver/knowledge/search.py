"""Questions to passages."""

from __future__ import annotations

from collections.abc import Sequence

from palaver.core.types import Passage, Ref
from palaver.knowledge.repository import KnowledgeRepository
from palaver.knowledge.tokenize import asked


class KnowledgeRetriever:
    """An application's knowledge, as an agent asks it. Implements ``core.ports.documents.Knowledge``."""

    def __init__(self, shelf: KnowledgeRepository) -> None:
        self._shelf = shelf

    async def search(self, app: int, names: Sequence[str], query: str, limit: int) -> list[Passage]:
        """The best passages for ``query``, any text at all, in the bases called ``names``; names that no base has
        are passed over. None for a question of words alone that say nothing. ``score`` lies between 0 and 1."""
        wanted = asked(query)
        if not wanted or not names or limit < 1:
            return []
        return await self._shelf.search(
            app,
            names,
            lexemes=[one.lexeme for one in wanted],
            weights=[one.weight for one in wanted],
            missed=[one.missed for one in wanted],
            beside=[one.beside for one in wanted],
            limit=limit,
        )

    async def find(self, app: int, ref: Ref) -> str | None:
        """The name of the base with that number, uid or name; ``None``: the application has none."""
        base = await self._shelf.get(app, ref)
        return None if base is None else base.name
