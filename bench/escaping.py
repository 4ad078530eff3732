"""The measurement of encoding a long text as ASCII JSON, as in streams."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence

from bench.report import Row, Series
from bench.sizes import Sizes
from bench.stage import Stage
from palaver.wire.framing import ascii_json

TEXT = "苹果可以放一个月。\n🍎" * 60_000
"""About 2 MiB in UTF-8."""


async def escaping(_stage: Stage, sizes: Sizes, _dialects: Sequence[str]) -> AsyncIterator[Row]:
    """Compared with the standard library's C implementation; in this process, because there is no I/O."""
    value = {"text": TEXT}
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(5 * sizes.repeat):
        ours.append(_cost(lambda: ascii_json(value)))
        plain.append(_cost(lambda: json.dumps(value).encode()))
    series, yardstick = Series(values=ours), Series(values=plain)
    yield Row(
        measure="escaping a Chinese text of 2 MiB",
        value=series.median * 1000,
        unit="ms",
        yardstick=yardstick.median * 1000,
        ratio=series.median / yardstick.median,
        goal="≤ 4 × json.dumps",
        met=series.median <= 4 * yardstick.median,
        spread=series.spread,
    )


def _cost(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
