"""The hook for metrics about runs."""

from __future__ import annotations

from typing import Protocol

from palaver.core.problems import Upstream
from palaver.core.types import RunEnded, Usage, Value


class RunReport(Value, frozen=True, kw_only=True):
    """Metrics of a run that has ended. ``model`` is empty if none was called; ``first_token_s`` is the time from the
    start of the turn to the first token in seconds, ``None`` without any."""

    app: int
    model: str
    ended: RunEnded
    first_token_s: float | None = None


class Observer(Protocol):
    """Receives events for metrics. Its methods must not raise or block."""

    def run_ended(self, report: RunReport) -> None: ...

    def tokens_used(self, model: str, usage: Usage) -> None:
        """Called for model calls outside a run: titles and suggestions."""
        ...

    def model_failed(self, model: str, problem: Upstream) -> None:
        """Called for a failure that does not end the run, because a fallback answers."""
        ...


class NullObserver:
    """An ``Observer`` that does nothing."""

    def run_ended(self, report: RunReport) -> None:
        pass

    def tokens_used(self, model: str, usage: Usage) -> None:
        pass

    def model_failed(self, model: str, problem: Upstream) -> None:
        pass
