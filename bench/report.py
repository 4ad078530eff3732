"""Results as rows: one per measurement, with its yardstick and its goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement. ``met`` is ``None`` if it has no goal."""

    measure: str
    value: float
    unit: str
    yardstick: float | None = None
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    spread: float | None = None
    """The difference between the smallest and the largest repetition, relative to the median."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Repetitions of one measurement."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0


def quantile(values: Sequence[float], part: float) -> float:
    """The value that ``part`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


HEAD = ("measure", "value", "yardstick", "ratio", "goal", "met", "spread", "note")


def cells(row: Row) -> tuple[str, ...]:
    met = "" if row.met is None else "yes" if row.met else "NO"
    spread = "" if row.spread is None else f"±{row.spread * 50:.0f} %"
    yardstick = "" if row.yardstick is None else format_value(row.yardstick, row.unit)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return (row.measure, format_value(row.value, row.unit), yardstick, ratio, row.goal, met, spread, row.note)


def format_value(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def table(rows: Sequence[Row]) -> str:
    """A plain-text table."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD))]
    written = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([written[0], "-" * len(written[0]), *written[1:]])


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table of the rows that have a goal."""
    goals = [cells(row)[:6] for row in rows if row.met is not None]
    head = [cell.capitalize() for cell in HEAD[:6]]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * 6, *goals))


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
