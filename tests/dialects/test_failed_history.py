"""A turn that failed before its first word reads back as a failure, with the reason wherever its vendor has a place for
one: through every call that reads a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dialects.native import client as native
from dialects.snail import client as snail_a
from dialects.snail import client_b as snail
from dialects.snail import client_c as snail_c
from dialects.wps import client as wps
from dialects.xspace import client as xspace
from support.live_server import Served, Step

from palaver.core.types import Agent

USER = "ann"
WITHOUT_WORDS: tuple[Step, ...] = ({"fail": "refused"},)
HALFWAY: tuple[Step, ...] = ({"text": "so far"}, {"fail": "refused"})
Read = Callable[[Served, Agent], tuple[str, bool]]
"""Says something, and reads back (the text of the answer, whether it is said to have failed)."""


def _wps(*, with_event: bool) -> Read:
    def read(served: Served, agent: Agent) -> tuple[str, bool]:
        caller = wps.Caller(served, served.key("wps", default_user=USER))
        said = caller.hear(agent, "hi")
        place = next(event["data"]["session_id"] for event in said if event["event"] == "add_message")
        path, query = f"/v7/devhub/app/{agent.uid}/session/messages", f"session_id={place}"
        ask = caller.request("GET", path, b"", query=query + ("&with_event=true" if with_event else ""))
        item = wps.data(served.ask(ask))["items"][-1]
        if with_event and item["text"] == "":
            (error,) = [one for block in item["events"] for one in block["contents"] if one["type"] == "error"]
            return error["reason"], item["error"]
        return item["text"] or "(the vendor has no place for it)", item["error"]

    return read


def _xspace(served: Served, agent: Agent) -> tuple[str, bool]:
    caller = xspace.Caller(served, default_user=USER)
    made = caller.add(agent)
    caller.say(made)
    (_, answer) = caller.messages(made)
    return answer["text"], answer["finishReason"] == "ERROR"


def _older_xspace(served: Served, agent: Agent) -> tuple[str, bool]:
    caller = xspace.Caller(served, default_user=USER, kind="agent", agent=str(agent.uid))
    made = caller.add(agent)
    caller.post("/api/v1/chat", {"message": "hi", "conversationId": made})
    answer = xspace.data(caller.get(f"/api/v1/conversation/{made}"))["messageList"][-1]
    return answer["text"], answer["finishReason"] == "ERROR"


def _snail_b(path: str) -> Read:
    def read(served: Served, agent: Agent) -> tuple[str, bool]:
        caller = snail.Caller(served)
        where = {"agentId": agent.id, "openId": caller.register(), "conversationId": served.new_name("conversation")}
        caller.post(path, **where, content="hi")
        answer = snail.good(caller.get(snail.MESSAGES, **where))[-1]
        return answer["content"], answer["status"] == 0

    return read


def _snail_a_and_c(served: Served, agent: Agent) -> tuple[str, bool]:
    caller, place = snail_a.Caller(served), served.new_name("conversation")
    caller.say(agent, conversationId=place)
    browser = snail_c.Browser(served, snail_c.token(caller.key, snail_a.USER))
    path = f"{snail_c.C}/messages"
    answer = snail.good(browser.get(path, agentId=agent.id, conversationId=place))[-1]
    return answer["content"], answer["status"] == 0


def _native(served: Served, agent: Agent) -> tuple[str, bool]:
    caller = native.Caller(served, user=USER)
    made = caller.ask("POST", "conversations", {"agent": agent.id}).json()["id"]
    served.ask(caller.request("POST", f"conversations/{made}/messages", {"content": "hi"}, headers=native.EVENTS))
    answer: dict[str, Any] = caller.ask("GET", f"conversations/{made}/messages").json()["messages"][-1]
    text = "".join(part["text"] for part in answer["parts"] if part["type"] == "text")
    return text or answer["problem"]["code"], answer["status"] == "failed"


READS = {
    "wps": _wps(with_event=False),
    "wps, with_event": _wps(with_event=True),
    "xspace": _xspace,
    "xspace, older path": _older_xspace,
    "snail B": _snail_b(snail.CHAT),
    "snail B, whole answers": _snail_b(snail.SYNC),
    "snail A, read through C": _snail_a_and_c,
    "native": _native,
}


@pytest.mark.parametrize("read", READS.values(), ids=list(READS))
def test_a_turn_without_words_reads_back_as_a_failure(served: Served, read: Read) -> None:
    text, failed = read(served, served.agent(*WITHOUT_WORDS))
    assert failed
    assert text.strip()


@pytest.mark.parametrize("read", READS.values(), ids=list(READS))
def test_a_turn_that_failed_halfway_keeps_its_words_and_reads_back_as_a_failure(served: Served, read: Read) -> None:
    text, failed = read(served, served.agent(*HALFWAY))
    assert (text, failed) == ("so far", True)
