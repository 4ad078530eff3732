"""The vendor's own sample clients, against a server on a socket."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dialects.snail.client import FAR, USER, Caller, jwt
from dialects.snail.clients.chat import Shown, chat_with_agent
from support.http_clients import GUARD
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.snail import requirements

HERE = Path(__file__).parent
NODE = shutil.which("node")
CURL = shutil.which("curl")

Client = Callable[[Served, Caller, Agent, str, list[str]], list[Shown]]
"""Asks one message after the other in the conversation of that name ("": a new one), and says what it showed."""

TALKS = "Turn ${turn}: ${content}\n用户🙂\u2028"


def javascript(served: Served, caller: Caller, agent: Agent, conversation: str, contents: list[str]) -> list[Shown]:
    if NODE is None:
        pytest.skip("there is no Node here")
    command = [NODE, str(HERE / "chat.mjs"), served.base_url, str(caller.auth), str(agent.id), USER, conversation]
    output = subprocess.run([*command, *contents], check=True, capture_output=True, timeout=3 * GUARD).stdout
    return [_shown(json.loads(line)) for line in output.splitlines()]


def _shown(printed: dict[str, Any]) -> Shown:
    return Shown(
        text=printed["text"],
        thinking=printed["thinking"],
        others=printed["others"],
        failed=printed["failed"],
        conversation=printed["conversationId"],
    )


def python(served: Served, caller: Caller, agent: Agent, conversation: str, contents: list[str]) -> list[Shown]:
    answers: list[Shown] = []
    for content in contents:
        answers.append(
            chat_with_agent(served.base_url, str(caller.auth), agent.id, USER, content, conversation or None)
        )
        conversation = conversation or answers[-1].conversation or ""
    return answers


each_client = pytest.mark.parametrize("client", [javascript, python])


@each_client
@shows(requirements.javascript_client_works, requirements.python_client_works, requirements.conversation_id_comes_back)
def test_a_conversation_of_two_turns_that_the_server_names(served: Served, caller: Caller, client: Client) -> None:
    agent = served.agent({"think": "用户 asks ${content}"}, TALKS)
    one, two = client(served, caller, agent, "", ["你好", "再见"])
    assert one.text == "Turn 1: 你好\n用户🙂\u2028"
    assert two.text == "Turn 2: 再见\n用户🙂\u2028"
    assert (one.thinking, two.thinking) == ("用户 asks 你好", "用户 asks 再见")
    assert one.others == two.others == ["done"]
    assert one.conversation == two.conversation
    assert not one.failed
    assert not two.failed


@each_client
@shows(requirements.javascript_client_works, requirements.python_client_works, requirements.n2)
def test_a_conversation_of_two_turns_that_the_client_names(served: Served, caller: Caller, client: Client) -> None:
    agent = served.agent("Turn ${turn}")
    answers = client(served, caller, agent, f"conv-{client.__name__}", ["one", "two"])
    assert [answer.text for answer in answers] == ["Turn 1", "Turn 2"]
    assert {answer.conversation for answer in answers} == {f"conv-{client.__name__}"}


@each_client
@shows(requirements.samples_use_a_bare_token, requirements.j1)
def test_a_token_that_is_signed_is_as_good_as_the_secret(served: Served, client: Client) -> None:
    caller = Caller(served)
    caller.auth = jwt({"appId": caller.key.id, "exp": FAR}, caller.key.secret)
    assert caller.auth.startswith("eyJhbGciOiJIUzI1NiJ9.")
    (answer,) = client(served, caller, served.agent("yes"), "", ["hi"])
    assert answer.text == "yes"


@each_client
@shows(requirements.n10, requirements.clients_skip_blank_lines, requirements.heartbeats)
def test_heartbeats_are_not_shown(served: Served, caller: Caller, client: Client) -> None:
    agent = served.agent("before ", {"wait": 0.35}, "after")
    (answer,) = client(served, caller, agent, "", ["hi"])
    assert (answer.text, answer.others) == ("before after", ["done"])


@each_client
@shows(requirements.n9, requirements.failure_breaks_the_connection)
def test_a_failure_is_noticed_by_the_read_and_nothing_of_it_is_shown(
    served: Served, caller: Caller, client: Client
) -> None:
    (answer,) = client(served, caller, served.agent("so far", {"fail": "cut"}), "", ["hi"])
    assert (answer.text, answer.others, answer.failed) == ("so far", ["error"], True)


@each_client
@shows(requirements.every_line_has_a_type, requirements.failures_have_a_type)
def test_a_refusal_has_a_type_and_is_not_shown_as_an_answer(served: Served, caller: Caller, client: Client) -> None:
    stranger = Caller(served, caller.key)
    stranger.auth = "nonsense"
    nobody = served.agent("x", enabled=False)
    for answer in (
        *client(served, caller, nobody, "", ["hi"]),
        *client(served, caller, nobody, "", [" "]),
        *client(served, stranger, nobody, "", ["\u2028"]),
    ):
        assert answer.text == ""
        assert not answer.failed


def curl(served: Served, caller: Caller, members: str) -> list[dict[str, Any]]:
    """What a sample of the page's prints, as a shell would run it."""
    if CURL is None:
        pytest.skip("there is no curl here")
    command = [CURL, "--silent", "--show-error", "--fail", "-X", "POST", f"{served.base_url}/snail-ai/open-api/chat"]
    headers = ["-H", "Content-Type: application/json", "-H", f"Snail-Ai-Auth: {caller.auth}"]
    output = subprocess.run(
        [*command, *headers, "-d", members, "--no-buffer"], check=True, capture_output=True, timeout=GUARD
    ).stdout
    return [json.loads(line) for line in output.splitlines() if line]


@shows(requirements.curl_samples_work, requirements.n1, requirements.n2, requirements.n4)
def test_the_three_curl_samples(served: Served, caller: Caller) -> None:
    agent = served.agent("${turn}: ${content}")
    who = f'"agentId": {agent.id},\n"openId": "external-user-001",\n'
    first = curl(served, caller, "{\n" + who + '"content": "帮我分析一下上季度的销售数据"\n}')
    assert first[-1]["fullText"] == "1: 帮我分析一下上季度的销售数据"
    ask = '"content": "能再详细说明一下华东区域的数据吗？",\n"conversationId": "conv-abc123"\n}'
    again = [curl(served, caller, "{\n" + who + ask)[-1] for _ in range(2)]
    assert [event["conversationId"] for event in again] == ["conv-abc123"] * 2
    assert again[1]["fullText"] == "2: 能再详细说明一下华东区域的数据吗？"
    off = '"content": "查询今天的天气",\n"disabledMcpServerIds": [3],\n"disabledSkillIds": [2]\n}'
    assert curl(served, caller, "{\n" + who + off)[-1]["fullText"] == "1: 查询今天的天气"
