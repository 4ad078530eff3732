"""``python -m bench``: runs the measurements and prints a table. See docs/performance.md."""

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
from bench.report import Row, as_json, format_value, markdown, table
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
"""In order of execution: the long lists come last, so that they do not affect other measurements."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure palaver, compared with a bare relay.")
    names = [dialect.name for dialect in app.all_dialects()]
    parser.add_argument("--only", action="append", choices=MEASURES, help="run this measurement; can be repeated")
    parser.add_argument("--dialect", action="append", choices=names, help="use this dialect; can be repeated")
    parser.add_argument("--repeat", type=int, metavar="N", help="number of repetitions")
    parser.add_argument("--quick", action="store_true", help="minimal sizes, to check that the bench works")
    parser.add_argument("--unpinned", action="store_true", help="do not pin processes to CPUs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return parser.parse_args(argv)


async def measured(options: argparse.Namespace, rows: list[Row]) -> None:
    """Run the selected measurements. Results are appended to ``rows`` one by one: a failure keeps the others."""
    task: asyncio.Task[Any] | None = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    cpus = Cpus(server=None, others=None) if options.unpinned else two_cpus()
    sizes = QUICK if options.quick else FULL
    if options.repeat is not None:
        sizes = replace(sizes, repeat=max(1, options.repeat), starts=max(1, options.repeat))
    dialects: list[str] = options.dialect or [dialect.name for dialect in app.all_dialects()]
    say("starting PostgreSQL, the relay and palaver …")
    async with staged(cpus, sorted({*dialects, "sonaops"}), (FEW, MANY)) as stage:
        for name, measure in MEASURES.items():
            if options.only and name not in options.only:
                continue
            begun = time.monotonic()
            say(f"{name} …")
            async for row in measure(stage, sizes, dialects):
                rows.append(row)
                say(f"  {row.measure}: {format_value(row.value, row.unit)}")
            stage.palaver.process.alive()
            say(f"{name}: {time.monotonic() - begun:.1f} s")


def main() -> None:
    options = arguments()
    configure_logs(Settings(log_level="error"))
    rows: list[Row] = []
    status = 0
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measured(options, rows))
    except (Unfit, Failed, Problem, TimeoutError) as problem:
        say(f"bench: {problem or type(problem).__name__}")
        status = 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("bench: stopped, everything is cleaned up")
        status = 130
    if rows:
        print(markdown(rows) if options.markdown else table(rows))
    if options.json is not None:
        machine = {"system": platform.platform(), "python": platform.python_version()}
        options.json.write_text(json.dumps({"machine": machine, "rows": as_json(rows)}, indent=1, ensure_ascii=False))
    sys.exit(status)


if __name__ == "__main__":
    main()
