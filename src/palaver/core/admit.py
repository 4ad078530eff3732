"""Admission: authenticates the caller and enforces the credential's rate limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from palaver.core.ports.store import AdmittedCalls, ApiKeyRepository, RateLimitRepository, TokenRepository
from palaver.core.problems import Busy, Problem, Unauthenticated
from palaver.core.types import ANONYMOUS, NONCE_S, ApiKey, Principal, Token

LIMITS = ("rpm", "rpd", "total")
"""The credential settings that require its calls to be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialClaim:
    """The credential that a caller claims: by its id, by its secret (if nothing else is sent), or by an access token
    issued for it. A token sent together with an id is looked up too. ``signed``: the token is signed, not stored."""

    id: str | None = None
    secret: str | None = None
    token: str | None = None
    signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The outcome of admission: the caller, or the ``problem`` for which the call is refused. ``key`` is the claimed
    credential, ``None`` if there is none; it is unverified if there is a problem."""

    key: ApiKey | None = None
    principal: Principal = ANONYMOUS
    problem: Problem | None = None


Verify = Callable[[ApiKey | None, Token | None], Awaitable[Principal]]
"""Authenticates the caller; key and token are ``None`` if none matches the claim. Raises ``Unauthenticated``."""


@dataclass(slots=True)
class _Waiting:
    """Calls of one credential that arrived while its row was being updated; they are counted together next."""

    calls: list[asyncio.Future[None]] = field(default_factory=list["asyncio.Future[None]"])
    task: asyncio.Task[None] | None = None


class Admission:
    """Admits calls and counts them. Concurrent calls of one credential are batched into one statement at a time."""

    def __init__(self, keys: ApiKeyRepository, usages: RateLimitRepository, tokens: TokenRepository) -> None:
        self._keys = keys
        self._usages = usages
        self._tokens = tokens
        self._waiting: dict[tuple[int, int], _Waiting] = {}

    async def admit(self, dialect: str, claim: CredentialClaim, verify: Verify) -> Admitted:
        """Look up the claimed credential of the dialect, ``verify`` the caller, reject a repeated request id, and count
        the call against the credential's limits."""
        key = None
        try:
            key, token = await self._look_up(dialect, claim)
            principal = await verify(key, token)
            await self.reject_replay(principal)
            await self.charge(principal.key)
        except Problem as problem:
            return Admitted(key=key, problem=problem)
        return Admitted(key=key, principal=principal)

    async def _look_up(self, dialect: str, claim: CredentialClaim) -> tuple[ApiKey | None, Token | None]:
        """The claimed credential and the claimed, unexpired token."""
        token = None if claim.token is None else await self._token(claim.token, signed=claim.signed)
        if claim.id is not None:
            return await self._keys.get_by_id(dialect, claim.id), token
        if claim.secret is not None:
            return await self._keys.get_by_secret(dialect, claim.secret), token
        key = None if token is None else await self._keys.get_by_number(token.app, token.credential)
        return key if key is not None and key.dialect == dialect else None, token

    async def _token(self, secret: str, *, signed: bool) -> Token | None:
        return await (self._tokens.verify(secret) if signed else self._tokens.find(secret, "access"))

    async def reject_replay(self, principal: Principal) -> None:
        """Raises ``Unauthenticated(reason="repeated")`` for a request id used within the last ``NONCE_S`` seconds."""
        if principal.nonce is not None and not await self._usages.claim_nonce(principal.key, principal.nonce, NONCE_S):
            raise Unauthenticated(reason="repeated", subject=principal.nonce)

    async def charge(self, key: ApiKey) -> None:
        """Count one call. Raises ``Busy(reason="rate" | "day" | "usage")`` if it exceeds a limit."""
        if all(key.setting(limit) is None for limit in LIMITS):
            self._keys.record_use(key)
            return
        name = (key.app, key.number)
        waiting = self._waiting.setdefault(name, _Waiting())
        call = asyncio.get_running_loop().create_future()
        waiting.calls.append(call)
        if waiting.task is None:
            waiting.task = asyncio.create_task(self._count(key, waiting))
        await call
        self._keys.record_use(key)

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
            call.set_exception(Busy(reason="rate", retry_after=admitted.wait_s))
        elif admitted.by_day <= number:
            call.set_exception(Busy(reason="day", retry_after=admitted.wait_day_s))
        else:
            call.set_exception(Busy(reason="usage"))
