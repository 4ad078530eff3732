"""Diagnoses an installation and suggests remedies. Changes nothing: no database is created or migrated."""

from __future__ import annotations

import asyncio
import difflib
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp
import msgspec
import psutil

from palaver.app import build_models, open_core
from palaver.config import OTHER_VARIABLES, Settings, SettingsError, load
from palaver.core.admin.admin import Admin
from palaver.core.admin.credentials import unknown_agents
from palaver.core.problems import Internal, Problem
from palaver.core.types import Agent, ApiKey, Value
from palaver.http.uvicorn_server import bind_socket
from palaver.models.registry import ModelRegistry
from palaver.server import base_url
from palaver.store.driver import DRIVER_ERRORS, Connection, connect, is_transaction_pooler, to_problem
from palaver.store.embedded import EmbeddedPostgres
from palaver.store.migrate import (
    TERMINATE_HINT,
    applied_migrations,
    describe_holder,
    describe_unknown_migration,
    find_incompatibility,
    find_lock_holder,
    get_version_and_encoding,
    is_abandoned,
    migrations,
)
from palaver.store.presence import POOLER_ERROR
from palaver.store.secrets import load_or_create_master_key, parse_master_key

SKEW = 2.0
"""Maximum difference between this machine's clock and the database's, in seconds."""

Level = Literal["good", "note", "wrong"]


class Finding(Value, frozen=True, kw_only=True):
    """The result of one check. ``remedy`` says what to do if it fails."""

    subject: str
    level: Level
    says: str
    remedy: str = ""


_HOW_TO_SET = (
    "; it only quotes documents; for a model that answers in its own words, set PALAVER_MODEL=openai:NAME,"
    " OPENAI_BASE_URL and OPENAI_API_KEY"
)


def good(subject: str, says: str) -> Finding:
    return Finding(subject=subject, level="good", says=says)


def note(subject: str, says: str, remedy: str = "") -> Finding:
    return Finding(subject=subject, level="note", says=says, remedy=remedy)


def wrong(subject: str, says: str, remedy: str) -> Finding:
    return Finding(subject=subject, level="wrong", says=says, remedy=remedy)


async def examine(environment: Mapping[str, str], options: Mapping[str, Any]) -> AsyncGenerator[Finding]:
    """Run every check, in order, and yield each result as soon as it is known."""
    for finding in unknown_variables(environment):
        yield finding
    try:
        settings = load(environment, options)
    except SettingsError as error:
        yield wrong("settings", str(error), "fix the environment variable, option or line of palaver.toml")
        return
    yield good("settings", f"data folder {settings.data}, {_database_kind(settings)}")
    folder = data_folder(settings)
    yield folder
    key = master_key(settings)
    yield key
    ready = False
    if folder.level != "wrong" and key.level != "wrong":
        async for finding in database(settings):
            yield finding
            ready = finding == READY
    if ready:
        async for finding in _contents(settings, environment):
            yield finding
    else:
        async for finding in models(build_models(settings, environment), ()):
            yield finding
    yield await port(settings)


def _database_kind(settings: Settings) -> str:
    return "embedded PostgreSQL" if settings.database_url is None else "your own PostgreSQL"


# Without a database -------------------------------------------------------------------------------------------------


def unknown_variables(environment: Mapping[str, str]) -> list[Finding]:
    """``PALAVER_`` variables that are not settings."""
    names = [*Settings.__struct_fields__, *(name.removeprefix("PALAVER_").lower() for name in OTHER_VARIABLES)]
    findings: list[Finding] = []
    for name in sorted(environment):
        read = name in OTHER_VARIABLES or name.removeprefix("PALAVER_").lower() in Settings.__struct_fields__
        if name.upper().startswith("PALAVER_") and not read:
            near = difflib.get_close_matches(name.lower().removeprefix("palaver_"), names, 1)
            remedy = (
                f"did you mean PALAVER_{near[0].upper()}?" if near else "remove it; 'palaver config' lists all settings"
            )
            findings.append(wrong("environment", f"{name} is not a known setting and is ignored", remedy))
    return findings or [good("environment", "every PALAVER_ variable is a known setting")]


