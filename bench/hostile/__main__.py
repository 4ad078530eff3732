"""``python -m bench.hostile``: runs each attack on a new server with 512 MiB; exits with 1 if one succeeds.

Meanwhile, a healthy caller of another application runs turns and reads. An attack succeeds if that caller waits a
second or is rejected, if the server fails or does not free the memory, or if it does not shut down in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

import uvloop

from bench.calling import Failed
from bench.hostile.attacks import ATTACKS
from bench.hostile.judging import Verdict, judged, markdown, table
from bench.hostile.target import grounds
from bench.machine import Cpus, Unfit
from palaver.config import Settings
from palaver.core.problems import Problem
from palaver.logs import configure_logs

SECONDS = 6.0


async def _attacked(options: argparse.Namespace) -> list[Verdict]:
    ending: asyncio.Task[Any] | None = asyncio.current_task()
    assert ending is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.cancel)
    verdicts: list[Verdict] = []
    async with grounds() as ground:
        for attack in ATTACKS:
            if options.only in attack.name:
                print(f"{attack.name}: {attack.what}", file=sys.stderr, flush=True)
                verdicts += await judged(
                    ground, [attack], options.seconds, options.size, Cpus(server=None, others=None)
                )
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description="Attacks, and who gets through.")
    parser.add_argument("--only", default="", metavar="NAME", help="attacks whose name contains this")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help="of one attack")
    parser.add_argument("--size", type=float, default=1.0, metavar="PART", help="of the whole of it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--markdown", action="store_true", help="print a table for a document")
    options = parser.parse_args()
    configure_logs(Settings(log_level="error"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            verdicts = runner.run(_attacked(options))
    except (Unfit, Failed, Problem, TimeoutError) as problem:
        print(f"hostile: {problem or type(problem).__name__}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("hostile: stopped, nothing is left behind", file=sys.stderr)
        sys.exit(130)
    if options.json:
        print(json.dumps([one.as_json() for one in verdicts], indent=2))
    else:
        print((markdown if options.markdown else table)(verdicts))
    sys.exit(0 if verdicts and not any(one.wrong for one in verdicts) else 1)


if __name__ == "__main__":
    main()
