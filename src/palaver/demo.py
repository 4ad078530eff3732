"""What a newcomer meets: the application ``demo`` with a credential for each dialect, and the agent ``guide``, which
answers from palaver's own documentation.

It is made at the first start. Later starts find it again, bring the documentation up to date and give credentials to
dialects that are new since; what an operator changed or removed stays so, until ``palaver demo`` asks for all of it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import urlsplit

import msgspec
import structlog

from palaver.agentfile import parse
from palaver.app import Core, documentation_folder
from palaver.core.types import Agent, ApiKey, Application
from palaver.knowledge.ingest import ingest
from palaver.server import base_url
from palaver.wire.contract import CurlSample, Dialect

log = structlog.get_logger("palaver.demo")

APP = "demo"
AGENT = "guide"
KNOWLEDGE = "palaver"

_MADE = "demo"
_ADDRESS = "base_url"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What there is of it. ``keys`` has one credential a dialect; an operator may have removed any of it."""

    app: Application | None = None
    agent: Agent | None = None
    keys: tuple[ApiKey, ...] = ()


class _CreatedDialects(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier starts made already, as it is kept in the database."""

    dialects: list[str] = []


async def ensure_demo(core: Core, dialects: Sequence[Dialect], *, again: bool = False) -> Demo:
    """Make what was never made, or (``again``) whatever is missing; what there is afterwards."""
    async with core.store.setup_lock():
        return await _ensure(core, dialects, again=again)


async def _ensure(core: Core, dialects: Sequence[Dialect], *, again: bool) -> Demo:
    kept = await core.store.get_meta(_MADE)
    first = kept is None or again
    made = _CreatedDialects() if kept is None or again else msgspec.json.decode(kept, type=_CreatedDialects)
    if first:
        log.info("making the demo")
    app = await core.store.applications.get_or_create(APP) if first else await core.store.applications.get(APP)
    if app is None:
        return Demo()
    keys = await _keys(core, app, dialects, passed_over=made.dialects)
    agent = await core.store.agents.find(app, AGENT)
    if agent is None and first:
        agent = await core.store.agents.upsert(app, parse(guide()))
    if first or await core.store.knowledge.get(app.id, KNOWLEDGE) is not None:
        await ingest(core.store.knowledge, app.id, KNOWLEDGE, documentation_folder(), prune=True, lost=True)
    now = msgspec.json.encode(
        _CreatedDialects(dialects=sorted({*made.dialects, *(one.name for one in dialects)}))
    ).decode()
    if now != kept:
        await core.store.set_meta(_MADE, now)
    return Demo(app=app, agent=agent, keys=keys)


async def _keys(
    core: Core, app: Application, dialects: Sequence[Dialect], *, passed_over: Sequence[str]
) -> tuple[ApiKey, ...]:
    """A credential of each dialect; made where there is none, except for dialects that are ``passed_over``."""
    there: dict[str, ApiKey] = {}
    for _, key in await core.store.keys.list_all(app):
        if key.dialect not in there or (key.enabled and not there[key.dialect].enabled):
            there[key.dialect] = key
    for dialect in dialects:
        if dialect.name not in there and dialect.name not in passed_over:
            there[dialect.name] = await new_key(core, app, dialect)
    return tuple(there[dialect.name] for dialect in dialects if dialect.name in there)


async def new_key(core: Core, app: Application, dialect: Dialect) -> ApiKey:
    """A credential with nothing set."""
    name, secret = dialect.new_credential(secrets.token_bytes(32))
    return await core.store.keys.create(app, dialect.name, name, secret, {})


def guide() -> str:
    """The file of the agent ``guide``."""
    return files("palaver").joinpath("guide.md").read_text(encoding="utf-8")


def sample(demo: Demo, key: ApiKey, address: str) -> CurlSample | None:
    """What a dialect needs for its example; ``None`` when there is no agent to call."""
    if demo.agent is None:
        return None
    return CurlSample(
        base_url=address, id=key.id, secret=key.secret, agent_id=demo.agent.id, agent_uid=demo.agent.uid.hex
    )


# Where the server is ------------------------------------------------------------------------------------------------


async def remember_address(core: Core, address: str) -> None:
    await core.store.set_meta(_ADDRESS, address)


async def address(core: Core) -> str:
    """Where the server that started last on this data is reached, if it still is there, else where one would be."""
    kept = await core.store.get_meta(_ADDRESS)
    if kept is not None and await _somebody_at(kept):
        return kept
    return base_url(core.settings, core.settings.port)


async def _somebody_at(address: str) -> bool:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