def data_folder(settings: Settings) -> Finding:
    folder = settings.data_folder
    if not folder.exists():
        above = next(parent for parent in folder.parents if parent.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            remedy = f"choose another with --data or PALAVER_DATA, or run: sudo install -d -o {_user()} {folder}"
            return wrong("data folder", f"{folder} does not exist, and this user cannot write to {above}", remedy)
        return note("data folder", f"{folder} does not exist yet", "the first start creates it")
    if not folder.is_dir():
        return wrong("data folder", f"{folder} is not a folder", "choose another with --data or PALAVER_DATA")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"run: sudo chown -R {_user()} {folder}, or choose another with --data or PALAVER_DATA"
        return wrong("data folder", f"this user cannot write to {folder}", remedy)
    return good("data folder", f"{folder} is writable")


def _user() -> str:
    return f"{os.geteuid()}"


def master_key(settings: Settings) -> Finding:
    file = settings.data_folder / "master.key"
    try:
        if settings.master_key is not None:
            parse_master_key(settings.master_key)
            return good("master key", "from PALAVER_MASTER_KEY or palaver.toml")
        if not file.exists():
            return note("master key", f"{file} does not exist yet", "the first start creates it; keep a copy of it")
        load_or_create_master_key(file)
    except (ValueError, OSError) as error:
        remedy = (
            "stored secrets cannot be read without the right key: restore it from your copy, readable only by its owner"
        )
        return wrong("master key", str(error), remedy)
    return good("master key", f"{file}, readable only by its owner")


async def port(settings: Settings) -> Finding:
    place = f"port {settings.port} of {settings.host}"
    if settings.port == 0:
        return good("port", "a free one is picked at startup")
    try:
        bind_socket(settings.host, settings.port).close()
    except OSError as error:
        address = base_url(msgspec.structs.replace(settings, site_url=None), settings.port)
        match await _get_json(f"{address}/readyz"):
            case {"status": "ready"}:
                return good("port", f"palaver is running at {address}")
            case {"status": "not ready", "reason": reason}:
                return wrong("port", f"the palaver at {address} is not ready: {reason}", "check its log")
            case _:
                reason = (error.strerror or str(error)).lower()
                remedy = f"choose another with --port or PALAVER_PORT, or stop {_owner(settings.port)}"
                return wrong("port", f"{place} is not available: {reason}", remedy)
    return good("port", f"{place} is free")


def _owner(port: int) -> str:
    """The program that listens on ``port``, if this user may see it."""
    try:
        pids = [
            one.pid
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
        ]
        if pids and pids[0] is not None:
            return f"{psutil.Process(pids[0]).name()} (process {pids[0]})"
    except psutil.Error:  # another user's, or ended
        pass
    return "the program that uses it"


async def _get_json(url: str) -> Any:
    """The JSON response of ``url``, or ``None``."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http,
            http.get(url, allow_redirects=False) as response,
        ):
            return msgspec.json.decode(await response.read())
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None


# The database -------------------------------------------------------------------------------------------------------

READY = good("migrations", "the database is up to date")


async def database(settings: Settings) -> AsyncGenerator[Finding]:
    """Check the database. The last result is ``READY`` if this palaver can work with it."""
    if settings.database_url is None and not (settings.data_folder / "postgres" / "PG_VERSION").exists():
        yield note(
            "database", "there is none yet", f"the first start creates it in {settings.data_folder / 'postgres'}"
        )
        return
    try:
        async with _connected(settings) as connection:
            async for finding in _check_server(connection, settings):
                yield finding
    except DRIVER_ERRORS as error:
        yield wrong("database", to_problem(error).detail, _remedy(settings))
    except Internal as problem:
        yield wrong("database", problem.detail, _remedy(settings))


def _remedy(settings: Settings) -> str:
    if settings.database_url is None:
        return f"read {settings.data_folder / 'postgres' / 'server.log'}"
    return "check that PostgreSQL is running, and the address, user and password in --database or PALAVER_DATABASE_URL"


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncGenerator[Connection]:
    embedded = None if settings.database_url else EmbeddedPostgres(settings.data_folder)
    try:
        address = settings.database_direct_url or settings.database_url
        url = address or await asyncio.to_thread(_start, embedded)
        connection = await connect(url, timeout=5)
        try:
            yield connection
        finally:
            connection.terminate()
    finally:
        if embedded is not None:
            await asyncio.to_thread(embedded.release)


def _start(embedded: EmbeddedPostgres | None) -> str:
    assert embedded is not None
    return embedded.start()


async def _check_server(connection: Connection, settings: Settings) -> AsyncGenerator[Finding]:
    version, encoding = await get_version_and_encoding(connection)
    if (incompatibility := find_incompatibility(version, encoding)) is not None:
        yield wrong("database", *incompatibility)
        return
    yield good("database", f"PostgreSQL {version} answers")
    address = settings.database_direct_url or settings.database_url
    if address and await is_transaction_pooler(address, connection, timeout=5):
        yield wrong("sessions", POOLER_ERROR.partition(": ")[0], POOLER_ERROR.partition(": ")[2])
        return
    before = time.time()
    database_time: float = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8", timeout=5)
    yield clock(database_time - (before + time.time()) / 2)
    if (holder := await find_lock_holder(connection)) is not None:
        finding = wrong if is_abandoned(holder) else note
        yield finding("migration lock", describe_holder(holder), TERMINATE_HINT.format(holder["pid"]))
    yield await _migrated(connection)


def clock(ahead: float) -> Finding:
    """Check the clock difference; ``ahead`` is how far the database's clock is ahead of this machine's, in seconds."""
    if abs(ahead) > SKEW:
        says = f"the database's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
        return wrong("clock", says, "synchronize both (timedatectl set-ntp true); otherwise signed calls are rejected")
    return good("clock", "in sync with the database's clock")


async def _migrated(connection: Connection) -> Finding:
    shipped = {number: name for number, name, _ in migrations()}
    if (newer := await describe_unknown_migration(connection, shipped)) is not None:
        return wrong("migrations", newer, "install the palaver version used with it before, or a newer one")
    done = await applied_migrations(connection)
    if not done:
        return note("migrations", "the database is empty", "the next start initializes it")
    if missing := [shipped[number] for number in sorted(shipped.keys() - done)]:
        remedy = "make a backup, then run 'palaver migrate'; the next 'palaver serve' also migrates"
        return note("migrations", f"not applied yet: {', '.join(missing)}", remedy)
    return READY


# The contents ------------------------------------------------------------------------------------------------------


async def _contents(settings: Settings, environment: Mapping[str, str]) -> AsyncGenerator[Finding]:
    try:
        async with open_core(settings, environment) as core:
            admin = core.admin()
            agents = await admin.agents.list_all()
            async for finding in models(core.models, [agent for _, agent in agents]):
                yield finding
            yield await _knowledge(admin, agents)
            credentials = [(one.application, one.key) for one in await admin.credentials.list_all()]
            for finding in keys(credentials, agents, datetime.now(UTC)):
                yield finding
    except (Problem, SettingsError) as problem:
        detail = problem.detail if isinstance(problem, Internal) else str(problem)
        yield wrong("database", detail, _remedy(settings))


async def models(offered: ModelRegistry, agents: Sequence[Agent]) -> AsyncGenerator[Finding]:
    """Check the default model and fallback, and every model of an enabled agent."""
    users: dict[tuple[str | None, bool], list[str]] = {(None, False): ["agents that name none"]}
    if offered.has_fallback:
        users[None, True] = ["agents that name none"]
    for agent in agents:
        if agent.spec.enabled:
            users.setdefault((agent.spec.model, False), []).append(agent.name)
        if agent.spec.enabled and agent.spec.fallback_model is not None:
            users.setdefault((agent.spec.fallback_model, True), []).append(agent.name)
    try:
        for (spec, fallback), names in users.items():
            says = await offered.check(spec, fallback=fallback)
            kind = "fallback model" if fallback else "model"
            subject = f"default {kind}" if spec is None else f"{kind} {spec}"
            who = ", ".join(names[:5])
            if says is None:
                yield good(subject, f"available to {who}{_HOW_TO_SET if offered.quotes_only(spec) else ''}")
            else:
                yield wrong(subject, f"{says.rstrip('.')} (used by {who})", _model_remedy(spec, fallback))
    finally:
        await offered.close()


def _model_remedy(spec: str | None, fallback: bool) -> str:
    if fallback:
        where = "PALAVER_FALLBACK_MODEL" if spec is None else "the agent's fallback_model"
        return f"fix {where}, PALAVER_FALLBACK_BASE_URL or PALAVER_FALLBACK_API_KEY, or start the endpoint"
    where = "PALAVER_MODEL" if spec is None else "the agent's model"
    return f"fix {where}, OPENAI_BASE_URL or OPENAI_API_KEY, or start the endpoint"


async def _knowledge(admin: Admin, agents: Sequence[tuple[str, Agent]]) -> Finding:
    missing = [
        f"{app}/{check.name} names {name!r}"
        for app, agent in agents
        for check in await admin.agents.check(app, [agent.spec])
        for name in check.missing_knowledge
    ]
    if missing:
        remedy = "create it (palaver knowledge add NAME PATH), or fix the agent file"
        return wrong("knowledge", f"no such knowledge base: {'; '.join(missing)}", remedy)
    return good("knowledge", "every knowledge base used by an agent exists")


def keys(keys: Sequence[tuple[str, ApiKey]], agents: Sequence[tuple[str, Agent]], now: datetime) -> list[Finding]:
    """Check credentials for unknown agents, expiry, weak signatures, and being disabled."""
    findings: list[Finding] = []
    for app, key in keys:
        subject = f"key {key.id}"
        of_app = [agent for owner, agent in agents if owner == app]
        if names := unknown_agents(key, of_app):
            names_of_app = ", ".join(agent.name for agent in of_app) or "none"
            remedy = f"apply the agent with --app {app}, or create a key for one of: {names_of_app}"
            findings.append(wrong(subject, f"names agents that do not exist in {app!r}: {', '.join(names)}", remedy))
        if (expired := _expiry(key)) is not None and expired < now:
            remedy = f"create a new one (palaver key create --app {app} --dialect {key.dialect}) and delete this one"
            findings.append(wrong(subject, f"expired at {expired:%Y-%m-%d %H:%M} UTC", remedy))
        if weak_signature(key):
            findings.append(
                note(subject, WEAK, f"palaver key set {key.id} signature=hmac-sha256, once its callers can")
            )
        if not key.enabled:
            findings.append(note(subject, f"in {app!r} is disabled", f"palaver key enable {key.id}"))
    return findings or [good("keys", f"{len(keys)} checked, no problems")]


WEAK = (
    "its signature covers only the body: a captured one can be replayed for any end user and route, indefinitely;"
    " new clients should sign with hmac-sha256"
)


def weak_signature(key: ApiKey) -> bool:
    """Whether calls use Sonaops' original signature scheme, that dialect's default."""
    return key.dialect == "sonaops" and key.setting("signature", "sha256") == "sha256"


def _expiry(key: ApiKey) -> datetime | None:
    try:
        expiry = datetime.fromisoformat(str(key.settings.get("expire")))
    except ValueError:
        return None
    return expiry if expiry.tzinfo is not None else expiry.replace(tzinfo=UTC)
