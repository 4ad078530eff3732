"""Answers that are given once for one ``Idempotency-Key``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from palaver.core.ports import Answer, Claim, Claims, Store
from palaver.core.problems import Busy
from palaver.core.types import Principal

PATIENCE_S = 150.0
"""How long an equal call that still works is waited for; a picture takes up to 90 seconds."""
LOOK_EVERY = 0.1


class Answers:
    """Exactly once, whichever processes the equal calls reach, and whichever of them dies."""

    def __init__(self, store: Store, claims: Claims, *, worker: Callable[[], int], ttl: float) -> None:
        self._store = store
        self._claims = claims
        self._worker = worker
        self._ttl = ttl

    async def once(self, who: Principal, claim: Claim, work: Callable[[], Awaitable[Answer]]) -> tuple[Answer, bool]:
        """The answer, and whether an earlier call got it. What ``work`` raises leaves the key free."""
        user = await self._store.users.named(who.app, who.user or "")
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            begun = await self._claims.begin(who, user, claim, self._ttl, self._worker())
            if isinstance(begun, Answer):
                return begun, True
            if begun:
                break
            if asyncio.get_running_loop().time() > deadline:
                raise Busy(reason="waiting", retry_after=1)
            await asyncio.sleep(LOOK_EVERY)
        settled = False
        try:
            answer = await work()
            await self._claims.settle(who, user, claim, answer)
            settled = True
            return answer, False
        finally:
            if not settled:
                await self._claims.give_up(who, user, claim)
