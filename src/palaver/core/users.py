"""End users and their profiles, subscriptions and tokens."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from palaver.core.admit import Admission
from palaver.core.ports.store import ApiKeyRepository, Store
from palaver.core.problems import NotFound, Unauthenticated
from palaver.core.types import Agent, ApiKey, Principal, Ref, Token, User, clean, new_uid


class Users:
    """The use cases for end users."""

    def __init__(self, store: Store, keys: ApiKeyRepository, admission: Admission) -> None:
        self._store = store
        self._keys = keys
        self._admission = admission

    async def get(self, principal: Principal, ref: Ref) -> User:
        """An end user by id, issued uid or name. Raises ``NotFound``."""
        user = await self._store.users.find(principal.app, ref)
        if user is None:
            raise NotFound(noun="user", ref=str(ref))
        return user

    async def register(
        self, principal: Principal, name: str | None, *, nickname: str | None = None, avatar: str | None = None
    ) -> tuple[User, bool]:
        """Create the end user or update its profile; without a ``name``, always create one. Returns the end user, and
        whether it was created."""
        return await self._store.users.register(
            principal.app,
            None if name is None else clean(name),
            None if nickname is None else clean(nickname),
            None if avatar is None else clean(avatar),
        )

    async def set_subscribed(self, principal: Principal, user: User, agent: Agent, *, on: bool) -> None:
        await self._store.users.set_subscribed(principal.app, user.id, agent.id, subscribed=on)

    async def subscriptions(self, principal: Principal, user: User) -> set[int]:
        """The ids of the agents that the user has subscribed to."""
        return await self._store.users.list_subscriptions(principal.app, user.id)

    async def issue_token(
        self,
        key: ApiKey,
        kind: Literal["access", "refresh", "code"],
        user: str,
        scopes: tuple[str, ...],
        *,
        life_s: float,
        prefix: str = "",
        redirect: str | None = None,
        under: tuple[Token, str] | None = None,
    ) -> str:
        """Issue a token for the user, valid for ``life_s`` seconds. Returns its text, which cannot be retrieved again.
        ``under`` is the parent token and its text; raises ``Unauthenticated`` if that has been revoked."""
        secret = prefix + secrets.token_urlsafe(32)
        token = _token(key, kind, user, scopes, life_s, redirect=redirect, family=under[0].family if under else None)
        if not await self._store.tokens.issue(token, secret, parent=under[1] if under else None):
            raise Unauthenticated(reason="expired")
        return secret

    def sign_token(
        self, key: ApiKey, kind: Literal["file"], user: str, scopes: tuple[str, ...], *, life_s: float
    ) -> str:
        """A signed token that is not stored, for pages with many URLs."""
        return self._store.tokens.sign(_token(key, kind, user, scopes, life_s))

    async def find_token(self, secret: str, kind: Literal["access", "refresh"]) -> Token | None:
        """An unexpired token by its text, or ``None``."""
        return await self._store.tokens.find(secret, kind)

    async def redeem_code(self, secret: str, *, remember_s: float) -> Token | None:
        """Redeem a single-use code. A second use within ``remember_s`` seconds revokes the tokens issued for it."""
        return await self._store.tokens.redeem(secret, "code", remember_s=remember_s)

    async def key(self, dialect: str, id: str) -> ApiKey | None:
        """A credential by its id, for routes that authenticate callers by the request body."""
        return await self._keys.get_by_id(dialect, id)

    async def charge(self, key: ApiKey) -> None:
        """Count the call against the limits of a credential that the route itself has looked up. Raises ``Busy``."""
        await self._admission.charge(key)

    async def keys_with_setting(self, dialect: str, setting: str) -> list[ApiKey]:
        """The enabled credentials of a dialect for which a setting is true."""
        return await self._keys.list_with_setting(dialect, setting)

    async def key_of_token(self, token: Token) -> ApiKey | None:
        return await self._keys.get_by_number(token.app, token.credential)


def _token(
    key: ApiKey,
    kind: Literal["access", "refresh", "code", "file"],
    user: str,
    scopes: tuple[str, ...],
    life_s: float,
    *,
    redirect: str | None = None,
    family: UUID | None = None,
) -> Token:
    return Token(
        app=key.app,
        credential=key.number,
        generation=key.generation,
        family=family or new_uid(),
        kind=kind,
        user=clean(user),
        scopes=scopes,
        redirect=redirect,
        expires=datetime.now(UTC) + timedelta(seconds=life_s),
    )
