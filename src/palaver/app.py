"""The composition root: builds a ``Core`` from the settings, for the server and for every command."""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog

import palaver
from palaver import dialects
from palaver.config import Settings
from palaver.core.admin.admin import Admin
from palaver.core.admit import Admission
from palaver.core.chat import Chat, ChatSettings
from palaver.core.files import Files
from palaver.core.idempotency import Idempotency
from palaver.core.knowledge import KnowledgeBases
from palaver.core.media import Media
from palaver.core.ports.admin import CredentialScheme
from palaver.core.runs import RunRegistry
from palaver.core.slots import RunSlots
from palaver.core.turn import TurnServices
from palaver.core.users import Users
from palaver.installation import keep_master_key, locate_database, master_key
from palaver.knowledge.extract_text import AttachmentReader
from palaver.knowledge.ingest import ingest
from palaver.knowledge.pool import ReaderPool
from palaver.knowledge.search import KnowledgeRetriever
from palaver.models.openai import Timeouts
from palaver.models.registry import ModelRegistry
from palaver.shutdown import CLOSE_SHARE, RUNS_SHARE, wait_at_most
from palaver.store.embedded import EmbeddedPostgres
from palaver.store.files import FileQuota
from palaver.store.migrate import migrate
from palaver.store.postgres import PostgresStore
from palaver.store.quotas import QuotaKind
from palaver.store.secrets import SecretBox
from palaver.tools.guard import Guard
from palaver.tools.toolbox import AgentToolbox
from palaver.wire.contract import Dialect, DialectSettings, Services
from palaver.wire.settings import read_settings

