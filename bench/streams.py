"""Measurements of open streams: CPU time per chunk, time to first event, memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from bench.callers import Caller, relayed
from bench.calling import GUARD, Failed, Line, Progress, hang_up, lines
from bench.report import Row, Series, quantile
from bench.sizes import Sizes
from bench.stage import Server, Stage
from bench.upstream import Plan, Upstream, text

MICRO, MILLI, MEGA = 1e6, 1e3, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """The result of one round of streams. CPU times are in seconds per chunk."""

    whole: float
    """The server's, from the first request to the end of the last answer."""
    flowing: float
    """The server's while all streams are open, without opening and ending them."""
    bench: float
    """The bench's own: endpoint and callers together."""
    rate: float
    """Chunks per second sent by the endpoint."""
    reads: float
    """Reads by the caller per chunk; below 1 if several arrived together."""
    late: float
    """Seconds from sending the last chunk until it has arrived in every stream."""


async def stream(server: Server, upstream: Upstream, requests: Sequence[bytes], plan: Plan) -> Streamed:
    """Send all requests at once. When every stream is open, chunks follow: at the plan's pace or, without one, each
    after the previous one has arrived in every stream, so that a read never returns two."""
    connections = await lines(server.port, len(requests))
    upstream.fresh(plan)
    progress = Progress.of(len(requests))
    cpu, own = [server.process.cpu()], [time.process_time()]
    answers = [
        line.ask(request, progress, keep=not number)
        for number, (line, request) in enumerate(zip(connections, requests, strict=True))
    ]
    async with asyncio.timeout(GUARD):
        await progress.reached(progress.text)
        cpu.append(server.process.cpu())
        own.append(time.process_time())
        upstream.go()
        if not plan.every:
            await _in_step(upstream, progress, plan.chunks - 1, len(requests))
        await progress.reached(progress.last)
        arrived = time.perf_counter()
        cpu.append(server.process.cpu())
        own.append(time.process_time())
        upstream.finish()
        await asyncio.gather(*answers)
        cpu.append(server.process.cpu())
    _check(connections[0], plan)
    hang_up(connections)
    chunks, flown = len(requests) * plan.chunks, len(requests) * (plan.chunks - 1)
    return Streamed(
        whole=(cpu[3] - cpu[0]) / chunks,
        flowing=(cpu[2] - cpu[1]) / flown,
        bench=(own[2] - own[1]) / flown,
        rate=flown / (upstream.ended - upstream.began_flowing),
        reads=sum(line.reads for line in connections) / chunks,
        late=arrived - upstream.ended,
    )


async def _in_step(upstream: Upstream, progress: Progress, chunks: int, streams: int) -> None:
    for _ in range(chunks):
        progress.begin_round(streams)
        upstream.step()
        await progress.reached(progress.round_complete)


def _check(line: Line, plan: Plan) -> None:
    """Check that an answer is complete."""
    body = line.answer()
    words = text(plan).count("word")
    if body.count(b"word") < words:
        raise Failed(f"{body.count(b'word')} of {words} words came: {body[-500:]!r}")


async def chunk_cpu(stage: Stage, sizes: Sizes, dialects: Sequence[str]) -> AsyncIterator[Row]:
    """Alternates between the relay and the dialects, so that changes of the machine's speed affect all of them."""
    for (streams, chunks), every in ((sizes.streams, 0.01), (sizes.streams_in_step, 0.0)):
        plan = Plan(chunks=chunks, every=every, gated=True)
        results: dict[str, list[Streamed]] = {name: [] for name in ("relay", *dialects)}
        for _ in range(sizes.repeat):
            for name, measured in results.items():
                measured.append(await _round(stage, name, streams, plan))
        pace = "" if every else ", one at a time"
        for row in _chunk_rows(f"{streams} streams × {chunks} chunks{pace}", results, goal=bool(every)):
            yield row


async def _round(stage: Stage, name: str, streams: int, plan: Plan) -> Streamed:
    if name == "relay":
        return await stream(stage.relay, stage.upstream, [relayed()] * streams, plan)
    caller = stage.ground.callers[name]
    requests = [caller.say(conversation) for conversation in await stage.conversations(streams)]
    return await stream(stage.palaver, stage.upstream, requests, plan)


