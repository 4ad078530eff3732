"""The storage interface that knowledge needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from palaver.core.types import Passage, Ref


class NamedBase(Protocol):
    """A knowledge base, as far as this package needs it."""

    @property
    def name(self) -> str: ...


class KnowledgeRepository(Protocol):
    """Stores and searches documents. A base is identified by its number; a document by its base, its folder (``root``)
    and its source, the path below that folder."""

    async def get_or_create(self, app_id: int, name: str) -> int:
        """Return the number of the application's base of that name; create it if there is none."""
        ...

    async def get(self, app_id: int, ref: Ref) -> NamedBase | None:
        """Return the application's base with that number, uid or name, or ``None``."""
        ...

    async def get_digests(self, app_id: int, base: int) -> Mapping[tuple[str, str], bytes]:
        """Return the digest of every document of the base, by (folder, source)."""
        ...

    async def put_document(
        self,
        app_id: int,
        base: int,
        *,
        source: str,
        root: str,
        title: str,
        kind: str,
        digest: bytes,
        headings: Sequence[str],
        texts: Sequence[str],
        lengths: Sequence[int],
        words: Sequence[str],
    ) -> None:
        """Store a document atomically, replacing the one with the same ``root`` and ``source``. The sequences have one
        entry per passage: its heading, text, number of words and index (``tokenize.PassageIndex.literal``).
        """
        ...

    async def change_folder(self, app_id: int, base: int, sources: Sequence[str], old: str, new: str) -> None:
        """Change the folder of the documents with these sources from ``old`` to ``new``."""
        ...

    async def delete_documents(self, app_id: int, base: int, documents: Sequence[tuple[str, str]]) -> Sequence[str]:
        """Remove documents, each a (folder, source); returns the sources of those that existed."""
        ...

    async def merge_index(self) -> None:
        """Called after storing many documents, to run maintenance that makes searching fast."""
        ...

    async def search(
        self,
        app_id: int,
        names: Sequence[str],
        *,
        lexemes: Sequence[str],
        weights: Sequence[float],
        missed: Sequence[float],
        beside: Sequence[tuple[int, int] | None],
        limit: int,
    ) -> list[Passage]:
        """Return the best passages for ``tokenize.QueryLexeme`` values in the application's bases called ``names``,
        best first; without passages that match only lexemes found in every passage."""
        ...
