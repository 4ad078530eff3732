"""Admission: looking up credentials, and enforcing their rate limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from palaver.core.ports.store import AdmittedCalls, ApiKeyRepository, RateLimitRepository, TokenRepository
from palaver.core.problems import Busy, Problem, Unauthenticated
from palaver.core.types import NONCE_S, ApiKey, Principal, Token

LIMITS = ("rpm", "rpd", "total")
"""The credential settings that require its calls to be counted."""


@dataclass(slots=True)
class _Waiting:
    """Calls of one key that arrived while its row was being updated; they are counted together next."""

    calls: list[asyncio.Future[None]] = field(default_factory=list["asyncio.Future[None]"])
    task: asyncio.Task[None] | None = None


class Admission:
    """Looks up keys and counts their calls. Concurrent calls of one key are batched into one statement at a time."""

    def __init__(self, keys: ApiKeyRepository, usages: RateLimitRepository, tokens: TokenRepository) -> None:
        self._keys = keys
        self._usages = usages
        self._tokens = tokens
        self._waiting: dict[tuple[int, int], _Waiting] = {}

    async def key(self, dialect: str, *, id: str | None, secret: str | None) -> ApiKey | None:
        """The credential with that id or, if only a secret is sent, with that secret."""
        if id is not None:
            return await self._keys.by_id(dialect, id)
        return None if secret is None else await self._keys.by_secret(dialect, secret)

    async def token(self, secret: str, *, signed: bool = False) -> Token | None:
        """The unexpired access token for that text: a stored one or, with ``signed``, a signed one."""
        return await (self._tokens.signed(secret) if signed else self._tokens.find(secret, "access"))

    async def key_of(self, token: Token, dialect: str) -> ApiKey | None:
        """The credential that the token was issued for, if it belongs to the dialect."""
        key = await self._keys.by_number(token.app, token.credential)
        return key if key is not None and key.dialect == dialect else None

    async def reject_replay(self, who: Principal) -> None:
        """Raises ``Unauthenticated(reason="repeated")`` if the key used the request id within ``NONCE_S`` seconds."""
        if who.nonce is not None and not await self._usages.claim_nonce(who.key, who.nonce, NONCE_S):
            raise Unauthenticated(reason="repeated", subject=who.nonce)

    async def charge(self, key: ApiKey) -> None:
        """Count one call. Raises ``Busy(reason="rate" | "day" | "usage")`` if it exceeds a limit."""
        if all(key.setting(limit) is None for limit in LIMITS):
            self._keys.note_use(key)
            return
        name = (key.app, key.number)
        waiting = self._waiting.setdefault(name, _Waiting())
        call = asyncio.get_running_loop().create_future()
        waiting.calls.append(call)
        if waiting.task is None:
            waiting.task = asyncio.create_task(self._count(key, waiting))
        await call
        self._keys.note_use(key)

    async def refund(self, key: ApiKey) -> None:
        """Refund a counted call."""
        if key.setting("total") is not None:
            await self._usages.refund(key)

    async def _count(self, key: ApiKey, waiting: _Waiting) -> None:
        while calls := waiting.calls:
            waiting.calls = []
            try:
                admitted = await self._usages.count(key, len(calls))
            except Problem as problem:
                for call in calls:
                    if not call.done():
                        call.set_exception(problem)
                continue
            _resolve(calls, admitted)
        del self._waiting[key.app, key.number]


def _resolve(calls: list[asyncio.Future[None]], admitted: AdmittedCalls) -> None:
    limit = min(admitted.by_rate, admitted.by_day, admitted.by_total)
    for number, call in enumerate(calls):
        if call.done():  # its caller disconnected
            continue
        if number < limit:
            call.set_result(None)
        elif admitted.by_rate <= number:
            call.set_exception(Busy(reason="rate", retry_after=admitted.wait))
        elif admitted.by_day <= number:
            call.set_exception(Busy(reason="day", retry_after=admitted.wait_day))
        else:
            call.set_exception(Busy(reason="usage"))
