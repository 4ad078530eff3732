"""What knowledge needs of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from palaver.core.types import Passage, Ref


class NamedBase(Protocol):
    """A base, as far as knowledge asks about one."""

    @property
    def name(self) -> str: ...


class KnowledgeRepository(Protocol):
    """Where documents are kept and looked up. A base is known by its number; a document by its base, the folder it
    came from, and its source, the path below that."""

    async def open(self, app: int, name: str) -> int:
        """The number of the application's base of that name, made when there is none."""
        ...

    async def get(self, app: int, ref: Ref) -> NamedBase | None:
        """The application's base with that number, uid or name."""
        ...

    async def digests(self, app: int, base: int) -> Mapping[tuple[str, str], bytes]:
        """The digest of every document of the base, by folder and source."""
        ...

    async def put(
        self,
        app: int,
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
        """Store a document in place of the one of the same ``root`` and ``source``, all at once. The sequences have
        an entry for each passage: its heading, its text, its number of words, and what it is found by
        (``words.Index.literal``).
        """
        ...

    async def move(self, app: int, base: int, sources: Sequence[str], old: str, new: str) -> None:
        """The documents of these sources from the folder ``old`` are known by the folder ``new`` from now on."""
        ...

    async def remove(self, app: int, base: int, documents: Sequence[tuple[str, str]]) -> Sequence[str]:
        """Remove documents, named by folder and source; the sources of those there were."""
        ...

    async def settle(self) -> None:
        """Called after many documents have been put: time for what makes searching them fast."""
        ...

    async def search(
        self,
        app: int,
        names: Sequence[str],
        *,
        lexemes: Sequence[str],
        weights: Sequence[float],
        missed: Sequence[float],
        beside: Sequence[tuple[int, int] | None],
        limit: int,
    ) -> list[Passage]:
        """The best passages for ``words.Asked`` lexemes in the application's bases called ``names``, best first;
        none that only has what every passage has."""
        ...
