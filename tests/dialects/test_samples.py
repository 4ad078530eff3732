"""What a newcomer is shown for each dialect, pasted into a shell: it ends in the agent's answer."""

from __future__ import annotations

import subprocess

import pytest
from support.contract import DIALECTS
from support.http_clients import GUARD
from support.live_server import Served

from palaver.wire.contract import CurlSample


@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_shown_for_a_dialect_ends_in_an_answer(served: Served, name: str) -> None:
    agent = served.agent("Sunny, ${content}")
    key = served.key(name)
    sample = CurlSample(
        base_url=served.base_url, id=key.id, secret=key.secret, agent_id=agent.id, agent_uid=agent.uid.hex
    )
    command = ["sh", "-c", DIALECTS[name].curl(sample)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stderr
    assert "Sunny, " in done.stdout
