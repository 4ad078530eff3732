"""The documented clients, against a server on a socket."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dialects.wps.client import Caller
from dialects.wps.clients.listen import Client, Shown
from support.http_clients import GUARD
from support.kit import wait_until
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.wps import requirements

HERE = Path(__file__).parent
NODE = shutil.which("node")
TALKS = "Turn ${turn}: ${content}\n\n用户🙂\u2028}"

Listener = Callable[[Caller, Agent, list[str]], list[Shown]]
"""Says one message after the other in one session, and what it showed."""


def _javascript(cut: str) -> Listener:
    def listen(caller: Caller, agent: Agent, texts: list[str]) -> list[Shown]:
        if NODE is None:
            pytest.skip("there is no Node here")
        key, base_url = caller.key, caller.served.base_url
        command = [NODE, str(HERE / "listen.mjs"), base_url, key.id, key.secret, str(agent.uid), cut, *texts]
        output = subprocess.run(command, check=True, capture_output=True, timeout=3 * GUARD).stdout
        return [Shown(**json.loads(line)) for line in output.splitlines()]

    return listen


def python(caller: Caller, agent: Agent, texts: list[str]) -> list[Shown]:
    client = Client(caller.served.base_url, caller.key.id, caller.key.secret, str(agent.uid))
    return [client.listen(text) for text in texts]


each_client = pytest.mark.parametrize(
    "listen",
    [_javascript("lines"), _javascript("chunks"), python],
    ids=["javascript lines", "javascript chunks", "python"],
)


@each_client
@shows(
    requirements.documented_client_works,
    requirements.reply_is_in_add_message,
    requirements.message_id,
    requirements.goes_on_in_a_session,
)
def test_a_conversation_of_two_turns(served: Served, caller: Caller, listen: Listener) -> None:
    agent = served.agent(
        {"think": "hm"}, {"pieces": {"of": TALKS, "size": 5}}, {"wait": 0.25}, {"pieces": {"of": "end"}}
    )
    answers = listen(caller, agent, ["你好", "and?"])
    for turn, (text, shown) in enumerate(zip(["你好", "and?"], answers, strict=True), 1):
        assert shown.reply == f"Turn {turn}: {text}\n\n用户🙂\u2028}}end" == shown.streamed
        assert shown.ids == shown.chats
        assert len(shown.ids) == 1
        assert shown.last == "end"


@each_client
@shows(requirements.documented_client_works, requirements.failed_run)
def test_a_failure_leaves_what_was_said(served: Served, caller: Caller, listen: Listener) -> None:
    (shown,) = listen(caller, served.agent("so far", {"fail": "cut"}), ["hi"])
    assert (shown.reply, shown.last) == ("so far", "end")


@shows(requirements.no_text_without_stream, requirements.messages)
def test_a_client_that_does_not_stream_polls_for_the_answer(served: Served, caller: Caller) -> None:
    agent = served.agent("a", {"wait": 0.05}, "b")
    client = Client(served.base_url, caller.key.id, caller.key.secret, str(agent.uid))
    response = client.ask("hi")
    assert (response["code"], response["msg"]) == (0, "success")

    def answer() -> dict[str, Any]:
        return client.messages(response["data"]["session_id"])[-1]

    wait_until(lambda: answer()["state"] == "complete")
    assert (answer()["text"], answer()["chat_id"]) == ("ab", response["data"]["chat_id"])