def _chunk_rows(what: str, results: dict[str, list[Streamed]], *, goal: bool) -> list[Row]:
    relay = Series(values=[one.whole for one in results["relay"]])
    flowing = Series(values=[one.flowing for one in results["relay"]])
    rows: list[Row] = []
    for name, measured in results.items():
        whole = Series(values=[one.whole for one in measured])
        flow = Series(values=[one.flowing for one in measured])
        middle = sorted(measured, key=lambda one: one.whole)[len(measured) // 2]
        note = (
            f"{middle.rate:,.0f} chunks/s sent, {middle.reads:.2f} reads a chunk, last chunk {middle.late:.2f} s late,"
            f" bench {middle.bench * MICRO:.1f} µs"
        )
        is_relay = name == "relay"
        ratio = None if is_relay else whole.median / relay.median
        rows.append(
            Row(
                measure=f"CPU per chunk, {what}: {name}",
                value=whole.median * MICRO,
                unit="µs",
                yardstick=None if is_relay else relay.median * MICRO,
                ratio=ratio,
                goal="≤ 1.5 × relay" if goal and not is_relay else "",
                met=None if ratio is None or not goal else ratio <= 1.5,
                spread=whole.spread,
                note=note,
            )
        )
        rows.append(
            Row(
                measure="… while all streams are open",
                value=flow.median * MICRO,
                unit="µs",
                yardstick=None if is_relay else flowing.median * MICRO,
                ratio=None if is_relay else flow.median / flowing.median,
                spread=flow.spread,
            )
        )
    return rows


# Time to the first event --------------------------------------------------------------------------------------------


async def first_event(stage: Stage, sizes: Sizes, dialects: Sequence[str]) -> AsyncIterator[Row]:
    """A constant number of open streams, started one after the other; the time from a request to its first text."""
    streams, chunks, rounds = sizes.first_event
    plan = Plan(chunks=chunks, every=0.01)
    results: dict[str, list[float]] = {name: [] for name in ("relay", *dialects)}
    for _ in range(sizes.repeat):
        for name, measured in results.items():
            measured.extend(await _first_events(stage, name, streams, rounds, plan))
    for name in dialects:
        for part, limit in ((0.5, 5.0), (0.99, 25.0)):
            own, relay = (quantile(results[one], part) * MILLI for one in (name, "relay"))
            yield Row(
                measure=f"time to first event, p{part * 100:.0f}, {streams} streams: {name}",
                value=own,
                unit="ms",
                yardstick=relay,
                ratio=own / relay,
                goal=f"≤ relay + {limit:g} ms",
                met=own - relay <= limit,
                note=f"{own - relay:+.1f} ms, {len(results[name])} answers",
            )


async def _first_events(stage: Stage, name: str, streams: int, rounds: int, plan: Plan) -> list[float]:
    server = stage.relay if name == "relay" else stage.palaver
    caller = None if name == "relay" else stage.ground.callers[name]
    conversations = await stage.conversations(streams * rounds)
    connections = await lines(server.port, streams)
    stage.upstream.fresh(plan)
    seconds: list[float] = []

    async def talk(number: int, line: Line) -> None:
        await asyncio.sleep(number / streams * plan.chunks * plan.every)
        for conversation in conversations[number * rounds : (number + 1) * rounds]:
            async with asyncio.timeout(GUARD):
                await line.ask(relayed() if caller is None else caller.say(conversation), keep=True)
            line.answer()
            seconds.append(line.first - line.sent_at)

    await asyncio.gather(*(talk(number, line) for number, line in enumerate(connections)))
    hang_up(connections)
    return seconds


# Memory -------------------------------------------------------------------------------------------------------------


async def memory(stage: Stage, sizes: Sizes, dialects: Sequence[str]) -> AsyncIterator[Row]:
    """The memory that open streams add to a new process; an older one has free memory left from others."""
    streams, chunks, every = sizes.memory
    for name in dialects:
        await stage.renew()
        caller = stage.ground.callers[name]
        await _warm(stage, caller)
        before = stage.palaver.process.resident()
        conversations = await stage.conversations(streams)
        connections = await lines(stage.palaver.port, streams)
        stage.upstream.fresh(Plan(chunks=chunks, every=every, gated=True))
        progress = Progress.of(streams)
        answers = [line.ask(caller.say(one), progress) for line, one in zip(connections, conversations, strict=True)]
        async with asyncio.timeout(GUARD):
            await progress.reached(progress.text)
            opened = stage.palaver.process.resident()
            stage.upstream.go()
            await progress.reached(progress.last)
            after = stage.palaver.process.resident()
            stage.upstream.finish()
            await asyncio.gather(*answers)
        hang_up(connections)
        value = (max(opened, after) - before) / streams * 1000 / MEGA
        yield Row(
            measure=f"memory for 1,000 open streams: {name}",
            value=value,
            unit="MB",
            goal="≤ 60 MB",
            met=value <= 60,
            note=f"{before / MEGA:.0f} MB before, {after / MEGA:.0f} MB with {streams:,}",
        )


async def _warm(stage: Stage, caller: Caller) -> None:
    """Run some turns, because memory that a process loads once does not belong to the streams."""
    stage.upstream.fresh(Plan(chunks=20))
    line = await Line.to(stage.palaver.port)
    for conversation in await stage.conversations(20):
        await line.ask(caller.say(conversation), keep=True)
        line.answer()
    line.hang_up()
