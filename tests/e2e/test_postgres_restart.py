"""PostgreSQL goes away in the middle of a hundred streams, in order or not, and comes back."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from tempfile import mkdtemp

import pytest
from dialects.exchange import Answer, Ask, Connection
from dialects.serving import Served, serving
from dialects.streams import FORMS, Form, said, split
from kit import run

from palaver.store.embedded import Embedded
from palaver.store.migrate import migrate

pytestmark = pytest.mark.e2e

STREAMS = 100
TEXT = "苹果 "
TIMES = 30
SLOWLY = {"repeat": {"text": TEXT, "times": TIMES, "every": 0.1}}


STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@pytest.fixture(scope="module")
def database() -> Generator[Embedded]:
    folder = Path(mkdtemp(prefix="palaver-restart-"))
    database = Embedded(folder)
    run(migrate(database.start()))
    yield database
    database.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def served(database: Embedded, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    with serving(database._address(), tmp_path_factory.mktemp("data")) as server:  # pyright: ignore[reportPrivateUsage]
        yield server


def answer(served: Served, ask: Ask) -> Answer:
    with served.connection() as connection:
        connection.send(ask)
        return connection.answer()


def whole(connection: Connection) -> Answer:
    """The rest of an answer that has begun."""
    with connection:
        return connection.answer()


def spoken(answer: Answer, form: Form) -> object:
    assert answer.complete, answer.body[-500:]
    return said(split([answer.body], form.mark))


def begun(served: Served, asks: list[Ask]) -> list[Connection]:
    """A connection for each, once all their runs are stored and the server works on them."""
    connections = [served.connection() for _ in asks]
    for connection, ask in zip(connections, asks, strict=True):
        connection.send(ask)
    until = time.monotonic() + 10
    while len(served.core.runs) < len(asks):
        assert time.monotonic() < until, len(served.core.runs)
    return connections


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_streams_go_on_and_nothing_is_lost(served: Served, database: Embedded, mode: str) -> None:
    agent, quick = served.agent(SLOWLY), served.agent("quick")
    undisturbed = {
        form.name: spoken(answer(served, form.ask(served, served.agent(TEXT * TIMES))), form) for form in FORMS
    }
    forms = list(islice(cycle(FORMS), STREAMS))
    meanwhile = [form.ask(served, quick) for form in FORMS]
    connections = begun(served, [form.ask(served, agent) for form in forms])
    with ThreadPoolExecutor(max_workers=STREAMS) as threads:
        streams = [threads.submit(whole, connection) for connection in connections]
        database.shut_down(STOPS[mode])
        refused = [answer(served, ask) for ask in meanwhile]
        database.ensure()
        for form, stream in zip(forms, streams, strict=True):
            assert spoken(stream.result(20), form) == undisturbed[form.name], form.name
    for form, refusal in zip(FORMS, refused, strict=True):
        assert _unforeseen(form) in refusal.body, (form.name, refusal)
    for ask, form in zip(meanwhile, FORMS, strict=True):  # the same calls, once more
        assert b"quick" in answer(served, ask).body, form.name
    rows = served.sql("SELECT parts, status FROM message WHERE role = 'assistant' AND id > $1", 0)
    texts = [(json.loads(row["parts"])[0]["text"], row["status"]) for row in rows]
    assert texts.count((TEXT * TIMES, "complete")) >= STREAMS
    assert served.sql("SELECT 1 FROM message WHERE status = 'live'") == []


def _unforeseen(form: Form) -> bytes:
    """What the vendor's own clients know for a failure that is worth another try."""
    words = {
        "sonaops": "10500",
        "wps": "500000001",
        "xspace": "系统开小差啦，请稍后重试",
        "snail": "系统异常",
        "native": "database",
    }
    said = words[form.name.split()[0].strip(",")]
    return (
        said.encode() if form.name in {"xspace", "xspace, older path", "snail A"} else json.dumps(said)[1:-1].encode()
    )
