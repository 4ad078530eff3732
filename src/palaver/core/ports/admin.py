"""The ports for operators: what ``core.admin`` stores, and what else it needs from outside.

``Store`` in ``ports/store.py`` is the part of the database that serves callers; this is the part that serves operators.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import UUID

from palaver.core.types import Agent, AgentSpec, ApiKey, Application, Ref, StoredFile, User, Value


class ApiKeyUsage(Value, frozen=True, kw_only=True):
    """Usage of a credential. ``calls`` counts admitted calls."""

    created: datetime
    calls: int
    last_used: datetime | None


class AuditEntry(Value, frozen=True, kw_only=True):
    """One change. ``outcome``: ``done``, ``failed: …``, or ``None`` while it is in progress or if it was killed."""

    id: int
    at: datetime
    actor: str
    action: str
    application: str | None
    arguments: dict[str, Any]
    outcome: str | None


class KnowledgeBase(Value, frozen=True, kw_only=True):
    """A knowledge base and its size."""

    app: int
    id: int
    uid: UUID
    name: str
    documents: int
    passages: int
    created: datetime
    modified: datetime


class Document(Value, frozen=True, kw_only=True):
    """A document of a knowledge base, identified by its folder (``root``) and its ``source``, the path below it."""

    id: int
    uid: UUID
    source: str
    root: str
    title: str
    kind: str
    digest: bytes
    passages: int
    created: datetime
    modified: datetime


# Repositories -------------------------------------------------------------------------------------------------------


class ApplicationRepository(Protocol):
    async def get_or_create(self, name: str) -> Application:
        """The application of that name, created if missing."""
        ...

    async def get(self, name: str) -> Application | None: ...

    async def list_all(self) -> list[Application]:
        """Every application, by name."""
        ...

    async def delete(self, name: str) -> bool:
        """Delete the application with everything it owns. Returns whether it existed."""
        ...


class CredentialRepository(Protocol):
    """Every change takes effect in all processes at once."""

    async def create(
        self,
        app: Application,
        dialect: str,
        id: str,
        secret: str,
        settings: Mapping[str, Any],
        *,
        enabled: bool = True,
        label: str = "",
    ) -> ApiKey:
        """Raises ``Conflict(reason="name")`` if the dialect already has a credential with that id or secret."""
        ...

    async def list_all(self, app: Application | None = None) -> list[tuple[str, ApiKey]]:
        """Every credential, each with its application's name."""
        ...

    async def list_uses(self) -> dict[tuple[int, int], ApiKeyUsage]:
        """The usage of every credential, by its application's id and its own number."""
        ...

    async def list_by_id(self, id: str) -> list[ApiKey]:
        """The credentials with that id, at most one per dialect."""
        ...

    async def set_enabled(self, id: str, *, enabled: bool, dialect: str | None = None) -> list[ApiKey]:
        """Enable or disable the credentials with that id."""
        ...

    async def update(self, key: ApiKey, settings: Mapping[str, Any], *, enabled: bool, label: str) -> ApiKey:
        """Replace the settings and the label. Raises ``NotFound``."""
        ...

    async def rotate(self, key: ApiKey, secret: str, *, overlap_s: float = 0) -> ApiKey:
        """Replace the secret; the old one stays valid for ``overlap_s`` seconds. Raises ``NotFound``."""
        ...

    async def delete(self, key: ApiKey) -> None: ...


class AgentSpecRepository(Protocol):
    async def find(self, app: Application, ref: str) -> Agent | None:
        """The agent with that name, id, uid or alias, or ``None``."""
        ...

    async def upsert_all(self, app: Application, specs: Sequence[AgentSpec]) -> list[Agent]:
        """Create or replace the agents of these names, all or none. Raises ``Conflict(reason="name")`` if another agent
        has one of their aliases."""
        ...

    async def list_all(self, app: Application | None = None) -> list[tuple[str, Agent]]:
        """Every agent, each with its application's name."""
        ...

    async def delete(self, agent: Agent) -> None:
        """Delete the agent with its conversations."""
        ...


