"""Credentials, and the master key that encrypts their secrets."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from palaver.core.admin.applications import get_optional_application, get_or_create_application
from palaver.core.admin.audit import AuditLog
from palaver.core.ports.admin import AdminStore, ApiKeyUsage, CredentialScheme
from palaver.core.problems import Conflict, Invalid, NotFound
from palaver.core.types import Agent, ApiKey, Application, Value, clean

MAX_TEXT = 255


class CredentialDetails(Value, frozen=True, kw_only=True):
    """A credential and its application. ``unknown_agents`` are names in its settings that no agent has."""

    application: Application
    key: ApiKey
    unknown_agents: tuple[str, ...] = ()


class ListedCredential(Value, frozen=True, kw_only=True):
    """A credential in a list, with its application's name and its usage."""

    application: str
    key: ApiKey
    use: ApiKeyUsage


class CredentialAdmin:
    """Changes take effect in running servers at once. ``schemes`` returns every dialect's; it may be slow."""

    def __init__(self, store: AdminStore, schemes: Callable[[], Sequence[CredentialScheme]], audit: AuditLog) -> None:
        self._store = store
        self._schemes = schemes
        self._audit = audit

    async def list_all(self, application: str | None = None) -> list[ListedCredential]:
        """Every credential, of one application or of all. Raises ``NotFound``."""
        keys = await self._store.keys.list_all(await get_optional_application(self._store.applications, application))
        uses = await self._store.keys.list_uses()
        return [
            ListedCredential(application=name, key=key, use=use)
            for name, key in keys
            if (use := uses.get((key.app, key.number))) is not None
        ]

    async def get(self, id: str, dialect: str | None = None) -> ApiKey:
        """A credential by its id. Raises ``NotFound``, and ``Conflict`` if several dialects have that id."""
        keys = [key for key in await self._store.keys.list_by_id(id) if dialect in {None, key.dialect}]
        if not keys:
            raise NotFound(noun="key", ref=id)
        if len(keys) > 1:
            names = " or ".join(key.dialect for key in keys)
            raise Conflict(reason="name", detail=f"several dialects have a credential {id!r}; specify {names}")
        return keys[0]

    async def create(
        self,
        application: str,
        dialect: str,
        settings: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        secret: str | None = None,
        label: str | None = None,
    ) -> CredentialDetails:
        """Create a credential, and its application if missing; an id and a secret are generated if not passed.

        Raises ``Invalid`` for a setting, id, secret or label that is not allowed, ``Conflict`` if the dialect already
        has a credential with that id or secret.
        """
        entry = self._audit.record(
            "key create", application=application, dialect=dialect, settings=settings, id=id, label=label
        )
        async with entry:
            scheme = self._scheme(dialect)
            stored = scheme.read_settings(settings or {})
            enabled = stored.pop("enabled", True)
            new_id, new_secret = scheme.new_credential(secrets.token_bytes(32))
            new_id = new_id if id is None else _checked("id", id)
            new_secret = new_secret if secret is None else _checked("secret", secret)
            checked_label = _checked_label(label or "")
            owner = await get_or_create_application(self._store.applications, application)
            key = await self._store.keys.create(
                owner, dialect, new_id, new_secret, stored, enabled=enabled, label=checked_label
            )
            return await self._details(key)

    async def update(
        self,
        id: str,
        settings: Mapping[str, Any] | None = None,
        *,
        unset: Sequence[str] = (),
        label: str | None = None,
        dialect: str | None = None,
    ) -> CredentialDetails:
        """Change some settings and remove those named by ``unset``; others are unchanged. Raises ``NotFound``,
        ``Conflict``, and ``Invalid`` for an unknown setting or a value out of range."""
        entry = self._audit.record("key set", id=id, dialect=dialect, settings=settings, unset=list(unset), label=label)
        async with entry:
            key = await self.get(id, dialect)
            scheme = self._scheme(key.dialect)
            if unknown := sorted(set(unset) - scheme.settings):
                scheme.read_settings(dict.fromkeys(unknown))
            changed = {**key.settings, **scheme.read_settings(settings or {})}
            enabled = changed.pop("enabled", key.enabled) if "enabled" not in unset else True
            kept = {name: value for name, value in changed.items() if name not in unset}
            key = await self._store.keys.update(
                key, kept, enabled=enabled, label=key.label if label is None else _checked_label(label)
            )
            return await self._details(key)

    async def enable(self, id: str, dialect: str | None = None) -> CredentialDetails:
        """Enable a disabled credential. Raises ``NotFound`` and ``Conflict``."""
        async with self._audit.record("key enable", id=id, dialect=dialect):
            return await self._switch(id, dialect, enabled=True)

    async def disable(self, id: str, dialect: str | None = None) -> CredentialDetails:
        """Disable a credential: every call with it is rejected. Raises ``NotFound`` and ``Conflict``."""
        async with self._audit.record("key disable", id=id, dialect=dialect):
            return await self._switch(id, dialect, enabled=False)

    async def rotate(self, id: str, dialect: str | None = None, *, overlap_s: int = 0) -> CredentialDetails:
        """Generate a new secret; the old one stays valid for ``overlap_s`` seconds. Raises ``NotFound`` and
        ``Conflict``."""
        async with self._audit.record("key rotate", id=id, dialect=dialect, overlap=overlap_s):
            key = await self.get(id, dialect)
            _, secret = self._scheme(key.dialect).new_credential(secrets.token_bytes(32))
            return await self._details(await self._store.keys.rotate(key, secret, overlap_s=overlap_s))

    async def delete(self, id: str, dialect: str | None = None) -> ApiKey:
        """Delete a credential permanently. Raises ``NotFound`` and ``Conflict``."""
        async with self._audit.record("key delete", id=id, dialect=dialect):
            key = await self.get(id, dialect)
            await self._store.keys.delete(key)
            return key

    async def rotate_master_key(self, master: bytes) -> int:
        """Re-encrypt every stored secret with another master key of 32 bytes. Returns the number of credentials. Raises
        ``Conflict`` if the key has been changed meanwhile."""
        async with self._audit.record("key rotate-master"):
            return await self._store.rotate_master_key(master)

    async def _switch(self, id: str, dialect: str | None, *, enabled: bool) -> CredentialDetails:
        key = await self.get(id, dialect)
        changed = await self._store.keys.set_enabled(key.id, enabled=enabled, dialect=key.dialect)
        if not changed:  # deleted meanwhile
            raise NotFound(noun="key", ref=id)
        return await self._details(changed[0])

    async def _details(self, key: ApiKey) -> CredentialDetails:
        owner = next(one for one in await self._store.applications.list_all() if one.id == key.app)
        agents = [agent for _, agent in await self._store.agents.list_all(owner)]
        return CredentialDetails(application=owner, key=key, unknown_agents=tuple(unknown_agents(key, agents)))

    def _scheme(self, dialect: str) -> CredentialScheme:
        schemes = {scheme.dialect: scheme for scheme in self._schemes()}
        if dialect not in schemes:
            detail = f"there is no dialect {dialect!r}; choose one of: {', '.join(schemes)}"
            raise Invalid(field="dialect", rule="choice", detail=detail)
        return schemes[dialect]


def unknown_agents(key: ApiKey, agents: Sequence[Agent]) -> list[str]:
    """The entries of the credential's ``agents`` and ``agent`` settings that identify none of ``agents``."""
    allowed: list[Any] = key.settings.get("agents") or []
    single = key.settings.get("agent")
    names = [str(entry) for entry in (allowed if single is None else [*allowed, single])]
    return [name for name in names if not any(name in agent.identifiers for agent in agents)]


def _checked(field: str, text: str) -> str:
    text = text.strip()
    if not text or len(text) > MAX_TEXT or not text.isprintable():
        raise Invalid(field=field, rule="length", detail=f"must be 1 to {MAX_TEXT} printable characters")
    return text


def _checked_label(text: str) -> str:
    label = clean(text).strip()
    if len(label) > MAX_TEXT or not label.isprintable():
        raise Invalid(field="label", rule="length", detail=f"must be at most {MAX_TEXT} printable characters")
    return label
