"""A fifth dialect is one folder: it is found, serves and streams, and nothing else knows of it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from support.http_clients import Ask
from support.live_server import serving

from palaver import app, dialects

SOURCE = '''
"""A vendor that nobody has heard of: plain text in, plain text out."""

from palaver.core.chat import NewMessage
from palaver.core.events import TextDelta
from palaver.core.problems import Unauthenticated
from palaver.core.types import Principal, RunEnded, Text
from palaver.wire.contract import CredentialClaim, Dialect, Response, Route, StreamingResponse


class TextEncoder:
    aborts_on_failure, always_heartbeat, flush_at, heartbeat = False, False, None, b"."

    def encode(self, event, now):
        match event:
            case TextDelta(text=text):
                return [text.encode()]
            case RunEnded(status=status):
                return [f"<{status}>".encode()]
            case _:
                return []

    def flush(self, now):
        return []


def claim(call):
    return CredentialClaim(secret=call.headers.get("x-word", ""))


def verify(call, key, token):
    if key is None:
        raise Unauthenticated(reason="unknown")
    return Principal(key=key, user="anybody")


def refuse(problem, call, key=None):
    return Response(status=418, body=str(problem.kind).encode(), media_type="text/plain")


async def agents(call, who, services):
    names = ",".join(one.name for one in await services.chat.agents(who))
    return Response(body=names.encode(), media_type="text/plain")


async def chat(call, who, services):
    agent = await services.chat.agent(who, call.path_params["agent"])
    turn = await services.chat.send(who, agent, NewMessage(parts=(Text(text=call.body.decode()),), trace=call.trace))
    return StreamingResponse(reader=turn.reader, replayed=turn.replayed, encoder=TextEncoder(), media_type="text/plain")


DIALECT = Dialect(
    name="fifth",
    prefixes=("/fifth/",),
    routes=(
        Route(method="GET", path="/fifth/agents", endpoint=agents, summary="list agents"),
        Route(method="POST", path="/fifth/{agent}", endpoint=chat, summary="chat"),
    ),
    claim=claim,
    verify=verify,
    refuse=refuse,
    new_credential=lambda seed: ("fifth-" + seed.hex()[:8], seed.hex()),
    curl=lambda sample: f"curl {sample.base_url}/fifth/agents",
)
'''
NAME = f"{dialects.__name__}.fifth"


@pytest.fixture
def fifth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The vendor's folder, beside the others' for as long as a test lasts."""
    folder = tmp_path / "dialects" / "fifth"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(SOURCE)
    monkeypatch.setattr(dialects, "__path__", [*dialects.__path__, str(folder.parent)])
    monkeypatch.setattr(dialects, "fifth", None, raising=False)  # what an import sets there is gone afterwards
    importlib.invalidate_caches()
    yield
    sys.modules.pop(NAME, None)


def test_a_folder_is_a_dialect(fifth: None, database_url: str, tmp_path: Path) -> None:
    names = [dialect.name for dialect in app.all_dialects()]
    assert names == sorted({*names, "fifth"})
    assert len(names) == 6
    with serving(database_url, tmp_path / "data") as served:
        agent = served.agent("turn ${turn}: ${content}", name="parrot")
        headers = [("X-Word", served.key("fifth").secret)]
        listed = served.ask(Ask(method="GET", path="/fifth/agents", headers=headers))
        assert (listed.status, listed.body) == (200, b"parrot")
        with served.connection() as connection:
            connection.send(Ask(path=f"/fifth/{agent.uid}", headers=headers, body="你好".encode()))
            answer = connection.answer()
        assert (answer.status, answer.header("Content-Type"), answer.complete) == (200, "text/plain", True)
        assert answer.body.replace(b".", b"").decode() == "turn 1: 你好<complete>"
        assert served.ask(Ask(path=f"/fifth/{agent.uid}", headers=[("X-Word", "?")])).status == 418
        assert served.ask(Ask(method="GET", path="/fifth/a/b/c", headers=headers)).status == 418
        assert json.loads(served.ask(Ask(path="/v1/chat/stream")).body)["code"] == 10401


def test_without_its_folder_there_is_none() -> None:
    assert "fifth" not in [dialect.name for dialect in app.all_dialects()]
