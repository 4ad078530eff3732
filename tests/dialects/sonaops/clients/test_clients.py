"""The vendor's own sample client, against a server on a socket."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dialects.sonaops.client import HEX, USER, Caller, frames
from support.http_clients import GUARD
from support.live_server import Served
from support.requirements import shows

from palaver.dialects.sonaops import DIALECT, requirements
from palaver.dialects.sonaops.canonical import canonical_body
from palaver.wire.contract import CurlSample

NODE = shutil.which("node")
SHELL = shutil.which("bash")


def javascript(caller: Caller, *agents: str, secret: str | None = None) -> list[dict[str, Any]]:
    """What the client says of a conversation with each of the agents."""
    if NODE is None:
        pytest.skip("there is no Node here")
    generation = caller.key.setting("signature", "sha256")
    program = [NODE, str(Path(__file__).parent / "create.mjs"), caller.served.base_url]
    command = [*program, caller.key.id, secret or caller.key.secret, USER, generation, *agents]
    output = subprocess.run(command, check=True, capture_output=True, timeout=3 * GUARD).stdout
    return [json.loads(line) for line in output.splitlines()]


@shows(
    requirements.javascript_client,
    requirements.c_json_always,
    requirements.c_header_names,
    requirements.c_member_order,
    requirements.values_are_compact,
)
def test_the_client_creates_talks_and_throws_what_failed(served: Served, caller: Caller, later: Caller) -> None:
    agent = served.agent("You said${content}🙂")
    for one in (caller, later):
        first, second, failed = javascript(one, str(agent.uid), agent.uid.hex, "ghost")
        assert HEX.fullmatch(first["conversationId"])
        assert first["conversationId"] != second["conversationId"]
        assert first["answer"] == second["answer"] == "You said hi 用户 🙂"
        answer = served.history(one.key, USER, first["conversationId"])[-1]
        assert first["messageId"] == answer.uid.hex
        assert failed == {"thrown": "创建会话失败:Agent not found"}


SIGNS = """
const body = {
  9: 1, 10: [1e21, 1.5e-9, -0, 0.1 + 0.2, 1e5, 123456789012345680000],
  text: '\\u00a0\\ufeff a\\u0085b\\u001f\\t', blank: '\\u3000\\u2028', gone: null,
  no: undefined, '': 'x', flag: false,
  nested: { b: '\\u0000\\u001f\\u007f\\u2028 "\\\\/é🙂', 2: {}, 1: [], a: [null, ' ', { z: 1 }] },
  '🙂': 1, '\\uffee': 2,
};
const point = ([one], [other]) => (Buffer.compare(Buffer.from(one), Buffer.from(other)));
const text = Object.entries(body)
  .map(([name, value]) => [name, typeof value === 'string' ? value.trim() : value])
  .filter(([, value]) => value !== null && value !== undefined && value !== '')
  .sort(point)
  .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
  .join('&');
console.log(JSON.stringify([JSON.stringify(body), text]));
"""


@shows(requirements.values_are_compact, requirements.strings_are_trimmed, requirements.sorted_by_name)
def test_what_javascript_signs_of_a_difficult_body_is_what_is_signed_here() -> None:
    if NODE is None:
        pytest.skip("there is no Node here")
    output = subprocess.run([NODE, "-e", SIGNS], check=True, capture_output=True, timeout=GUARD).stdout
    body, text = json.loads(output)
    assert canonical_body(body.encode()) == text
    assert '"b":"\\u0000\\u001f\x7f\u2028 \\"\\\\/é🙂"' in text


@shows(requirements.javascript_client, requirements.http_401)
def test_the_client_throws_the_message_of_a_wrong_signature(served: Served, caller: Caller, later: Caller) -> None:
    for one in (caller, later):
        assert javascript(one, "ghost", secret="wrong") == [{"thrown": "创建会话失败:Invalid signature"}]


@shows(requirements.signed_example, requirements.r1)
def test_the_curl_sample_of_a_new_credential_creates_a_conversation(served: Served, caller: Caller) -> None:
    if SHELL is None or shutil.which("curl") is None or shutil.which("openssl") is None:
        pytest.skip("there is no shell, no curl or no openssl here")
    agent = served.agent("x")
    sample = CurlSample(
        base_url=served.base_url,
        id=caller.key.id,
        secret=caller.key.secret,
        agent_id=agent.id,
        agent_uid=str(agent.uid),
    )
    command = [SHELL, "-c", DIALECT.curl(sample)]
    output = subprocess.run(command, check=True, capture_output=True, timeout=GUARD).stdout
    assert frames(output)[-1][0] == "message_saved"
