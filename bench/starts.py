"""The measurement of a start: from the command to the first answer, with an existing data folder."""

from __future__ import annotations

import asyncio
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
    """palaver started as by ``make serve``, including PostgreSQL and the demo."""
    stage.upstream.fresh(INSTANT)
    async with scratch() as folder:
        caller = await _caller(folder)
        await _first_answer(folder, stage.cpus, stage.upstream.url, caller)
        seconds = [
            await _first_answer(folder, stage.cpus, stage.upstream.url, caller) for _ in range(max(sizes.starts, 1))
        ]
    series = Series(values=seconds)
    yield Row(
        measure="start to first answer, second start",
        value=series.median,
        unit="s",
        goal="≤ 2 s",
        met=series.median <= 2,
        spread=series.spread,
        note="with the embedded PostgreSQL, all on one CPU",
    )


async def _caller(folder: Path) -> Caller:
    async with app.open_core(Settings(data=str(folder / "data")), {}) as core:
        admin = core.admin()
        (agent,) = (await admin.agents.upsert_all("bench", [AgentSpec(name="bench")])).agents
        created = await admin.credentials.create("bench", "snail", {**LIMITS, **SETTINGS.get("snail", {})})
        return Caller(key=created.key, agent=agent, user=USER)


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
