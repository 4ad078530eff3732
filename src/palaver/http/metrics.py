"""What ``GET /metrics`` tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from palaver.core.observer import RunReport
from palaver.core.problems import Upstream
from palaver.core.types import Usage

disable_created_metrics()  # type: ignore[no-untyped-call]  a second series for each, which nobody reads

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MAX_LABEL_VALUES = 200
"""Values of a label whose number operators decide: applications, models. Above it they count together."""
OTHER = "other"
FIRST_TOKEN_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolGauges:
    """The connections to PostgreSQL."""

    limit: int = 0
    used: int = 0
    idle: int = 0
    waiting: int = 0
    """Statements that wait for one."""
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The figures that are read off when somebody asks."""

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


class _Readings(Collector):
    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        now = self._read()
        yield GaugeMetricFamily("palaver_live_runs", "Runs that work or wait", now.live_runs)
        yield GaugeMetricFamily("palaver_waiting_runs", "Those that wait for the one before them", now.waiting_runs)
        yield GaugeMetricFamily("palaver_live_runs_limit", "Live runs above which new ones are busy", now.max_live_runs)
        yield GaugeMetricFamily("palaver_open_streams", "Streams that follow a run", now.open_streams)
        yield GaugeMetricFamily("palaver_connections", "Open connections", now.connections)
        yield GaugeMetricFamily("palaver_unverified_connections", "Those without a verified credential", now.unverified)
        yield CounterMetricFamily("palaver_evicted_connections", "Connections closed for new ones", now.evicted)
        yield CounterMetricFamily("palaver_loop_stalls", "Times the event loop was held for over 0.2 s", now.stalls)
        yield CounterMetricFamily("palaver_loop_stalled_seconds", "Seconds of these", now.stalled_s)
        yield GaugeMetricFamily("palaver_tasks", "Tasks of the event loop", now.tasks)
        yield CounterMetricFamily("palaver_statements", "Statements sent to PostgreSQL", now.statements)
        yield from _of_pool(now.pool)


def _of_pool(pool: PoolGauges) -> Iterator[Metric]:
    connections = GaugeMetricFamily("palaver_database_connections", "Connections to PostgreSQL", labels=["state"])
    connections.add_metric(["used"], pool.used)
    connections.add_metric(["idle"], pool.idle)
    yield connections
    yield GaugeMetricFamily("palaver_database_connections_limit", "The most there may be", pool.limit)
    yield GaugeMetricFamily("palaver_database_waiting", "Statements that wait for a connection", pool.waiting)
    yield CounterMetricFamily("palaver_database_lost_connections", "Connections that broke", pool.lost)


class _BoundedLabel:
    """The values of one label: the first ``MAX_LABEL_VALUES`` by themselves, the rest as one."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value not in self._known:
            if len(self._known) == MAX_LABEL_VALUES:
                return OTHER
            self._known.add(value)
        return value


class Metrics:
    """Counts requests and the ends of runs (an ``Observer``); everything else is read at the moment it is asked for."""

    def __init__(self, read: Callable[[], Gauges]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Readings(read))
        self._application, self._model = _BoundedLabel(), _BoundedLabel()
        self.requests = self._counter("requests", "Requests answered", "dialect", "route", "status")
        self.seconds = self._histogram(
            "request_seconds", "Time to the answer's last byte; of a stream, to its headers", "dialect", "route"
        )
        self.recovered = self._counter("runs_recovered", "Runs of dead processes that were ended as interrupted")
        self._requests_of = self._counter(
            "application_requests", "Requests with a good credential", "application", "status"
        )
        self._ended = self._counter("runs_ended", "Runs that ended", "status", "application")
        self._tokens = self._counter("tokens", "Tokens as the models reported them", "model", "direction")
        self._errors = self._counter("model_errors", "Failures of models", "model", "kind")
        self._first_token = self._histogram(
            "first_token_seconds", "Time from a run's start to its first words", "model", buckets=FIRST_TOKEN_S
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"palaver_{name}", text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = Histogram.DEFAULT_BUCKETS
    ) -> Histogram:
        return Histogram(f"palaver_{name}", text, labels, registry=self._registry, buckets=buckets)

    def count_request(self, app: int, status: int) -> None:
        """A request of an application, whose credential was good."""
        self._requests_of.labels(self._application(str(app)), str(status)).inc()

    def run_ended(self, report: RunReport) -> None:
        ended = report.ended
        self._ended.labels(str(ended.status), self._application(str(report.app))).inc()
        if isinstance(ended.problem, Upstream):
            self.model_failed(report.model, ended.problem)
        if not report.model:
            return
        model = self._model(report.model)
        if report.first_token_s is not None:
            self._first_token.labels(model).observe(report.first_token_s)
        self.tokens_used(report.model, ended.usage)

    def tokens_used(self, model: str, usage: Usage) -> None:
        for direction, count in (("input", usage.prompt), ("output", usage.completion)):
            if count:
                self._tokens.labels(self._model(model), direction).inc(max(count, 0))

    def model_failed(self, model: str, problem: Upstream) -> None:
        self._errors.labels(self._model(model or "unknown"), problem.reason).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)
