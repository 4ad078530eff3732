"""Merges the metrics of several processes, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger("palaver.supervisor")


@dataclass(slots=True, kw_only=True)
class _MetricFamily:
    """One metric. ``head``: its HELP and TYPE lines; ``samples``: its values by name and labels, as in the text."""

    head: list[str] = field(default_factory=list[str])
    gauge: bool = False
    samples: dict[str, float] = field(default_factory=dict[str, float])


def merge_metrics(texts: Iterable[bytes]) -> bytes:
    """The sum of ``texts``: samples with the same name and labels are added."""
    families: dict[str, _MetricFamily] = {}
    for text in texts:
        for name, family in _parse(text).items():
            total = families.setdefault(name, _MetricFamily(head=family.head, gauge=family.gauge))
            for sample, value in family.samples.items():
                total.samples[sample] = total.samples.get(sample, 0.0) + value
    return _format(families)


def without_gauges(text: bytes) -> bytes:
    """The counters and histograms of ``text``. Those of an exited process stay in the total: a counter that decreases
    looks like a restart to Prometheus."""
    return _format({name: family for name, family in _parse(text).items() if not family.gauge})


def _parse(text: bytes) -> dict[str, _MetricFamily]:
    families: dict[str, _MetricFamily] = {}
    family = _MetricFamily()
    for line in filter(None, text.decode().split("\n")):  # a label value may contain other line separators
        match line.split(" ", 3):
            case ["#", "HELP" | "TYPE" as what, name, rest]:
                family = families.setdefault(name, _MetricFamily())
                family.head.append(line)
                family.gauge = family.gauge or (what, rest) == ("TYPE", "gauge")
            case _:
                sample, _, value = line.rpartition(" ")
                family.samples[sample] = float(value)
    return families


def _format(families: dict[str, _MetricFamily]) -> bytes:
    lines: list[str] = []
    for family in families.values():
        lines += family.head
        lines += [f"{sample} {value!r}" for sample, value in family.samples.items()]
    return "".join(f"{line}\n" for line in lines).encode()