log = structlog.get_logger("palaver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """All components, wired together on one database."""

    settings: Settings
    store: PostgresStore
    models: ModelRegistry
    knowledge: KnowledgeRetriever
    runs: RunRegistry
    chat: Chat
    services: Services
    admission: Admission
    url: str

    def admin(self, actor: str | None = None) -> Admin:
        """The operator use cases; ``actor`` is the operator's name in the audit log, ``None`` records nothing."""
        return Admin(
            self.store,
            models=self.models,
            knowledge=self.knowledge,
            ingest=partial(ingest, self.store.knowledge),
            schemes=credential_schemes,
            actor=actor,
        )


def all_dialects() -> tuple[Dialect, ...]:
    """The ``DIALECT`` of every package under ``dialects``, sorted by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(dialects.__path__) if module.ispkg)
    return tuple(importlib.import_module(f"{dialects.__name__}.{name}").DIALECT for name in names)


def credential_schemes() -> list[CredentialScheme]:
    """How the credentials of every dialect are made and configured."""
    return [
        CredentialScheme(
            dialect=dialect.name,
            settings=frozenset(setting.name for setting in dialect.settings),
            new_credential=dialect.new_credential,
            read_settings=partial(read_settings, known=dialect.settings),
        )
        for dialect in all_dialects()
    ]


@asynccontextmanager
async def open_core(
    settings: Settings, environment: Mapping[str, str] = os.environ, *, upgrade: bool = False
) -> AsyncGenerator[Core]:
    """Build a ``Core`` and close it on exit; start and initialize its database if needed. A database of an older
    palaver is migrated only with ``upgrade``.

    Raises ``Internal(reason="database")`` and ``SettingsError``; both messages include a remedy.
    """
    box = SecretBox(master_key(settings))
    async with locate_database(settings) as (url, embedded):
        await migrate(settings.database_direct_url or url, upgrade=upgrade)
        async with _compose(settings, url, box, embedded, environment) as core:
            yield core


def build_models(settings: Settings, environment: Mapping[str, str] = os.environ) -> ModelRegistry:
    """The models configured in the settings and in the ``OPENAI_*`` environment variables."""
    return ModelRegistry(
        default=settings.model,
        fallback=settings.fallback_model,
        image=settings.image_model,
        speech=settings.speech_model,
        base_url=environment.get("OPENAI_BASE_URL"),
        api_key=environment.get("OPENAI_API_KEY"),
        fallback_base_url=settings.fallback_base_url,
        fallback_api_key=settings.fallback_api_key,
        timeouts=Timeouts(first_byte=settings.model_first_byte_timeout_s, idle=settings.model_idle_timeout_s),
        longest=max(1, settings.max_answer_bytes // 4),  # in characters, each of at most four bytes
    )


@asynccontextmanager
async def _compose(
    settings: Settings, url: str, box: SecretBox, embedded: EmbeddedPostgres | None, environment: Mapping[str, str]
) -> AsyncGenerator[Core]:
    async def restart_embedded() -> None:
        if embedded is not None:
            await asyncio.to_thread(embedded.ensure_running)

    connections, direct = settings.database_connections, settings.database_direct_url
    store = PostgresStore(
        url,
        box,
        connections=connections,
        direct=direct,
        save_master_key=lambda master: keep_master_key(settings, master),
        restart=restart_embedded,
    )
    store.quotas.limits = row_quotas(settings)
    store.files.quota = FileQuota(user=settings.max_user_files_bytes, application=settings.max_application_files_bytes)
    models = build_models(settings, environment)
    retriever = KnowledgeRetriever(store.knowledge)
    readers = ReaderPool()
    guard = Guard(allow=settings.fetch_allow, max_bytes=settings.fetch_max_bytes, timeout_s=settings.fetch_timeout_s)
    ports = TurnServices(
        store=store,
        models=models,
        knowledge=retriever,
        documents=AttachmentReader(readers),
        fetch=guard,
        tools=AgentToolbox(ZoneInfo(settings.timezone)),
    )
    runs = RunRegistry(
        ports,
        worker=lambda: store.presence.worker,
        timeout=settings.run_timeout_s,
        max_answer_bytes=settings.max_answer_bytes,
        max_live_bytes=settings.max_live_bytes,
        slots=RunSlots(
            settings.max_live_runs,
            per_application=settings.max_application_runs,
            per_credential=settings.max_credential_runs,
        ),
    )
    limits = ChatSettings(
        max_waiting_turns=settings.max_waiting_turns,
        idempotency_ttl_s=settings.idempotency_ttl_s,
        max_page_bytes=settings.max_page_bytes,
    )
    chat = Chat(ports, runs, limits)
    admission = Admission(store.keys, store.rate_limits, store.tokens)
    try:
        await store.open()
        _listen_for_runs(store, runs)
        runs.start()
        yield Core(
            settings=settings,
            store=store,
            models=models,
            knowledge=retriever,
            runs=runs,
            chat=chat,
            services=_services(settings, store, models, retriever, chat, admission),
            admission=admission,
            url=url,
        )
    finally:
        await runs.close(drain=0, limit=settings.stop_s * RUNS_SHARE)
        await wait_at_most(settings.stop_s * CLOSE_SHARE, readers.close(), guard.close(), models.close(), store.close())


def _services(
    settings: Settings,
    store: PostgresStore,
    models: ModelRegistry,
    retriever: KnowledgeRetriever,
    chat: Chat,
    admission: Admission,
) -> Services:
    """The services that the dialects' handlers use."""
    worker = lambda: store.presence.worker  # noqa: E731
    idempotency = Idempotency(store, store.idempotency, worker=worker, ttl_s=settings.idempotency_ttl_s)
    store.presence.subscribe("claim", idempotency.wake)
    return Services(
        chat=chat,
        users=Users(store, store.keys, admission),
        files=Files(store),
        media=Media(models),
        idempotency=idempotency,
        knowledge=KnowledgeBases(store.agents, retriever),
        settings=DialectSettings(timezone=ZoneInfo(settings.timezone), language=settings.language),
    )


def _listen_for_runs(store: PostgresStore, runs: RunRegistry) -> None:
    """Subscribe to other processes' notifications about this process's runs."""

    def start(run: str) -> None:
        if run:
            runs.allow_start(int(run))

    async def catch_up() -> None:
        for run in await store.runs.list_head_ids(store.presence.worker):
            runs.allow_start(run)

    def stop(run: str) -> None:
        if run:
            runs.stop(UUID(run))

    def stop_abandoned(run: str) -> None:
        if run:
            runs.stop_if_abandoned(int(run))

    def is_read(run: str) -> None:
        if run:
            runs.mark_read_elsewhere(int(run))

    def on_growth(run: str) -> None:
        if run:
            runs.remote.on_growth(int(run))

    callbacks = {"abandoned": stop_abandoned, "growth": on_growth, "read": is_read, "start": start, "stop": stop}
    for topic, callback in callbacks.items():
        store.presence.subscribe(topic, callback, invalidates=False)
    store.presence.on_reconnect(catch_up)


def row_quotas(settings: Settings) -> Mapping[QuotaKind, int]:
    """The maximum number of stored rows of each kind."""
    return {
        "users": settings.max_users,
        "conversations": settings.max_conversations,
        "user_conversations": settings.max_user_conversations,
        "conversation_messages": settings.max_conversation_messages,
        "idempotency_keys": settings.max_idempotency_keys,
        "codes": settings.max_codes,
        "tokens": settings.max_tokens,
        "request_ids": settings.max_request_ids,
    }


async def delete_expired_rows(store: PostgresStore) -> None:
    """Delete expired idempotency claims, tokens and usage windows, and revisions of agents that no run needs."""
    await store.agents.delete_old_revisions()
    await store.runs.delete_expired_keys()
    await store.tokens.delete_expired()
    await store.rate_limits.delete_expired()


def documentation_paths() -> list[Path]:
    """The folders and files of the documentation, in the installed package or in a source checkout."""
    package = Path(palaver.__file__).parent
    if (package / "guide").is_dir():
        return [package / "guide", package / "dialects"]
    checkout = package.parent.parent
    return [checkout / "README.md", checkout / "docs", package / "dialects"]
