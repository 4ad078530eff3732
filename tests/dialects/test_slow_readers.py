"""A caller that reads nothing costs bounded memory: there is no queue for each reader, only its place."""

from __future__ import annotations

import tracemalloc
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from support.adapters import STREAM_FORMS
from support.http_clients import Answer, Connection
from support.live_server import Served

SIZE = 2_000_000
"""Characters of the answer; each is six bytes or more in a stream."""
READERS = 20
EACH = 1_000_000
"""Bytes that a reader may cost, most of them buffers of its connection, at both ends."""


FORM = next(form for form in STREAM_FORMS if form.name == "sonaops")


def test_readers_that_read_nothing_cost_next_to_nothing(served: Served) -> None:
    agent = served.agent({"repeat": {"text": "苹" * 10_000, "times": SIZE // 10_000}})
    ask = FORM.ask(served, agent).also("Idempotency-Key", "long")
    with served.connection() as connection:
        connection.send(ask)
        whole = connection.answer()
    assert characters(whole) == SIZE
    with traced(), ExitStack() as open_connections:
        readers: list[Connection] = []
        for _ in range(READERS):
            readers.append(open_connections.enter_context(served.connection()))
            readers[-1].send(ask)
        heads = [reader.head() for reader in readers]
        assert all(head.header("Idempotency-Replayed") == "true" for head in heads)
        assert tracemalloc.get_traced_memory()[0] < READERS * EACH
        assert characters(readers[0].rest(heads[0])) == SIZE


@contextmanager
def traced() -> Generator[None]:
    """Count what is allocated and not given back."""
    tracemalloc.start(1)
    try:
        yield
    finally:
        tracemalloc.stop()


def characters(answer: Answer) -> int:
    return answer.body.count(b"\\u82f9")
