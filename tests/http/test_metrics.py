"""The cardinality of labels is bounded, and metrics of several processes are merged."""

from __future__ import annotations

import re

from palaver.core.observer import RunReport
from palaver.core.problems import Upstream
from palaver.core.types import RunEnded, Status, Usage
from palaver.http.merged_metrics import merge_metrics, without_gauges
from palaver.http.metrics import MAX_LABEL_VALUES, Gauges, Metrics

FAILED = RunEnded(status=Status.FAILED, usage=Usage(prompt=2, completion=3), problem=Upstream(reason="cut"))


def _busy() -> Metrics:
    metrics = Metrics(Gauges)
    for number in range(MAX_LABEL_VALUES + 50):
        metrics.count_request(number, 200)
        metrics.run_ended(RunReport(app=number, model=f"model {number}", ended=FAILED, first_token_s=0.4))
    return metrics


def _values(text: str, label: str) -> set[str]:
    return set(re.findall(rf'[{{,]{label}="([^"]*)"', text))


def test_labels_beyond_the_limit_are_counted_as_other() -> None:
    text = _busy().text().decode()
    for label in ("application", "model"):
        values = _values(text, label)
        assert len(values) == MAX_LABEL_VALUES + 1
        assert "other" in values
    assert 'palaver_tokens_total{direction="output",model="other"} 150.0' in text
    assert 'palaver_model_errors_total{kind="cut",model="other"} 50.0' in text


def test_metrics_of_several_processes_are_added_including_histograms() -> None:
    odd = Metrics(Gauges)
    odd.run_ended(RunReport(app=1, model="a\u2028b c", ended=FAILED, first_token_s=3.0))
    odd.run_ended(RunReport(app=1, model="model 1", ended=FAILED, first_token_s=3.0))
    text = merge_metrics([_busy().text(), _busy().text(), odd.text()]).decode()
    assert 'palaver_first_token_seconds_bucket{le="0.25",model="model 1"} 0.0\n' in text
    assert 'palaver_first_token_seconds_bucket{le="0.5",model="model 1"} 2.0\n' in text
    assert 'palaver_first_token_seconds_bucket{le="+Inf",model="model 1"} 3.0\n' in text
    assert 'palaver_first_token_seconds_count{model="model 1"} 3.0\n' in text
    assert 'palaver_tokens_total{direction="input",model="a\u2028b c"} 2.0\n' in text


def test_a_run_without_a_model_has_no_tokens_and_the_failure_of_an_unknown_model_is_counted() -> None:
    metrics = Metrics(Gauges)
    problem = Upstream(reason="configuration")
    metrics.run_ended(RunReport(app=1, model="", ended=RunEnded(status=Status.FAILED, problem=problem)))
    metrics.run_ended(RunReport(app=1, model="m", ended=RunEnded(status=Status.STOPPED)))
    text = metrics.text().decode()
    assert 'palaver_model_errors_total{kind="configuration",model="unknown"} 1.0' in text
    assert "palaver_tokens_total{" not in text
    assert "palaver_first_token_seconds_count{" not in text


def test_a_process_without_metrics_adds_nothing() -> None:
    assert merge_metrics([b"", b""]) == without_gauges(b"") == b""
