"""``python -m bench``: takes the measures, prints the table. See docs/performance.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from bench.calling import Failed
from bench.escaping import escaping
from bench.growth import FEW, MANY, listing, sending
from bench.machine import Cpus, Unfit, two_cpus
from bench.report import Row, as_json, markdown, shown, table
from bench.sizes import FULL, QUICK, Sizes
from bench.stage import Stage, staged
from bench.starts import starting
from bench.streams import chunk_cpu, first_event, memory
from bench.turns import creating, statements, turns
from palaver import app
from palaver.config import Settings
from palaver.core.problems import Problem
from palaver.logs import configure_logs

Measure = Callable[[Stage, Sizes, Sequence[str]], AsyncIterator[Row]]

MEASURES: Mapping[str, Measure] = {
    "chunks": chunk_cpu,
    "first-event": first_event,
    "memory": memory,
    "escaping": escaping,
    "create": creating,
    "turns": turns,
    "statements": statements,
    "long": sending,
    "many": listing,
    "start": starting,
}
"""In the order in which they are taken: the lists are filled last, so that nothing else works beside them."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What palaver costs, beside a bare relay.")
    known = [dialect.name for dialect in app.all_dialects()]
    parser.add_argument("--only", action="append", choices=MEASURES, help="take this measure; may be repeated")
    parser.add_argument("--dialect", action="append", choices=known, help="in this dialect; may be repeated")
    parser.add_argument("--repeat", type=int, metavar="N", help="how often each measure is taken")
    parser.add_argument("--quick", action="store_true", help="as little as shows that the bench works")
    parser.add_argument("--unpinned", action="store_true", help="let the system place the processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--markdown", action="store_true", help="print a table for a document")
    return parser.parse_args(given)


async def measured(asked: argparse.Namespace, rows: list[Row]) -> None:
    """Take every measure that was asked for; ``rows`` has what there is, also when a later one fails."""
    ending: asyncio.Task[Any] | None = asyncio.current_task()
    assert ending is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.cancel)
    cpus = Cpus(server=None, others=None) if asked.unpinned else two_cpus()
    sizes = QUICK if asked.quick else FULL
    if asked.repeat is not None:
        sizes = replace(sizes, repeat=max(1, asked.repeat), starts=max(1, asked.repeat))
    dialects: list[str] = asked.dialect or [dialect.name for dialect in app.all_dialects()]
    say("starting PostgreSQL, the relay and palaver …")
    async with staged(cpus, sorted({*dialects, "sonaops"}), (FEW, MANY)) as stage:
        for name, measure in MEASURES.items():
            if asked.only and name not in asked.only:
                continue
            begun = time.monotonic()
            say(f"{name} …")
            async for row in measure(stage, sizes, dialects):
                rows.append(row)
                say(f"  {row.measure}: {shown(row.value, row.unit)}")
            stage.palaver.process.alive()
            say(f"{name}: {time.monotonic() - begun:.1f} s")


def main() -> None:
    asked = arguments()
    configure_logs(Settings(log_level="error"))
    rows: list[Row] = []
    status = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measured(asked, rows))
    except (Unfit, Failed, Problem, TimeoutError) as problem:
        say(f"bench: {problem or type(problem).__name__}")
        status = 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("bench: stopped, nothing is left behind")
        status = 130
    if rows:
        print(markdown(rows) if asked.markdown else table(rows))
    if asked.json is not None:
        machine = {"system": platform.platform(), "python": platform.python_version()}
        asked.json.write_text(json.dumps({"machine": machine, "rows": as_json(rows)}, indent=1, ensure_ascii=False))
    sys.exit(status)


if __name__ == "__main__":
    main()
