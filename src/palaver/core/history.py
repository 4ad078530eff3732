"""Reading messages: one page, limited in number and bytes, or all messages in batches.

Ordinary pages are short and are read without waiting. Long pages are read one at a time per credential, and few at a
time in total, which bounds their memory use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from palaver.core.disconnect import cancel_on_disconnect
from palaver.core.fair_semaphore import FairSemaphore, QueueTimeout
from palaver.core.ports.store import ConversationRepository, MessagePage
from palaver.core.problems import Busy
from palaver.core.types import Message, Principal

SMALL_PAGE_BYTES = 262_144
"""Bytes of messages that every call may read without queueing."""
BATCH_MESSAGES = 200
"""Messages per batch when a whole conversation is read."""
MAX_CONCURRENT_LONG_READS = 2
"""Number of long pages read concurrently."""
TURN_TIMEOUT_S = 30.0
"""Seconds after which a queued call is rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Messages, oldest first. ``next`` is the uid of the following message in the query's direction, if any."""

    messages: Sequence[Message]
    next: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FullHistory:
    """Messages, oldest first: a ``first`` batch, and the ``rest``, loaded lazily (``None``: there are no more)."""

    first: Sequence[Message]
    rest: AsyncGenerator[Sequence[Message], None] | None = None


class History:
    """Reads the messages of conversations. Callers check permission first."""

    def __init__(self, store: ConversationRepository, *, max_page_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_page_bytes
        self._small_bytes = min(SMALL_PAGE_BYTES, max_page_bytes)
        self._long_reads = FairSemaphore(MAX_CONCURRENT_LONG_READS, 1, per_application=MAX_CONCURRENT_LONG_READS)

    @asynccontextmanager
    async def page(
        self, principal: Principal, conversation_id: int, *, before: int | None, after: int | None, limit: int
    ) -> AsyncGenerator[HistoryPage]:
        """The newest ``limit`` messages (below id ``before``), or the first ones above ``after``: fewer if they are
        long, but at least one. The block holds the slot of a long page: leave it once the page is encoded. Raises
        ``Busy`` and ``CallerDisconnected`` while queued."""
        start = await self._store.get_messages(
            principal.app,
            conversation_id,
            before=before,
            after=after,
            limit=limit,
            max_bytes=self._small_bytes,
            always_one=False,
        )
        if start.next is None or len(start.messages) == limit:
            yield HistoryPage(messages=start.messages, next=start.next)
            return
        async with self._long_read(principal):
            yield await self._long_page(principal.app, conversation_id, start, before, after, limit)

    @asynccontextmanager
    async def _long_read(self, principal: Principal) -> AsyncGenerator[None]:
        """Wait for a turn to read a long page. Raises ``Busy`` and ``CallerDisconnected``."""
        async with AsyncExitStack() as stack:
            try:
                async with cancel_on_disconnect():
                    await stack.enter_async_context(
                        self._long_reads.slot((principal.app, principal.key.number), TURN_TIMEOUT_S)
                    )
            except QueueTimeout as error:
                raise Busy(reason="waiting", retry_after=1) from error
            yield

    async def _long_page(
        self, app_id: int, conversation_id: int, start: MessagePage, before: int | None, after: int | None, limit: int
    ) -> HistoryPage:
        if start.messages:
            after = None if after is None else start.messages[-1].id
            before = start.messages[0].id if after is None else before
        rest = await self._store.get_messages(
            app_id,
            conversation_id,
            before=before,
            after=after,
            limit=limit - len(start.messages),
            max_bytes=self._max_bytes - start.size,
            always_one=not start.messages,
        )
        older, newer = (rest, start) if after is None else (start, rest)
        return HistoryPage(messages=(*older.messages, *newer.messages), next=rest.next)

    async def full_history(
        self, principal: Principal, conversation_id: int, *, before: int | None, newest: int | None
    ) -> FullHistory:
        """All messages, or the ``newest`` ones below id ``before``, regardless of their length."""
        limit = BATCH_MESSAGES if newest is None else newest
        start = await self._store.get_messages(
            principal.app,
            conversation_id,
            before=before,
            after=0 if newest is None else None,
            limit=limit,
            max_bytes=self._small_bytes,
            always_one=False,
        )
        if start.next is None or len(start.messages) == newest:
            return FullHistory(first=start.messages)
        if newest is None:
            after = start.messages[-1].id if start.messages else 0
            return FullHistory(
                first=start.messages, rest=self._batches(principal.app, conversation_id, after, before, None)
            )
        after = await self._store.find_message_id_before_newest(
            principal.app, conversation_id, before=before, limit=newest
        )
        batches = self._batches(principal.app, conversation_id, after, before, newest)
        return FullHistory(first=await anext(batches, ()), rest=batches)

    async def _batches(
        self, app_id: int, conversation_id: int, after: int, before: int | None, limit: int | None
    ) -> AsyncGenerator[Sequence[Message], None]:
        """The messages above id ``after``, at most ``limit`` of them, in batches."""
        left = BATCH_MESSAGES if limit is None else limit
        while left:
            batch = await self._store.get_messages(
                app_id,
                conversation_id,
                before=before,
                after=after,
                limit=min(BATCH_MESSAGES, left),
                max_bytes=self._small_bytes,
            )
            if not batch.messages:
                return
            after = batch.messages[-1].id
            yield batch.messages
            if batch.next is None:
                return
            left -= 0 if limit is None else len(batch.messages)
