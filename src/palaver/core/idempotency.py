"""Answers that are given once for one ``Idempotency-Key``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from palaver.core.disconnect import unless_disconnected
from palaver.core.ports.store import IdempotencyKey, IdempotencyRepository, Store, StoredResponse
from palaver.core.problems import Busy
from palaver.core.singleflight import Flight, SingleFlight
from palaver.core.types import Principal, User

TIMEOUT_S = 150.0
"""How long an equal call that still works is waited for; a picture takes up to 90 seconds."""
POLL_INTERVAL_S = 2.0
"""Seconds between two looks at a call that another process works on, beside those when that one says it is done."""


class Idempotency:
    """Exactly once, whichever processes the equal calls reach, and whichever of them dies. In a process one of them
    looks or works; the others wait for it, and are given what it got."""

    def __init__(self, store: Store, claims: IdempotencyRepository, *, worker: Callable[[], int], ttl: float) -> None:
        self._store = store
        self._claims = claims
        self._worker = worker
        self._ttl = ttl
        self._flights = SingleFlight[StoredResponse]()

    def wake(self, topic: str) -> None:
        """Another process is done with the claim of that topic; with all, perhaps, where it is empty."""
        for flight in self._flights.of(topic):
            flight.woken.set()

    async def run_once(
        self, who: Principal, claim: IdempotencyKey, work: Callable[[], Awaitable[StoredResponse]]
    ) -> tuple[StoredResponse, bool]:
        """The answer, and whether an earlier call got it. What ``work`` raises leaves the key free. Who works goes on
        when its caller leaves; who only waits raises ``CallerDisconnected``."""
        user = await self._store.users.named(who.app, who.user or "")
        async with self._flights.turn((claim.topic(who, user), claim.digest), TIMEOUT_S) as flight:
            if flight.result is None:
                flight.result = await self._earlier(who, user, claim, flight)
            if flight.result is not None:
                return flight.result, True
            flight.result = await self._work(who, user, claim, work)
            return flight.result, False

    async def _earlier(
        self, who: Principal, user: User, claim: IdempotencyKey, flight: Flight[StoredResponse]
    ) -> StoredResponse | None:
        """What an earlier call got, which may work in another process yet; ``None``: this one is the first."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TIMEOUT_S
        while loop.time() < deadline:
            flight.woken.clear()
            begun = await self._claims.begin(who, user, claim, self._ttl, self._worker())
            if begun is not False:
                return begun if isinstance(begun, StoredResponse) else None
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_INTERVAL_S), unless_disconnected():
                    await flight.woken.wait()
        raise Busy(reason="waiting", retry_after=1)

    async def _work(
        self, who: Principal, user: User, claim: IdempotencyKey, work: Callable[[], Awaitable[StoredResponse]]
    ) -> StoredResponse:
        settled = False
        try:
            answer = await work()
            await self._claims.settle(who, user, claim, answer)
            settled = True
            return answer
        finally:
            if not settled:
                await self._claims.abandon(who, user, claim)
