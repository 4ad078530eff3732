"""Prometheus' text format: several processes' metrics added up to one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger("palaver.supervisor")


@dataclass(slots=True, kw_only=True)
class _MetricFamily:
    """A metric: the lines that introduce it, and its samples by name and labels."""

    head: list[str] = field(default_factory=list[str])
    gauge: bool = False
    samples: dict[str, float] = field(default_factory=dict[str, float])


def merge_metrics(texts: Iterable[bytes]) -> bytes:
    """One text in Prometheus' format in which each sample is the sum of those with its name and labels."""
    families: dict[str, _MetricFamily] = {}
    for text in texts:
        for name, family in _read(text).items():
            total = families.setdefault(name, _MetricFamily(head=family.head, gauge=family.gauge))
            for sample, value in family.samples.items():
                total.samples[sample] = total.samples.get(sample, 0.0) + value
    return _written(families)


def without_gauges(text: bytes) -> bytes:
    """What still counts of a process that is gone, so that no sum ever falls: Prometheus would take that for a restart
    of all, and count everything again."""
    return _written({name: family for name, family in _read(text).items() if not family.gauge})


def _read(text: bytes) -> dict[str, _MetricFamily]:
    families: dict[str, _MetricFamily] = {}
    family = _MetricFamily()
    for line in filter(None, text.decode().split("\n")):  # a label may have what else ends a line
        match line.split(" ", 3):
            case ["#", "HELP" | "TYPE" as what, name, rest]:
                family = families.setdefault(name, _MetricFamily())
                family.head.append(line)
                family.gauge = family.gauge or (what, rest) == ("TYPE", "gauge")
            case _:
                sample, _, value = line.rpartition(" ")
                family.samples[sample] = float(value)
    return families


def _written(families: dict[str, _MetricFamily]) -> bytes:
    lines: list[str] = []
    for family in families.values():
        lines += family.head
        lines += [f"{sample} {value!r}" for sample, value in family.samples.items()]
    return "".join(f"{line}\n" for line in lines).encode()