class KnowledgeBaseRepository(Protocol):
    async def get(self, app_id: int, ref: Ref) -> KnowledgeBase | None:
        """The knowledge base with that name, id or uid, or ``None``."""
        ...

    async def list_bases(self, app_id: int) -> list[KnowledgeBase]:
        """Every knowledge base of the application, by name."""
        ...

    async def list_documents(self, app_id: int, base: int) -> list[Document]:
        """The documents of the knowledge base, by source and folder."""
        ...

    async def delete_documents(self, app_id: int, base: int, documents: Sequence[tuple[str, str]]) -> list[str]:
        """Delete documents, each a (folder, source). Returns the sources of those that existed."""
        ...

    async def delete(self, app_id: int, base: int) -> bool:
        """Delete the knowledge base with its documents. Returns whether it existed."""
        ...


class UserDataRepository(Protocol):
    async def delete(self, app_id: int, user: User | None) -> dict[str, int]:
        """Delete an end user with all data; live runs are stopped. Returns the number of deleted rows by kind."""
        ...

    def export(self, app_id: int, user: User) -> AsyncGenerator[dict[str, Any]]:
        """All data stored about an end user, one object at a time, each with its ``type``."""
        ...


class UserLookup(Protocol):
    async def find(self, app_id: int, ref: Ref) -> User | None:
        """The end user with that id, issued uid or name, or ``None``."""
        ...


class FileContents(Protocol):
    async def get(self, app_id: int, key: str) -> StoredFile | None: ...

    async def content(self, file: StoredFile, *, start: int = 0, length: int | None = None) -> bytes: ...


class AuditRepository(Protocol):
    async def begin(self, *, actor: str, action: str, application: str | None, arguments: Mapping[str, Any]) -> int:
        """Record the start of a change. Returns the entry's id."""
        ...

    async def end(self, entry_id: int, outcome: str) -> None:
        """Record the outcome of the change with that id."""
        ...

    async def list_newest(self, limit: int, *, application: str | None = None) -> list[AuditEntry]:
        """The last ``limit`` changes, oldest first."""
        ...


class AdminStore(Protocol):
    """The repositories that ``core.admin`` uses."""

    @property
    def applications(self) -> ApplicationRepository: ...

    @property
    def keys(self) -> CredentialRepository: ...

    @property
    def agents(self) -> AgentSpecRepository: ...

    @property
    def knowledge(self) -> KnowledgeBaseRepository: ...

    @property
    def users(self) -> UserLookup: ...

    @property
    def files(self) -> FileContents: ...

    @property
    def user_data(self) -> UserDataRepository: ...

    @property
    def audit(self) -> AuditRepository: ...

    async def rotate_master_key(self, master: bytes) -> int:
        """Re-encrypt every stored secret with another master key. Returns the number of credentials. Raises
        ``Conflict`` if the key has been changed meanwhile."""
        ...


# Credentials of a dialect -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialScheme:
    """How one dialect's credentials are made and configured."""

    dialect: str
    settings: frozenset[str]
    """The names of the available settings."""
    new_credential: Callable[[bytes], tuple[str, str]]
    """(id, secret) of a new credential, derived from 32 random bytes."""
    read_settings: Callable[[Mapping[str, Any]], dict[str, Any]]
    """Settings in stored form. Raises ``Invalid`` for an unknown setting or a value out of range."""


# Documents into a knowledge base ------------------------------------------------------------------------------------


FileOutcome = Literal["added", "replaced", "unchanged", "skipped"]


class SkippedFile(Value, frozen=True, kw_only=True):
    """A file or folder that was not read. ``reason`` is human-readable; ``folder``: it is a folder."""

    name: str
    reason: str
    root: str = ""
    folder: bool = False


class IngestProgress(Value, frozen=True, kw_only=True):
    """One more file is done: the ``done``-th of ``total``. ``reason`` says why it was skipped."""

    done: int
    total: int
    name: str
    outcome: FileOutcome
    reason: str = ""


class IngestReport(Value, frozen=True, kw_only=True):
    """The sources of the files, by outcome. ``passages`` is the number of passages written."""

    base: int
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()
    passages: int = 0


class Ingest(Protocol):
    async def __call__(
        self,
        app_id: int,
        name: str,
        paths: Sequence[Path],
        progress: Callable[[IngestProgress], None] | None = None,
        *,
        prune: bool = False,
        lost: bool = False,
    ) -> IngestReport:
        """Read files and folders into the knowledge base ``name``, created if missing. ``prune`` removes documents that
        no longer exist in the folders they came from, ``lost`` also those whose folder no longer exists. Raises
        ``Invalid(field="name")``."""
        ...
