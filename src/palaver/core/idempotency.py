"""Calls that are executed at most once per ``Idempotency-Key``; later identical calls receive the stored response."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from palaver.core.disconnect import cancel_on_disconnect
from palaver.core.ports.store import IdempotencyKey, IdempotencyRepository, Store, StoredResponse
from palaver.core.problems import Busy
from palaver.core.singleflight import Flight, SingleFlight
from palaver.core.types import Principal, User

TIMEOUT_S = 150.0
"""Seconds to wait for an identical call in progress; generating an image takes up to 90 seconds."""
POLL_INTERVAL_S = 2.0
"""Seconds between polls for an identical call in another process, in addition to its notification."""


class Idempotency:
    """Exactly-once execution, across processes and despite crashes. Within a process, one of the identical calls polls
    or executes; the others wait and receive its response."""

    def __init__(
        self, store: Store, repository: IdempotencyRepository, *, worker: Callable[[], int], ttl_s: float
    ) -> None:
        self._store = store
        self._repository = repository
        self._worker = worker
        self._ttl = ttl_s
        self._flights = SingleFlight[StoredResponse]()

    def wake(self, topic: str) -> None:
        """Another process has finished the call of that topic; an empty topic wakes all."""
        for flight in self._flights.matching(topic):
            flight.woken.set()

    async def run_once(
        self, principal: Principal, key: IdempotencyKey, work: Callable[[], Awaitable[StoredResponse]]
    ) -> tuple[StoredResponse, bool]:
        """The response, and whether it is a replay. An exception from ``work`` releases the key. If the caller
        disconnects, the executing call continues; a waiting one raises ``CallerDisconnected``. Raises ``Conflict``
        for a different request under the same key, and ``Busy`` after ``TIMEOUT_S``."""
        user = await self._store.users.get_or_create(principal.app, principal.user or "")
        async with self._flights.acquire((key.topic(principal, user), key.digest), TIMEOUT_S) as flight:
            if flight.result is None:
                flight.result = await self._find_response(principal, user, key, flight)
            if flight.result is not None:
                return flight.result, True
            flight.result = await self._execute(principal, user, key, work)
            return flight.result, False

    async def _find_response(
        self, principal: Principal, user: User, claim: IdempotencyKey, flight: Flight[StoredResponse]
    ) -> StoredResponse | None:
        """The response of an earlier identical call, possibly still in progress in another process. ``None``: this call
        is the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIMEOUT_S
        while loop.time() < deadline:
            flight.woken.clear()
            result = await self._repository.begin(principal, user, claim, self._ttl, self._worker())
            if result is not False:
                return result if isinstance(result, StoredResponse) else None
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL_S), cancel_on_disconnect():
                    await flight.woken.wait()
        raise Busy(reason="waiting", retry_after=1)

    async def _execute(
        self, principal: Principal, user: User, claim: IdempotencyKey, work: Callable[[], Awaitable[StoredResponse]]
    ) -> StoredResponse:
        settled = False
        try:
            response = await work()
            await self._repository.complete(principal, user, claim, response)
            settled = True
            return response
        finally:
            if not settled:
                await self._repository.release(principal, user, claim)
