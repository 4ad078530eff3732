"""Who counts what runs do, for figures that core knows nothing of."""

from __future__ import annotations

from typing import Protocol

from palaver.core.problems import Upstream
from palaver.core.types import RunEnded, Value


class RunReport(Value, frozen=True, kw_only=True):
    """A run that has ended, for figures. ``model`` is empty where there was none; ``first_token_s`` are the seconds
    from the turn's beginning to its first words, ``None`` where there were none."""

    app: int
    model: str
    ended: RunEnded
    first_token_s: float | None = None


class Observer(Protocol):
    """Counts what happens here. Its methods must neither fail nor take time."""

    def run_ended(self, report: RunReport) -> None: ...

    def model_failed(self, model: str, problem: Upstream) -> None:
        """A failure that no run ends with, because a fallback answers."""
        ...


class NullObserver:
    """An ``Observer`` where nobody asks for figures."""

    def run_ended(self, report: RunReport) -> None:
        pass

    def model_failed(self, model: str, problem: Upstream) -> None:
        pass
