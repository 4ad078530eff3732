"""The sizes of the measurements: full, or minimal to check that the bench works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """``repeat`` is the number of repetitions of each measurement, alternating with its yardstick."""

    repeat: int
    streams: tuple[int, int]
    """Concurrent streams, and chunks of each; one chunk every 10 ms."""
    streams_in_step: tuple[int, int]
    """The same, but a chunk is sent only after the previous one has arrived in every stream."""
    first_event: tuple[int, int, int]
    """Concurrent streams, chunks of each, and streams started one after the other."""
    memory: tuple[int, int, float]
    """Streams, chunks, seconds between two chunks."""
    load_s: float
    """Duration of a load test, in seconds."""
    callers: int
    """Connections of a load test."""
    idle_s: float
    """Duration of observing an idle palaver, in seconds."""
    turns: int
    """Sequential turns, where single ones are measured."""
    long_conversation: int
    """Messages in the long conversation."""
    many_conversations: int
    """Conversations of one end user."""
    starts: int


FULL = Sizes(
    repeat=3,
    streams=(500, 200),
    streams_in_step=(100, 100),
    first_event=(50, 50, 4),
    memory=(1000, 30, 0.05),
    load_s=2.0,
    callers=64,
    idle_s=6.0,
    turns=60,
    long_conversation=10_000,
    many_conversations=1_000_000,
    starts=3,
)
QUICK = Sizes(
    repeat=1,
    streams=(10, 10),
    streams_in_step=(5, 10),
    first_event=(5, 5, 2),
    memory=(10, 5, 0.01),
    load_s=0.1,
    callers=4,
    idle_s=0.2,
    turns=5,
    long_conversation=100,
    many_conversations=1000,
    starts=1,
)
