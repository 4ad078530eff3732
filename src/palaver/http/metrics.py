"""The metrics of one process, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from palaver.core.observer import RunReport
from palaver.core.problems import Upstream
from palaver.core.types import Usage

disable_created_metrics()  # type: ignore[no-untyped-call]  saves one series per metric

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MAX_LABEL_VALUES = 200
"""Maximum number of values of the labels ``application`` and ``model``; further ones are counted as ``OTHER_LABEL``."""
OTHER_LABEL = "other"
FIRST_TOKEN_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolGauges:
    """The pool of connections to PostgreSQL. ``lost`` counts since the start of the process."""

    limit: int = 0
    used: int = 0
    idle: int = 0
    waiting: int = 0
    """Statements waiting for a connection."""
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The values read at scrape time. ``statements``, ``stalls``, ``stalled_s`` and ``evicted`` are counters."""

    live_runs: int = 0
    waiting_runs: int = 0
    max_live_runs: int = 0
    open_streams: int = 0
    tasks: int = 0
    statements: int = 0
    stalls: int = 0
    stalled_s: float = 0.0
    connections: int = 0
    unverified: int = 0
    evicted: int = 0
    pool: PoolGauges = PoolGauges()


class _GaugeCollector(Collector):
    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        gauges = self._read()
        yield GaugeMetricFamily("palaver_live_runs", "Runs in progress or queued", gauges.live_runs)
        yield GaugeMetricFamily(
            "palaver_waiting_runs", "Runs queued behind another run of their conversation", gauges.waiting_runs
        )
        yield GaugeMetricFamily("palaver_live_runs_limit", "Maximum number of live runs", gauges.max_live_runs)
        yield GaugeMetricFamily("palaver_open_streams", "Open response streams that follow a run", gauges.open_streams)
        yield GaugeMetricFamily("palaver_connections", "Open client connections", gauges.connections)
        yield GaugeMetricFamily(
            "palaver_unverified_connections",
            "Client connections that have not presented a valid credential",
            gauges.unverified,
        )
        yield CounterMetricFamily(
            "palaver_evicted_connections", "Client connections closed to make room for new ones", gauges.evicted
        )
        yield CounterMetricFamily(
            "palaver_loop_stalls", "Times the event loop was blocked for over 0.2 s", gauges.stalls
        )
        yield CounterMetricFamily(
            "palaver_loop_stalled_seconds", "Total duration of event loop stalls, in seconds", gauges.stalled_s
        )
        yield GaugeMetricFamily("palaver_tasks", "Tasks on the event loop", gauges.tasks)
        yield CounterMetricFamily("palaver_statements", "Statements sent to PostgreSQL", gauges.statements)
        yield from _pool_metrics(gauges.pool)


def _pool_metrics(pool: PoolGauges) -> Iterator[Metric]:
    connections = GaugeMetricFamily("palaver_database_connections", "Connections to PostgreSQL", labels=["state"])
    connections.add_metric(["used"], pool.used)
    connections.add_metric(["idle"], pool.idle)
    yield connections
    yield GaugeMetricFamily(
        "palaver_database_connections_limit", "Maximum number of connections to PostgreSQL", pool.limit
    )
    yield GaugeMetricFamily("palaver_database_waiting", "Statements waiting for a connection", pool.waiting)
    yield CounterMetricFamily("palaver_database_lost_connections", "Connections to PostgreSQL that broke", pool.lost)


class _BoundedLabel:
    """Bounds the cardinality of a label: the first ``MAX_LABEL_VALUES`` values pass, others become ``OTHER_LABEL``."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) == MAX_LABEL_VALUES:
                return OTHER_LABEL
            self._known.add(value)
        return value


class Metrics:
    """Counts requests and, as an ``Observer``, runs, tokens and model errors. ``read`` returns the values that are read
    at scrape time."""

    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_GaugeCollector(read))
        self._application_label, self._model_label = _BoundedLabel(), _BoundedLabel()
        self.requests = self._counter("requests", "Requests answered, by status", "dialect", "route", "status")
        self.request_seconds = self._histogram(
            "request_seconds", "Response time in seconds; for a stream, until its headers", "dialect", "route"
        )
        self.runs_recovered = self._counter("runs_recovered", "Runs of dead processes, ended as interrupted")
        self._application_requests = self._counter(
            "application_requests", "Requests with a valid credential", "application", "status"
        )
        self._runs_ended = self._counter("runs_ended", "Runs that ended, by final status", "status", "application")
        self._tokens = self._counter("tokens", "Tokens, as reported by the models", "model", "direction")
        self._model_errors = self._counter("model_errors", "Model failures, by kind", "model", "kind")
        self._first_token_seconds = self._histogram(
            "first_token_seconds",
            "Time from the start of a run to the model's first output, in seconds",
            "model",
            buckets=FIRST_TOKEN_BUCKETS_S,
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"palaver_{name}", documentation, labels, registry=self._registry)

    def _histogram(
        self, name: str, documentation: str, *labels: str, buckets: tuple[float, ...] = Histogram.DEFAULT_BUCKETS
    ) -> Histogram:
        return Histogram(f"palaver_{name}", documentation, labels, registry=self._registry, buckets=buckets)

    def count_request(self, app_id: int, status: int) -> None:
        """Count a request with a valid credential of application ``app_id``."""
        self._application_requests.labels(self._application_label(str(app_id)), str(status)).inc()

    def run_ended(self, report: RunReport) -> None:
        ended = report.ended
        self._runs_ended.labels(str(ended.status), self._application_label(str(report.app))).inc()
        if isinstance(ended.problem, Upstream):
            self.model_failed(report.model, ended.problem)
        if not report.model:
            return
        model = self._model_label(report.model)
        if report.first_token_s is not None:
            self._first_token_seconds.labels(model).observe(report.first_token_s)
        self.tokens_used(report.model, ended.usage)

    def tokens_used(self, model: str, usage: Usage) -> None:
        for direction, count in (("input", usage.prompt), ("output", usage.completion)):
            if count:
                self._tokens.labels(self._model_label(model), direction).inc(max(count, 0))

    def model_failed(self, model: str, problem: Upstream) -> None:
        self._model_errors.labels(self._model_label(model or "unknown"), problem.reason).inc()

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        return generate_latest(self._registry)
