"""Messages in one conversation, stops, and failed turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dialects.wps import client as wps
from support.http_clients import Ask
from support.live_server import Served
from support.turns import USER, FailedTurnForm, MessageForm, StopForm, StoppableStream

from palaver.core.types import Agent


def _session(caller: wps.Caller, agent: Agent, text: str) -> str:
    """The session that the message starts."""
    events = caller.hear(agent, text)
    return next(event["data"]["session_id"] for event in events if event["event"] == "add_message")


def _stop(served: Served, agent: Agent) -> StoppableStream:
    caller = wps.Caller(served, served.key("wps", default_user=USER))
    stream = caller.begin(agent)
    chat = stream.head().header("X-Chat-Id") or ""
    return StoppableStream(stream, lambda: wps.data(caller.cancel(agent, chat)))


def _messages(served: Served, agent: Agent, **settings: Any) -> Callable[[str], Ask]:
    caller = wps.Caller(served, served.key("wps", default_user=USER, **settings))
    session = _session(caller, agent, "hello")
    path = wps.chat(agent)
    return lambda text: caller.request("POST", path, {"text": text, "stream": True, "session_id": session})


def _failed_turn(served: Served, agent: Agent) -> tuple[str, bool]:
    caller = wps.Caller(served, served.key("wps", default_user=USER))
    item = caller.items(agent, _session(caller, agent, "hi"))[-1]
    return item["text"] or "(the vendor has no place for it)", item["error"]


def _failed_turn_with_events(served: Served, agent: Agent) -> tuple[str, bool]:
    caller = wps.Caller(served, served.key("wps", default_user=USER))
    item = caller.items(agent, _session(caller, agent, "hi"), with_event="true")[-1]
    if item["text"] == "":
        (error,) = [one for block in item["events"] for one in block["contents"] if one["type"] == "error"]
        return error["reason"], item["error"]
    return item["text"], item["error"]


STOPS = (StopForm(name="wps", open=_stop),)
MESSAGES = (MessageForm(name="wps", open=_messages),)
FAILED_TURNS = (
    FailedTurnForm(name="wps", read=_failed_turn),
    FailedTurnForm(name="wps, with_event", read=_failed_turn_with_events),
)
