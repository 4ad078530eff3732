"""The demo: the application ``demo`` with a credential for each dialect, and the agent ``guide``, which answers from
palaver's own documentation.

The first start creates it. Later starts update the documentation and add credentials for new dialects; what an operator
has changed or deleted stays so, until ``palaver demo`` recreates the missing parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import urlsplit

import msgspec
import structlog

from palaver.agentfile import parse
from palaver.app import Core, documentation_paths
from palaver.core.admin.admin import Admin
from palaver.core.problems import NotFound
from palaver.core.types import Agent, ApiKey, Application
from palaver.server import base_url
from palaver.wire.contract import CurlSample, Dialect

log = structlog.get_logger("palaver.demo")

APP = "demo"
AGENT = "guide"
KNOWLEDGE = "palaver"

_DIALECTS = "demo"
_ADDRESS = "base_url"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The existing parts of the demo; an operator may have deleted any of them. ``keys`` has one credential per
    dialect."""

    app: Application | None = None
    agent: Agent | None = None
    keys: tuple[ApiKey, ...] = ()


class _CreatedDialects(msgspec.Struct, frozen=True, kw_only=True):
    """The dialects for which earlier starts created a credential, as stored in the database."""

    dialects: list[str] = []


async def recreate_demo(core: Core, dialects: Sequence[Dialect], *, actor: str) -> Demo:
    """Create all missing parts of the demo for an operator, and record it in the audit log."""
    async with core.admin(actor).audit.record("demo"):
        return await ensure_demo(core, dialects, again=True)


async def ensure_demo(core: Core, dialects: Sequence[Dialect], *, again: bool = False) -> Demo:
    """Create the parts that were never created or, with ``again``, all missing ones. Returns the existing parts."""
    async with core.store.setup_lock():
        return await _ensure(core, core.admin(), dialects, again=again)


async def _ensure(core: Core, admin: Admin, dialects: Sequence[Dialect], *, again: bool) -> Demo:
    stored = await core.store.get_meta(_DIALECTS)
    first = stored is None or again
    created = _CreatedDialects() if stored is None or again else msgspec.json.decode(stored, type=_CreatedDialects)
    if first:
        log.info("creating the demo")
        await admin.applications.get_or_create(APP)
    app = next((one for one in await admin.applications.list_all() if one.name == APP), None)
    if app is None:
        return Demo()
    keys = await _ensure_keys(admin, dialects, except_for=created.dialects)
    agent = await _ensure_agent(admin, create=first)
    if first or KNOWLEDGE in {base.name for _, base in await admin.knowledge_bases.list_all(APP)}:
        await admin.knowledge_bases.add(APP, KNOWLEDGE, documentation_paths(), prune=True, lost=True)
    now = msgspec.json.encode(
        _CreatedDialects(dialects=sorted({*created.dialects, *(one.name for one in dialects)}))
    ).decode()
    if now != stored:
        await core.store.set_meta(_DIALECTS, now)
    return Demo(app=app, agent=agent, keys=keys)


async def _ensure_keys(admin: Admin, dialects: Sequence[Dialect], *, except_for: Sequence[str]) -> tuple[ApiKey, ...]:
    """A credential of each dialect, enabled if there is one; created if missing, ``except_for`` some dialects."""
    keys: dict[str, ApiKey] = {}
    for listed in await admin.credentials.list_all(APP):
        key = listed.key
        if key.dialect not in keys or (key.enabled and not keys[key.dialect].enabled):
            keys[key.dialect] = key
    for dialect in dialects:
        if dialect.name not in keys and dialect.name not in except_for:
            keys[dialect.name] = (await admin.credentials.create(APP, dialect.name)).key
    return tuple(keys[dialect.name] for dialect in dialects if dialect.name in keys)


async def _ensure_agent(admin: Admin, *, create: bool) -> Agent | None:
    try:
        return await admin.agents.get(APP, AGENT)
    except NotFound:
        return (await admin.agents.upsert_all(APP, [parse(guide())])).agents[0] if create else None


def guide() -> str:
    """The file of the agent ``guide``."""
    return files("palaver").joinpath("guide.md").read_text(encoding="utf-8")


def sample(demo: Demo, key: ApiKey, address: str) -> CurlSample | None:
    """The input of the dialect's sample command; ``None`` without an agent to call."""
    if demo.agent is None:
        return None
    return CurlSample(
        base_url=address, id=key.id, secret=key.secret, agent_id=demo.agent.id, agent_uid=demo.agent.uid.hex
    )


# The server's address ----------------------------------------------------------------------------------------------


async def remember_address(core: Core, address: str) -> None:
    await core.store.set_meta(_ADDRESS, address)


async def address(core: Core) -> str:
    """The base URL of the last server on this data if it accepts connections, else that of a future one."""
    last = await core.store.get_meta(_ADDRESS)
    if last is not None and await _accepts_connections(last):
        return last
    return base_url(core.settings, core.settings.port)


async def _accepts_connections(address: str) -> bool:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
