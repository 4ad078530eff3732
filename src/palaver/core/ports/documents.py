"""The port for documents: knowledge base search, and text extraction from a file. Implemented by
``palaver.knowledge``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from palaver.core.types import (
    Passage,
    Ref,
    Value,
)


class Knowledge(Protocol):
    """Knowledge base search. Callers check permission first: the turn through its agent, or ``core.knowledge``."""

    async def search(self, app_id: int, names: Sequence[str], query: str, limit: int) -> list[Passage]:
        """The best passages for ``query`` in the application's knowledge bases called ``names``, best first."""
        ...

    async def find_name(self, app_id: int, ref: Ref) -> str | None:
        """The name of the application's knowledge base with that id, uid or name, or ``None``."""
        ...


class DocumentText(Value, frozen=True, kw_only=True):
    """The text of a file, up to a limit; ``more`` is the number of characters beyond it."""

    text: str
    more: int = 0


class UnreadableDocument(Exception):  # noqa: N818  describes a document, not an error of palaver
    """A document could not be read. ``reason`` is a message to show the user."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DocumentReader(Protocol):
    async def text(
        self, app_id: int, user_id: int, name: str, media_type: str, content: Callable[[], Awaitable[bytes]], limit: int
    ) -> DocumentText:
        """At most ``limit`` characters of a file's text. ``content`` is called once a reader process is free; end users
        are served in turn, so that one user's files do not delay another's. Raises ``UnreadableDocument``."""
        ...
