"""What core needs of documents: searching a knowledge base, and the text of one file. ``palaver.knowledge`` implements
it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from palaver.core.types import (
    Passage,
    Ref,
    Value,
)


class Knowledge(Protocol):
    """Documents that can be searched. Whether somebody may is decided before: by the agent whose turn it is, or in
    ``core.knowledge``."""

    async def search(self, app: int, names: Sequence[str], query: str, limit: int) -> list[Passage]:
        """The best passages for ``query`` in the application's knowledge bases called ``names``, best first."""
        ...

    async def find(self, app: int, ref: Ref) -> str | None:
        """The name of the application's knowledge base with that number, uid or name; ``None``: there is none."""
        ...


class DocumentText(Value, frozen=True, kw_only=True):
    """What a file says, as far as it was wanted; ``more`` counts the characters beyond that."""

    text: str
    more: int = 0


class UnreadableDocument(Exception):  # noqa: N818  said of a document, not an error of ours
    """Why a document was not read, for a person who can change it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DocumentReader(Protocol):
    async def text(
        self, app: int, user: int, name: str, media_type: str, content: Callable[[], Awaitable[bytes]], limit: int
    ) -> DocumentText:
        """``limit`` characters of what a file says, whose ``content`` is asked for when there is a reader free: end
        users wait for their turn, so that nobody's files hold up somebody else's. Raises ``UnreadableDocument``."""
        ...
