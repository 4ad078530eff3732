"""The measure of a start: from the command to the first answer, on a data folder that is there already."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.callers import SETTINGS, USER, Caller
from bench.calling import Line
from bench.machine import Cpus
from bench.report import Row, Series
from bench.sizes import Sizes
from bench.stage import LIMITS, Stage, palaver, scratch
from bench.turns import INSTANT
from palaver import app
from palaver.config import Settings
from palaver.core.types import AgentSpec, new_uid


async def starting(stage: Stage, sizes: Sizes, _dialects: Sequence[str]) -> AsyncIterator[Row]:
    """palaver as ``make serve`` starts it, PostgreSQL and the demo application included."""
    stage.upstream.fresh(INSTANT)
    async with scratch() as folder:
        caller = await _caller(folder)
        await _first_answer(folder, stage.cpus, stage.upstream.url, caller)
        seconds = [
            await _first_answer(folder, stage.cpus, stage.upstream.url, caller) for _ in range(max(sizes.starts, 1))
        ]
    found = Series(values=seconds)
    yield Row(
        measure="start to first answer, second start",
        value=found.median,
        unit="s",
        goal="≤ 2 s",
        met=found.median <= 2,
        spread=found.spread,
        note="with the embedded PostgreSQL, all on one CPU",
    )


async def _caller(folder: Path) -> Caller:
    async with app.open_core(Settings(data=str(folder / "data")), {}) as core:
        owner = await core.store.applications.get_or_create("bench")
        agent = await core.store.agents.upsert(owner, AgentSpec(name="bench"))
        dialect = next(one for one in app.all_dialects() if one.name == "snail")
        name, secret = dialect.new_credential(secrets.token_bytes(32))
        settings = {**LIMITS, **SETTINGS.get("snail", {})}
        key = await core.store.keys.create(owner, dialect.name, name, secret, settings)
        return Caller(key=key, agent=agent, user=USER)


async def _first_answer(folder: Path, cpus: Cpus, url: str, caller: Caller) -> float:
    begun = time.perf_counter()
    server = palaver(folder, cpus, OPENAI_BASE_URL=url)
    try:
        await server.process.listens(server.port)
        line = await Line.to(server.port)
        await line.whole(caller.say(new_uid()))
        took = time.perf_counter() - begun
        line.hang_up()
    finally:
        await asyncio.to_thread(server.process.stop)
    return took
