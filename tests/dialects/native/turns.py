"""Messages in one conversation, stops, and failed turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dialects.native import client as native
from support.http_clients import Ask
from support.live_server import Served
from support.turns import USER, FailedTurnForm, MessageForm, StopForm, StoppableStream

from palaver.core.types import Agent


def _stop_run(served: Served, agent: Agent) -> StoppableStream:
    caller = native.Caller(served, user=USER)
    stream = caller.stream(agent)
    run = stream.head().header("Location") or ""
    return StoppableStream(stream, lambda: native.good(caller.ask("POST", f"{run}/stop")))


def _stop_conversation(served: Served, agent: Agent) -> StoppableStream:
    caller = native.Caller(served, user=USER)
    stream = caller.stream(agent)
    run = stream.head().header("Location") or ""
    conversation = native.good(caller.ask("GET", run))["conversation"]
    return StoppableStream(stream, lambda: native.good(caller.ask("POST", f"conversations/{conversation}/stop")))


def _messages(served: Served, agent: Agent, **settings: Any) -> Callable[[str], Ask]:
    caller = native.Caller(served, user=USER, **settings)
    conversation = caller.ask("POST", "conversations", {"agent": agent.id}).json()["id"]
    path = f"conversations/{conversation}/messages"
    return lambda text: caller.request("POST", path, {"content": text}, headers=native.EVENTS)


def _failed_turn(served: Served, agent: Agent) -> tuple[str, bool]:
    caller = native.Caller(served, user=USER)
    conversation = caller.ask("POST", "conversations", {"agent": agent.id}).json()["id"]
    path = f"conversations/{conversation}/messages"
    served.ask(caller.request("POST", path, {"content": "hi"}, headers=native.EVENTS))
    answer: dict[str, Any] = caller.ask("GET", path).json()["messages"][-1]
    text = "".join(part["text"] for part in answer["parts"] if part["type"] == "text")
    return text or answer["problem"]["code"], answer["status"] == "failed"


STOPS = (StopForm(name="native", open=_stop_run), StopForm(name="native, all", open=_stop_conversation))
MESSAGES = (MessageForm(name="native", open=_messages),)
FAILED_TURNS = (FailedTurnForm(name="native", read=_failed_turn),)
