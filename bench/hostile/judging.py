"""Judges an attack by the healthy caller's observations and the state of the server."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from bench.calling import Failed
from bench.hostile.attacks import Attack
from bench.hostile.target import MEGA, WORDS, Ground, Memory, Target, serving
from bench.machine import ROOT, Cpus, Unfit
from bench.report import quantile

SLOWEST_S = 1.0
"""Maximum duration of the healthy caller's slowest call, in seconds."""
KEPT = 96 * MEGA
"""Maximum growth of the server's memory after the attack, in bytes."""
STALLED = "event loop stalled"
STALL_S = 0.5
"""Maximum duration of a stall logged by the watchdog, in seconds, without waiting for a CPU."""
SETTLES_WITHIN = 15.0
DRAIN_S = 5.0
ENDS_WITHIN = DRAIN_S + 10
WARM_S = 1.0
"""Seconds for which the healthy caller runs alone before the attack."""


@dataclass(slots=True, kw_only=True)
class Verdict:
    """``wrong`` lists what the attack achieved; times are in seconds, memory in MiB."""

    attack: str
    note: str = ""
    calls: int = 0
    p50: float = 0.0
    p99: float = 0.0
    slowest: float = 0.0
    slowest_call: str = ""
    before: float = 0.0
    highest: float = 0.0
    after: float = 0.0
    stall: float = 0.0
    """The longest stall logged by the watchdog."""
    ends: float = 0.0
    load: float = 0.0
    """The machine's load average over the last minute."""
    wrong: list[str] = field(default_factory=list[str])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def judge_calls(self, observed: Mapping[str, Any], slowest_s: float) -> None:
        seconds: dict[str, list[float]] = observed["seconds"]
        every = [one for some in seconds.values() for one in some]
        self.calls = len(every)
        if not every:
            self.wrong.append("the healthy caller made no call")
            return
        self.p50, self.p99 = quantile(every, 0.5), quantile(every, 0.99)
        self.slowest, self.slowest_call = max((max(some), name) for name, some in seconds.items())
        if self.slowest >= slowest_s:
            self.wrong.append(f"the healthy caller waited {self.slowest:.2f} s of {slowest_s:.2f}")
        if observed["failed"]:
            self.wrong.append(f"{observed['failed']} calls of the healthy caller failed: {observed['failures'][0]}")

    def judge_log(self, lines: Sequence[Mapping[str, Any]], expected: str) -> None:
        """Check the log for unexpected errors and for long stalls of the event loop."""
        for line in lines:
            if line.get("event") == STALLED:
                self.stall = max(self.stall, float(line["cpu_s"]) + float(line["blocked_s"]))
            if line.get("event") != expected and (line.get("level") == "error" or self.stall >= STALL_S):
                self.wrong.append(f"in the log: {json.dumps(line)[:600]}")
                return


async def judged(
    ground: Ground, attacks: Sequence[Attack], seconds: float, size: float, cpus: Cpus, *, shared: bool = False
) -> list[Verdict]:
    """Run the attacks one after the other on one server, then shut it down. Returns a verdict for each.

    On a ``shared`` machine, calls may be slower by the factor by which the healthy caller's computations were.
    """
    verdicts: list[Verdict] = []
    async with serving(ground, cpus) as target:
        target.size = size
        children = psutil.Process(target.process.pid)
        for attack in attacks:
            verdict = Verdict(attack=attack.name)
            verdicts.append(verdict)
            try:
                await _attack(target, attack, verdict, seconds, shared)
            except Unfit as gone:
                verdict.wrong.append(str(gone)[:600])
                return verdicts
            verdict.judge_log(target.logged(), attack.logs)
        left = children.children(recursive=True)
        begun = time.monotonic()
        await asyncio.to_thread(target.process.stop)
        last = verdicts[-1]
        last.ends = time.monotonic() - begun
        if last.ends > ENDS_WITHIN:
            last.wrong.append(f"SIGTERM took {last.ends:.1f} s")
        _, alive = psutil.wait_procs(left, timeout=2)
        if alive:
            last.wrong.append(f"left behind: {alive}")
        last.judge_log(target.logged(), attacks[-1].logs)
    return verdicts


