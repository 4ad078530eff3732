"""Reading what was said: a page, bounded by bytes as well as by a number, or all of it, in pieces.

What a call reads at once is short in the ordinary case, and nobody waits for it. Long pages are made one at a time for
each credential, and few at a time in all, so that their memory is bounded in sum.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from palaver.core.disconnect import unless_disconnected
from palaver.core.fair_queue import FairQueue, QueueTimeout
from palaver.core.ports.store import ConversationRepository, Stretch
from palaver.core.problems import Busy
from palaver.core.types import Message, Principal

SMALL_PAGE_BYTES = 262_144
"""Bytes of messages that every call may read without waiting for its turn."""
BATCH_MESSAGES = 200
"""Messages of a piece, where all of a conversation is read."""
MAX_CONCURRENT_LONG_READS = 2
"""Long pages that are made at a time."""
TURN_TIMEOUT_S = 30.0
"""Seconds after which a call whose turn does not come is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Messages, oldest first. ``next`` is the uid of the one after them in the direction in which they were asked
    for, if there is one."""

    messages: Sequence[Message]
    next: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FullHistory:
    """Messages, oldest first, of which ``rest`` is read as it is taken; ``None``: ``first`` are all."""

    first: Sequence[Message]
    rest: AsyncGenerator[Sequence[Message], None] | None = None


class History:
    """Reads messages of conversations that the caller may read."""

    def __init__(self, store: ConversationRepository, *, max_page_bytes: int) -> None:
        self._store = store
        self._max = max_page_bytes
        self._free = min(SMALL_PAGE_BYTES, max_page_bytes)
        self._turns = FairQueue(MAX_CONCURRENT_LONG_READS, 1, of_app=MAX_CONCURRENT_LONG_READS)

    @asynccontextmanager
    async def page(
        self, who: Principal, conversation: int, *, before: int | None, after: int | None, limit: int
    ) -> AsyncGenerator[HistoryPage]:
        """The newest ``limit`` messages (below id ``before``), or the first ones above ``after``: fewer where they are
        long, and always one. While the block lasts, a long page is being made: leave it when it is encoded."""
        begun = await self._store.history(
            who.app, conversation, before=before, after=after, limit=limit, size=self._free, always_one=False
        )
        if begun.next is None or len(begun.messages) == limit:
            yield HistoryPage(messages=begun.messages, next=begun.next)
            return
        async with self._turn(who):
            yield await self._longer(who.app, conversation, begun, before, after, limit)

    @asynccontextmanager
    async def _turn(self, who: Principal) -> AsyncGenerator[None]:
        """Wait for a turn to read a long page. Raises ``Busy`` and ``CallerDisconnected``."""
        async with AsyncExitStack() as turn:
            try:
                async with unless_disconnected():
                    await turn.enter_async_context(self._turns.turn((who.app, who.key.number), TURN_TIMEOUT_S))
            except QueueTimeout as none:
                raise Busy(reason="waiting", retry_after=1) from none
            yield

    async def _longer(
        self, app: int, conversation: int, begun: Stretch, before: int | None, after: int | None, limit: int
    ) -> HistoryPage:
        if begun.messages:
            after = None if after is None else begun.messages[-1].id
            before = begun.messages[0].id if after is None else before
        rest = await self._store.history(
            app,
            conversation,
            before=before,
            after=after,
            limit=limit - len(begun.messages),
            size=self._max - begun.size,
            always_one=not begun.messages,
        )
        older, newer = (rest, begun) if after is None else (begun, rest)
        return HistoryPage(messages=(*older.messages, *newer.messages), next=rest.next)

    async def read_all(
        self, who: Principal, conversation: int, *, before: int | None, newest: int | None
    ) -> FullHistory:
        """All that was said, or the ``newest`` messages below id ``before``, however long they are."""
        limit = BATCH_MESSAGES if newest is None else newest
        begun = await self._store.history(
            who.app,
            conversation,
            before=before,
            after=0 if newest is None else None,
            limit=limit,
            size=self._free,
            always_one=False,
        )
        if begun.next is None or len(begun.messages) == newest:
            return FullHistory(first=begun.messages)
        if newest is None:
            behind = begun.messages[-1].id if begun.messages else 0
            return FullHistory(first=begun.messages, rest=self._pieces(who.app, conversation, behind, before, None))
        behind = await self._store.behind(who.app, conversation, before=before, limit=newest)
        pieces = self._pieces(who.app, conversation, behind, before, newest)
        return FullHistory(first=await anext(pieces, ()), rest=pieces)

    async def _pieces(
        self, app: int, conversation: int, behind: int, before: int | None, most: int | None
    ) -> AsyncGenerator[Sequence[Message], None]:
        """The messages above ``behind``, ``most`` of them, a piece at a time."""
        left = BATCH_MESSAGES if most is None else most
        while left:
            piece = await self._store.history(
                app, conversation, before=before, after=behind, limit=min(BATCH_MESSAGES, left), size=self._free
            )
            if not piece.messages:
                return
            behind = piece.messages[-1].id
            yield piece.messages
            if piece.next is None:
                return
            left -= 0 if most is None else len(piece.messages)
