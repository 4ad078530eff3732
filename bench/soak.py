"""``python -m bench.soak``: 100,000 short turns whose callers disconnect, stop or read slowly; checks for leaks.

The memory and the handles at the end are compared with those after the first tenth of the turns.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import uvloop

from bench.callers import Caller, get
from bench.calling import GUARD, Failed, Line, Progress
from bench.machine import Cpus, Unfit, two_cpus
from bench.report import Row, table
from bench.stage import Stage, staged
from bench.streams import MEGA
from bench.upstream import Plan
from palaver import app
from palaver.config import Settings
from palaver.core.problems import Problem
from palaver.logs import configure_logs

TURNS = 100_000
WORKERS = 64
CONVERSATIONS = 8
"""Conversations per worker, used in turn: after a disconnection, an answer is still being written."""
RENEWED_AFTER = 50
"""Rounds through a worker's conversations before it creates new ones."""
PLAN = Plan(chunks=10, every=0.01)
SLOWLY_S = 0.3
SETTLES_WITHIN = 60.0
_METRIC = re.compile(rb"(?m)^(palaver_[a-z_]+) ([0-9.e+]+)$")
_IDLE = ("palaver_live_runs", "palaver_open_streams")


def manner(turn: int) -> str:
    """The behaviour of a turn's caller."""
    match turn % 20:
        case 3:
            return "vanishes before the answer"
        case 9:
            return "vanishes in the middle"
        case 13:
            return "stops"
        case 17:
            return "reads slowly"
        case _:
            return "waits"


@dataclass(slots=True)
class Tally:
    """The progress of all workers."""

    turns: Iterator[int]
    done: Counter[str] = field(default_factory=Counter[str])
    reported_at: float = 0.0

    def report(self) -> None:
        if (now := time.monotonic()) > self.reported_at + 10:
            self.reported_at = now
            print(f"{self.done.total():,} turns", file=sys.stderr, flush=True)


