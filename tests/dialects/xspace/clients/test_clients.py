"""The documented clients, against a server on a socket."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dialects.xspace.client import Caller, frames, joined
from support.http_clients import GUARD
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.xspace import DIALECT, requirements
from palaver.wire.contract import CurlSample

HERE = Path(__file__).parent
NODE = shutil.which("node")
CURL = shutil.which("curl")
BUSY = "Agent正在执行任务"


def node(script: str, *arguments: str) -> list[Any]:
    if NODE is None:
        pytest.skip("there is no Node here")
    command = [NODE, str(HERE / script), *arguments]
    output = subprocess.run(command, check=True, capture_output=True, timeout=3 * GUARD).stdout
    return [json.loads(line) for line in output.splitlines()]


@shows(requirements.typescript_client, requirements.topic_from_first_message, requirements.topic_as_sent)
def test_the_documented_function_sets_topics(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent("x"))
    bodies = [
        {"firstMessage": "你好,请问今天天气怎么样?"},
        {"firstMessage": "你好", "topic": "自定义会话主题"},
        {"topic": "自定义会话主题"},
        {},
    ]
    printed = node("update.mjs", served.base_url, caller.key.secret, str(conversation), *map(json.dumps, bodies))
    assert [one.get("topic") for one in printed] == ["你好,请问今天天气怎么样?", *["自定义会话主题"] * 2, None]
    assert [one["success"] for one in printed] == [True, True, True, False]
    assert [one["code"] for one in printed] == ["0000", "0000", "0000", "4000"]
    assert all(one["same"] for one in printed[:3])
    assert printed[0]["types"] == ["number", "string", "number", "string"]


@shows(requirements.stream_form, requirements.event_order, requirements.step_events, requirements.reader_pace)
def test_a_web_client_reads_a_turn(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": "用户"}, {"call": {"name": "x"}}, "根据🙂", {"wait": 0.8}, "\n\ndata: ${content}")
    conversation = caller.add(agent)
    (turn,) = node("turn.mjs", served.base_url, caller.key.secret, str(conversation), "你好")
    assert (turn["text"], turn["thinking"]) == ("根据🙂\n\ndata: 你好", "用户")
    assert list(turn["steps"].values()) == ["FAILED"]
    assert set(turn["kinds"]) == {"MESSAGE", "PROCESSING", "HEART_BEAT", "FINAL_RESULT"}
    assert len(turn["ids"]) == 1
    assert (turn["completed"], turn["after"], turn["rest"], turn["error"]) == (True, 0, "", None)


@shows(requirements.rejected_messages)
def test_a_web_client_receives_the_error_of_an_unknown_conversation(served: Served, caller: Caller) -> None:
    (turn,) = node("turn.mjs", served.base_url, caller.key.secret, "999999999", "x")
    assert turn["error"] == turn["text"] == "Conversation does not exist."


@shows(requirements.curl_sample, requirements.bearer_key)
def test_the_documented_curl_command_works(served: Served, caller: Caller) -> None:
    if CURL is None:
        pytest.skip("there is no curl here")
    conversation = caller.add(served.agent("x"))
    command = [
        *(CURL, "-s", f"{served.base_url}/api/v1/chat/conversation/{conversation}/update", "-X", "POST"),
        *("-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {caller.key.secret}"),
        *("--data-raw", '{"firstMessage": "你好,请问今天天气怎么样?"}'),
    ]
    envelope = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=GUARD).stdout)
    assert (envelope["code"], envelope["data"]["topic"]) == ("0000", "你好,请问今天天气怎么样?")


@shows(requirements.curl_sample, requirements.upload_record)
def test_the_sample_command_and_an_upload_with_curl_work(served: Served, caller: Caller, tmp_path: Path) -> None:
    if CURL is None:
        pytest.skip("there is no curl here")
    agent = served.agent("x")
    sample = CurlSample(
        base_url=served.base_url, id="", secret=caller.key.secret, agent_id=agent.id, agent_uid=agent.uid.hex
    )
    ran = subprocess.run(["bash", "-c", DIALECT.curl(sample)], check=True, capture_output=True, timeout=GUARD)
    assert joined(frames(ran.stdout)) == "x"
    file = tmp_path / "说明.txt"
    file.write_bytes(b"0123456789" * 1000)
    upload = [
        *(CURL, "-s", f"{served.base_url}/api/v1/file/upload", "-H", f"Authorization: {caller.key.secret}"),
        *("-F", f"file=@{file}", "-F", "targetType=Chat"),
    ]
    record = json.loads(subprocess.run(upload, check=True, capture_output=True, timeout=GUARD).stdout)["data"]
    assert (record["fileName"], record["size"], record["targetType"]) == ("说明.txt", 10_000, "Chat")
    fetch = [CURL, "-s", record["url"], "-r", "5-14", "-H", f"Authorization: {caller.key.secret}"]
    assert subprocess.run(fetch, check=True, capture_output=True, timeout=GUARD).stdout == b"5678901234"
