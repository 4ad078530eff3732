"""May this call happen: whose key it is, and what the key has left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from palaver.core.ports.store import AdmittedCalls, ApiKeyRepository, TokenRepository, UsageRepository
from palaver.core.problems import Busy, Problem, Unauthenticated
from palaver.core.types import NONCE_S, ApiKey, Principal, Token

LIMITS = ("rpm", "rpd", "total")
"""Settings of a credential that make its calls be counted."""


@dataclass(slots=True)
class _Waiting:
    """Calls of one key that came while its row was being counted: they are counted together next."""

    calls: list[asyncio.Future[None]] = field(default_factory=list["asyncio.Future[None]"])
    task: asyncio.Task[None] | None = None


class Admission:
    """Looks keys up and counts their calls. A busy key costs one statement at a time, however many calls it makes."""

    def __init__(self, keys: ApiKeyRepository, usages: UsageRepository, tokens: TokenRepository) -> None:
        self._keys = keys
        self._usages = usages
        self._tokens = tokens
        self._waiting: dict[tuple[int, int], _Waiting] = {}

    async def key(self, dialect: str, *, id: str | None, secret: str | None) -> ApiKey | None:
        """The credential with that id, or (where the secret is all a caller sends) with that secret."""
        if id is not None:
            return await self._keys.by_id(dialect, id)
        return None if secret is None else await self._keys.by_secret(dialect, secret)

    async def token(self, secret: str, *, signed: bool = False) -> Token | None:
        """The unexpired access token of that text, or the signed one that the text is."""
        return await (self._tokens.signed(secret) if signed else self._tokens.find(secret, "access"))

    async def key_of(self, token: Token, dialect: str) -> ApiKey | None:
        """The credential the token stands for, where that is one of the dialect's."""
        key = await self._keys.by_number(token.app, token.credential)
        return key if key is not None and key.dialect == dialect else None

    async def first_time(self, who: Principal) -> None:
        """Raises ``Unauthenticated(reason="repeated")`` for a request id that the key has used just now."""
        if who.nonce is not None and not await self._usages.first_time(who.key, who.nonce, NONCE_S):
            raise Unauthenticated(reason="repeated", subject=who.nonce)

    async def count(self, key: ApiKey) -> None:
        """Count one call. Raises ``Busy(reason="rate" | "day" | "usage")`` for one that a limit refuses."""
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
        """The call that was counted is not to be charged after all."""
        if key.setting("total") is not None:
            await self._usages.refund(key)

    async def _count(self, key: ApiKey, waiting: _Waiting) -> None:
        while calls := waiting.calls:
            waiting.calls = []
            try:
                counted = await self._usages.count(key, len(calls))
            except Problem as problem:
                for call in calls:
                    if not call.done():
                        call.set_exception(problem)
                continue
            _answer(calls, counted)
        del self._waiting[key.app, key.number]


def _answer(calls: list[asyncio.Future[None]], counted: AdmittedCalls) -> None:
    admitted = min(counted.by_rate, counted.by_day, counted.by_total)
    for number, call in enumerate(calls):
        if call.done():  # its caller went away
            continue
        if number < admitted:
            call.set_result(None)
        elif counted.by_rate <= number:
            call.set_exception(Busy(reason="rate", retry_after=counted.wait))
        elif counted.by_day <= number:
            call.set_exception(Busy(reason="day", retry_after=counted.wait_day))
        else:
            call.set_exception(Busy(reason="usage"))
