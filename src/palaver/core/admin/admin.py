"""All operator use cases, for one operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from palaver.core.admin.agents import AgentAdmin
from palaver.core.admin.applications import ApplicationAdmin
from palaver.core.admin.audit import AuditLog
from palaver.core.admin.credentials import CredentialAdmin
from palaver.core.admin.knowledge_bases import KnowledgeBaseAdmin
from palaver.core.admin.users import UserAdmin
from palaver.core.ports.admin import AdminStore, CredentialScheme, Ingest
from palaver.core.ports.documents import Knowledge
from palaver.core.ports.models import Models


class Admin:
    """What an operator may do. Changes are recorded in ``audit`` under the name ``actor``; with ``None``, as for the
    server's own setup, they are not recorded."""

    def __init__(
        self,
        store: AdminStore,
        *,
        models: Models,
        knowledge: Knowledge,
        ingest: Ingest,
        schemes: Callable[[], Sequence[CredentialScheme]],
        actor: str | None,
    ) -> None:
        self.audit = AuditLog(store.audit, actor)
        self.applications = ApplicationAdmin(store.applications, self.audit)
        self.credentials = CredentialAdmin(store, schemes, self.audit)
        self.agents = AgentAdmin(store, models, self.audit)
        self.knowledge_bases = KnowledgeBaseAdmin(store, knowledge, ingest, self.audit)
        self.users = UserAdmin(store, self.audit)
