"""The page's own clients, as they stand there, through a connection that breaks again and again."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dialects.native.client import LATER, Caller, Document, good
from dialects.native.clients.cutting import Cutting
from dialects.native.page import code
from support.http_clients import GUARD
from support.live_server import Served, Step
from support.requirements import shows

from palaver.dialects.native import requirements

NODE = shutil.which("node")
USER = "用户 ann"
SCRIPT: tuple[Step, ...] = (
    {"think": "想一想 🤔"},
    {"pieces": {"of": "苹果\u2028 🍏🧑‍🌾\n\ndata: x\n", "size": 4}},
    {"call": {"name": "weather", "arguments": {"city": "西安"}}},
    {"wait": 0.2},
    {"pieces": {"of": "and so it goes on, piece by piece", "size": 9}},
)
Heard = tuple[list[Document], Document | None]
Client = Callable[[str, str, str, Path], Heard]
"""Follows a run at a base address, by secret and uid: the parts, and how it ended."""
_DRIVER = """
const [base, secret, user, run] = process.argv.slice(2);
const parts = [];
let ended = null;
for await (const { name, data } of follow(base, secret, user, run, 5)) {
  if (name === "part.started") parts.push({ ...data, text: "" });
  else if (name === "text.delta") parts.at(-1).text += data.text;
  else if (name === "part.added") parts.push(data.part);
  else if (name === "run.ended") ended = data;
}
console.log(JSON.stringify([parts, ended]));
"""


def python(base: str, secret: str, run: str, folder: Path) -> Heard:
    names: dict[str, Any] = {}
    exec(compile(code("python"), "native.md", "exec"), names)
    page = SimpleNamespace(**names)
    return page.fold(page.follow(base, secret, USER, run, pause=0.005))


def javascript(base: str, secret: str, run: str, folder: Path) -> Heard:
    if NODE is None:
        pytest.skip("there is no Node here")
    script = folder / "follow.mjs"
    script.write_text(code("javascript") + _DRIVER, encoding="utf-8")
    command = [NODE, str(script), base, secret, USER, run]
    parts, ended = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=3 * GUARD).stdout)
    return parts, ended


each_client = pytest.mark.parametrize("client", [python, javascript])


@pytest.fixture
def caller(served: Served) -> Caller:
    return Caller(served, user="%E7%94%A8%E6%88%B7%20ann")


@each_client
@pytest.mark.parametrize("size", [250, 420, 611])
@shows(requirements.clients, requirements.live_resume)
def test_a_run_is_read_to_its_end_whatever_becomes_of_the_connection(
    served: Served, caller: Caller, client: Client, size: int, tmp_path: Path
) -> None:
    body = {"agent": served.agent(*SCRIPT).id, "content": "hi"}
    uid = good(caller.ask("POST", "messages", body, headers=LATER), 202)["answer"]["uid"]
    with Cutting(served.address, size=size, times=6) as relay:
        parts, ended = client(relay.base_url, caller.key.secret, uid, tmp_path)
    whole = caller.run(uid)
    assert parts == whole["parts"]
    assert ended is not None
    assert ended["status"] == whole["status"] == "complete"
    assert relay.connections > 1


@each_client
@shows(requirements.clients, requirements.nothing_behind)
def test_a_client_stops_where_nothing_comes(served: Served, caller: Caller, client: Client, tmp_path: Path) -> None:
    agent = served.agent("whole")
    parts, ended = client(served.base_url, caller.key.secret, caller.begin(agent)["answer"]["uid"], tmp_path)
    assert parts == [{"type": "text", "text": "whole"}]
    assert ended is not None
    uid = caller.begin(agent)["answer"]["uid"]  # another one, which nobody reads any more when it is changed
    served.sql("UPDATE message SET parts = '[]' WHERE uid = $1::text::uuid", uid)
    with Cutting(served.address, size=10_000, times=0) as relay:
        assert client(relay.base_url, caller.key.secret, uid, tmp_path)[0] == []
