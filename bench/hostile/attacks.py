"""Every attack, by name: the rows of the table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.hostile import connections, documents, inputs, readers, runs, uploads
from bench.hostile.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """``run`` returns a summary, and raises ``Failed`` if one of its own limits was exceeded."""

    name: str
    run: Callable[[Target], Awaitable[str]]
    logs: str = ""
    """The one error that is to be in the log."""

    @property
    def what(self) -> str:
        return (self.run.__doc__ or "").strip().partition("\n")[0]


ATTACKS = (
    Attack(name="documents", run=documents.hostile_documents),
    Attack(name="questions", run=documents.great_questions),
    Attack(name="uploads", run=uploads.uploads_without_credential),
    Attack(name="verified-uploads", run=uploads.uploads_with_credential),
    Attack(name="drips", run=connections.dripping),
    Attack(name="pipelines", run=connections.pipelined_heads),
    Attack(name="chunks", run=connections.tiny_chunks),
    Attack(name="bodies", run=inputs.dear_bodies),
    Attack(name="parts", run=inputs.small_parts),
    Attack(name="names", run=inputs.names_without_end),
    Attack(name="searches", run=inputs.dear_searches),
    Attack(name="unread-files", run=readers.unread_files),
    Attack(name="unread-history", run=readers.unread_history),
    Attack(name="unread-streams", run=readers.unread_streams),
    Attack(name="long-answers", run=runs.long_answers),
    Attack(name="equal-calls", run=runs.equal_calls),
    Attack(name="hanging-runs", run=runs.hanging_runs),
    Attack(name="refused-rows", run=runs.refused_rows, logs="an answer cannot be stored"),
)
