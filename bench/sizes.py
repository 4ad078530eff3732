"""How much is measured: everything, or as little as shows that the bench still works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """``repeat`` is how often each measure is taken, in turns with what it is compared with."""

    repeat: int
    streams: tuple[int, int]
    """Streams at once, chunks of each; one chunk every 10 ms."""
    streams_in_step: tuple[int, int]
    """The same, each chunk sent when the one before has arrived in every stream."""
    first_event: tuple[int, int, int]
    """Streams open at any time, chunks of each, how often each begins anew."""
    memory: tuple[int, int, float]
    """Streams, chunks, seconds between two chunks."""
    load_s: float
    """Seconds that a load lasts whose rate is measured."""
    callers: int
    """Connections that make such a load."""
    idle_s: float
    """Seconds for which palaver is watched while nobody asks."""
    turns: int
    """Turns one after the other, where single ones are looked at."""
    long_conversation: int
    """Messages of one."""
    many_conversations: int
    """Of one end user."""
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