class Worker:
    """Runs turns one after the other, each with another caller."""

    def __init__(self, stage: Stage, tally: Tally, callers: Mapping[str, Caller]) -> None:
        self._stage = stage
        self._tally = tally
        self._callers = list(callers.values())
        self._stopper = callers["xspace"]
        self._line: Line | None = None

    async def work(self) -> None:
        while True:
            conversations = await self._stage.conversations(CONVERSATIONS)
            for conversation in itertools.chain.from_iterable([conversations] * RENEWED_AFTER):
                turn = next(self._tally.turns, None)
                if turn is None:
                    self._hang_up()
                    return
                async with asyncio.timeout(GUARD):
                    await self._take(turn, conversation)
                self._tally.done[manner(turn)] += 1
                self._tally.report()

    async def _take(self, turn: int, conversation: UUID) -> None:
        line = self._line = self._line or await Line.to(self._stage.palaver.port)
        progress = Progress.of(1)
        how = manner(turn)
        answer = line.ask(self._callers[turn % len(self._callers)].say(conversation), progress, keep=how != "stops")
        match how:
            case "vanishes before the answer":
                self._leave(answer)
            case "vanishes in the middle":
                await progress.reached(progress.text)
                self._leave(answer)
            case "stops":
                await progress.reached(progress.text)
                await self._stop(conversation)
                await answer
            case "reads slowly":
                await progress.reached(progress.text)
                line.read_nothing()
                await asyncio.sleep(SLOWLY_S)
                line.read_on()
                await answer
            case _:
                await answer
                line.answer()

    def _leave(self, answer: asyncio.Future[None]) -> None:
        answer.cancel()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.hang_up()
            self._line = None

    async def _stop(self, conversation: UUID) -> None:
        line = await Line.to(self._stage.palaver.port)
        await line.whole(self._stopper.stop(conversation))
        line.hang_up()


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The resources of an idle palaver."""

    resident: int
    handles: int
    metrics: Mapping[str, float]


async def settled(stage: Stage, at_most: int | None = None) -> Left:
    """Wait until there are no runs and no streams, and at most ``at_most`` handles. Raises ``Failed``."""
    until = time.monotonic() + SETTLES_WITHIN
    while True:
        line = await Line.to(stage.palaver.port)
        text = await line.whole(get("/metrics"))
        line.hang_up()
        metrics = {name.decode(): float(value) for name, value in _METRIC.findall(text)}
        process = stage.palaver.process
        left = Left(resident=process.resident(), handles=process.handles(), metrics=metrics)
        busy = {name: metrics[name] for name in _IDLE if metrics[name]}
        if not busy and not stage.upstream.live and (at_most is None or left.handles <= at_most):
            return left
        if time.monotonic() > until:
            calls = len(stage.upstream.live)
            raise Failed(f"after {SETTLES_WITHIN:g} s there are {busy}, {left.handles} handles, {calls} calls")
        await asyncio.sleep(0.2)


async def soak(stage: Stage, turns: int, workers: int) -> list[Row]:
    stage.upstream.fresh(PLAN)
    before = await _some(stage, workers, Tally(turns=iter(range(turns // 10))))
    begun = time.monotonic()
    rest = Tally(turns=iter(range(turns // 10, turns)))
    after = await _some(stage, workers, rest, at_most=before.handles)
    took = time.monotonic() - begun
    held = await stage.connection.fetchval("SELECT count(*) FROM message WHERE status = 'live'")
    stored = await stage.connection.fetchval("SELECT count(*) FROM message WHERE role = 'assistant'")
    stops = sum(manner(turn) == "stops" for turn in range(turns))
    growth = after.resident / before.resident
    return [
        Row(
            measure="memory at the end",
            value=after.resident / MEGA,
            unit="MB",
            yardstick=before.resident / MEGA,
            ratio=growth,
            goal="≤ 1.1 × after the first tenth",
            met=growth <= 1.1,
        ),
        _none("open files and sockets beyond those after the first tenth", max(0, after.handles - before.handles)),
        _none("tasks beyond those after the first tenth", _tasks(after) - _tasks(before)),
        _none("runs in the database that nobody ended", held),
        Row(
            measure="turns stored",
            value=stored,
            unit="",
            yardstick=turns,
            goal="all, but for callers who vanished before",
            met=turns - _vanished(turns) <= stored <= turns,
            note=", ".join(f"{count:,} {how}" for how, count in rest.done.most_common()),
        ),
        Row(
            measure="answers cut off at the model's endpoint",
            value=stage.upstream.broken_off,
            unit="",
            yardstick=stops,
            goal="no more than were stopped",
            met=stage.upstream.broken_off <= stops,
            note="a caller who goes away stops nothing",
        ),
        Row(measure="pace", value=(turns - turns // 10) / took, unit="turns/s"),
    ]


def _vanished(turns: int) -> int:
    """The number of turns whose request may not have arrived."""
    return sum(manner(turn) == "vanishes before the answer" for turn in range(turns))


def _tasks(left: Left) -> int:
    return int(left.metrics.get("palaver_tasks", 0))


def _none(measure: str, count: int) -> Row:
    return Row(measure=measure, value=count, unit="", goal="none", met=count <= 0)


async def _some(stage: Stage, workers: int, tally: Tally, at_most: int | None = None) -> Left:
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(Worker(stage, tally, stage.ground.callers).work())
    return await settled(stage, at_most)


async def _measured(options: argparse.Namespace) -> list[Row]:
    task: asyncio.Task[Any] | None = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    cpus = Cpus(server=None, others=None) if options.unpinned else two_cpus()
    async with staged(cpus, [dialect.name for dialect in app.all_dialects()]) as stage:
        return await soak(stage, options.turns, options.workers)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Run many turns and check for leaks.")
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N")
    parser.add_argument("--workers", type=int, default=WORKERS, metavar="N", help="number of concurrent callers")
    parser.add_argument("--unpinned", action="store_true", help="do not pin processes to CPUs")
    options = parser.parse_args()
    configure_logs(Settings(log_level="error"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows = runner.run(_measured(options))
    except* (Unfit, Failed, Problem, TimeoutError) as problems:
        print("\n".join(f"soak: {one or type(one).__name__}" for one in problems.exceptions), file=sys.stderr)
        sys.exit(1)
    except* (KeyboardInterrupt, asyncio.CancelledError):
        print("soak: stopped, everything is cleaned up", file=sys.stderr)
        sys.exit(130)
    print(table(rows))
    sys.exit(0 if all(row.met is not False for row in rows) else 1)


if __name__ == "__main__":
    main()