async def _attack(target: Target, attack: Attack, verdict: Verdict, seconds: float, shared: bool) -> None:
    observed: dict[str, Any] = {}
    async with Memory(target.process) as memory:
        try:
            async with healthy(target, observed):
                await asyncio.sleep(WARM_S)
                verdict.before = memory.now / MEGA
                target.until = time.monotonic() + seconds
                async with asyncio.timeout(seconds + 90):
                    verdict.note = await attack.run(target)
                await target.idle(SETTLES_WITHIN)
        except (Failed, TimeoutError, OSError) as error:
            target.process.alive()
            verdict.wrong.append(f"{type(error).__name__}: {error}"[:600])
        target.process.alive()
        verdict.after = await _settled(memory, verdict.before * MEGA + KEPT) / MEGA
        verdict.highest = memory.highest / MEGA
    verdict.load = psutil.getloadavg()[0]
    verdict.judge_calls(observed, SLOWEST_S * (observed["slowness"] if shared else 1.0))
    if verdict.after > verdict.before + KEPT / MEGA:
        verdict.wrong.append(f"{verdict.after - verdict.before:.0f} MiB of memory are kept")


async def _settled(memory: Memory, at_most: float) -> int:
    """The memory, after waiting until it is at most ``at_most``, but not longer than ``SETTLES_WITHIN``."""
    until = time.monotonic() + SETTLES_WITHIN
    while memory.now > at_most and time.monotonic() < until:  # noqa: ASYNC110  another process's
        await asyncio.sleep(0.2)
    return memory.now


@asynccontextmanager
async def healthy(target: Target, observed: dict[str, Any]) -> AsyncGenerator[None]:
    """Run the healthy caller during the block; its observations are in ``observed`` afterwards."""
    orders = {
        "port": target.port,
        "secret": target.ground.neighbour.secret,
        "agent": target.ground.neighbours_agent.id,
        "words": WORDS,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.hostile.healthy",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    try:
        await process.stdout.readline()
        yield
    finally:
        process.stdin.close()
        out, _ = await process.communicate()
        observed.update(
            json.loads(out) if out else {"seconds": {}, "failures": ["it broke"], "failed": 1, "slowness": 1.0}
        )
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)


HEAD = (
    "attack",
    "calls",
    "p50",
    "p99",
    "slowest",
    "of",
    "memory: before",
    "most",
    "after",
    "stall",
    "ends in",
    "load",
    "",
)


def table(verdicts: Sequence[Verdict]) -> str:
    """A plain-text table."""
    lines = [HEAD, *map(_cells, verdicts)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD) - 1)]
    written = ["  ".join([*map(str.ljust, line[:-1], widths), line[-1]]).rstrip() for line in lines]
    return "\n".join([written[0], "-" * len(written[0]), *written[1:]])


def _cells(one: Verdict) -> tuple[str, ...]:
    times = [f"{1000 * seconds:.0f} ms" for seconds in (one.p50, one.p99, one.slowest)]
    memory = [f"{mega:.0f} MiB" for mega in (one.before, one.highest, one.after)]
    end = f"GOT THROUGH: {'; '.join(one.wrong)}" if one.wrong else one.note
    return (
        one.attack,
        str(one.calls),
        *times,
        one.slowest_call,
        *memory,
        f"{one.stall:.1f} s",
        f"{one.ends:.1f} s",
        f"{one.load:.1f}",
        end,
    )


def markdown(verdicts: Sequence[Verdict]) -> str:
    """A Markdown table."""
    head = [*(cell.capitalize() for cell in HEAD[:-1]), "What happened"]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(HEAD), *map(_cells, verdicts)))
