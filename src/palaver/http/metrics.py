"""What ``GET /metrics`` tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  a second series for each, which nobody reads

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The figures that are read off when somebody asks."""

    live_runs: int
    open_streams: int
    tasks: int
    statements: int
    ended: dict[str, int]
    """Runs that ended here, by status."""
    connections: int = 0
    unverified: int = 0
    evicted: int = 0


class _Readings(Collector):
    def __init__(self, read: Callable[[], Reading]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        now = self._read()
        yield GaugeMetricFamily("palaver_live_runs", "Runs that work or wait in this process", now.live_runs)
        yield GaugeMetricFamily("palaver_open_streams", "Streams that follow a run", now.open_streams)
        yield GaugeMetricFamily("palaver_connections", "Open connections", now.connections)
        yield GaugeMetricFamily("palaver_unverified_connections", "Those without a verified credential", now.unverified)
        yield CounterMetricFamily("palaver_evicted_connections", "Connections closed for new ones", now.evicted)
        yield GaugeMetricFamily("palaver_tasks", "Tasks of the event loop", now.tasks)
        yield CounterMetricFamily("palaver_statements", "Statements sent to PostgreSQL", now.statements)
        ended = CounterMetricFamily("palaver_runs_ended", "Runs that ended in this process", labels=["status"])
        for status, count in sorted(now.ended.items()):
            ended.add_metric([status], count)
        yield ended


class Metrics:
    """Counts requests; everything else is read at the moment it is asked for."""

    def __init__(self, read: Callable[[], Reading]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Readings(read))
        self.requests = Counter(
            "palaver_requests", "Requests answered", ["dialect", "route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "palaver_request_seconds",
            "Time to the answer's last byte; of a stream, to its headers",
            ["dialect", "route"],
            registry=self._registry,
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)
