"""PostgreSQL stops, gracefully or not, in the middle of a hundred streams, and comes back."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from tempfile import mkdtemp

import pytest
from aiohttp import web
from support.adapters import STREAM_FORMS
from support.http_clients import Answer, Ask, Connection
from support.kit import run
from support.live_server import Served, serving
from support.model_endpoint import DONE, begin, chunk
from support.server_process import endpoint
from support.stream_forms import StreamForm, said, split

from palaver.store.embedded import EmbeddedPostgres
from palaver.store.migrate import migrate

pytestmark = pytest.mark.e2e

STREAMS = 100
TEXT = "苹果 "
TIMES = 30
EVERY = 0.1
BEGINS_WITHIN = 60.0


STOPS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


@pytest.fixture(scope="module")
def database() -> Generator[EmbeddedPostgres]:
    folder = Path(mkdtemp(prefix="palaver-restart-"))
    database = EmbeddedPostgres(folder)
    run(migrate(database.start()))
    yield database
    database.release()
    shutil.rmtree(folder)


class Speaker:
    """A model that begins to speak, and goes on slowly once ``go_on`` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.every = EVERY

    async def act(self, request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        for number in range(TIMES):
            await response.write(chunk({"content": TEXT}))
            await asyncio.sleep(self.every)
            while number == 0 and not self.go_on.is_set():  # noqa: ASYNC110  set in another thread
                await asyncio.sleep(EVERY)
        await response.write(chunk(finish="stop") + DONE)
        return response


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture(scope="module")
def served(database: EmbeddedPostgres, speaker: Speaker, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    address, folder = database._url(), tmp_path_factory.mktemp("data")  # pyright: ignore[reportPrivateUsage]
    with (
        endpoint(speaker.act) as model,
        serving(address, folder, environment={"OPENAI_BASE_URL": model.url}, run_timeout_s=100) as server,
    ):
        yield server


def answer(served: Served, ask: Ask) -> Answer:
    with served.connection() as connection:
        connection.send(ask)
        return connection.answer()


def whole(connection: Connection) -> Answer:
    """The rest of an answer that has begun."""
    with connection:
        return connection.answer()


def spoken(answer: Answer, form: StreamForm) -> object:
    assert answer.complete, answer.body[-500:]
    return said(split([answer.body], form.mark))


def begun(served: Served, asks: list[Ask], stack: ExitStack) -> list[Connection]:
    """A connection for each, once all their runs are stored and the server works on them."""
    connections = [stack.enter_context(served.connection()) for _ in asks]
    for connection, ask in zip(connections, asks, strict=True):
        connection.send(ask)
    until = time.monotonic() + BEGINS_WITHIN
    while len(served.core.runs) < len(asks):
        assert time.monotonic() < until, len(served.core.runs)
        time.sleep(0.01)
    return connections


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_streams_go_on_and_nothing_is_lost(
    served: Served, speaker: Speaker, database: EmbeddedPostgres, mode: str
) -> None:
    agent, quick = served.agent(model="openai:m"), served.agent("quick")
    forms = list(islice(cycle(STREAM_FORMS), STREAMS))
    meanwhile = [form.ask(served, quick) for form in STREAM_FORMS]
    with ExitStack() as stack, ThreadPoolExecutor(max_workers=STREAMS) as threads:
        speaker.every = 0
        speaker.go_on.set()
        alone = list(
            threads.map(answer, [served] * len(STREAM_FORMS), [form.ask(served, agent) for form in STREAM_FORMS])
        )
        undisturbed = {form.name: spoken(one, form) for form, one in zip(STREAM_FORMS, alone, strict=True)}
        speaker.every = EVERY
        speaker.go_on.clear()
        connections = begun(served, [form.ask(served, agent) for form in forms], stack)
        streams = [threads.submit(whole, connection) for connection in connections]
        speaker.go_on.set()
        database.shut_down(STOPS[mode])
        refused = [answer(served, ask) for ask in meanwhile]
        database.ensure_running()
        for form, stream in zip(forms, streams, strict=True):
            assert spoken(stream.result(40), form) == undisturbed[form.name], form.name
    for form, refusal in zip(STREAM_FORMS, refused, strict=True):
        assert _unforeseen(form) in refusal.body, (form.name, refusal)
    for ask, form in zip(meanwhile, STREAM_FORMS, strict=True):  # the same calls, once more
        assert b"quick" in answer(served, ask).body, form.name
    rows = served.sql("SELECT parts, status FROM message WHERE role = 'assistant' AND id > $1", 0)
    texts = [(json.loads(row["parts"])[0]["text"], row["status"]) for row in rows]
    assert texts.count((TEXT * TIMES, "complete")) >= STREAMS
    assert served.sql("SELECT 1 FROM message WHERE status = 'live'") == []


def _unforeseen(form: StreamForm) -> bytes:
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
