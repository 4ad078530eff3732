"""Messages in one conversation, stops, and failed turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dialects.xspace import client as xspace
from support.http_clients import Ask, Exchange
from support.live_server import Served
from support.turns import USER, FailedTurnForm, MessageForm, StopForm, StoppableStream

from palaver.core.types import Agent


def _bound(served: Served, agent: Agent) -> xspace.Caller:
    """A client whose key is for that agent, for the older paths."""
    return xspace.Caller(served, default_user=USER, kind="agent", agent=str(agent.uid))


def _stream(caller: xspace.Caller, agent: Agent) -> tuple[int, Exchange]:
    conversation = caller.add(agent)
    stream = caller.begin(conversation)
    stream.head()
    return conversation, stream


def _stop(served: Served, agent: Agent) -> StoppableStream:
    caller = xspace.Caller(served, default_user=USER)
    conversation, stream = _stream(caller, agent)
    return StoppableStream(stream, lambda: xspace.done(caller.stop(conversation)))


def _older_stop(served: Served, agent: Agent) -> StoppableStream:
    conversation, stream = _stream(xspace.Caller(served, default_user=USER), agent)
    bound = _bound(served, agent)
    return StoppableStream(stream, lambda: xspace.done(bound.post(f"/api/v1/chat/stop/{conversation}")))


def _messages(served: Served, agent: Agent, **settings: Any) -> Callable[[str], Ask]:
    caller = xspace.Caller(served, default_user=USER, **settings)
    path = xspace.chat_path(caller.add(agent))
    return lambda text: caller.request("POST", path, {"message": text})


def _failed_turn(served: Served, agent: Agent) -> tuple[str, bool]:
    caller = xspace.Caller(served, default_user=USER)
    conversation = caller.add(agent)
    caller.say(conversation)
    (_, answer) = caller.messages(conversation)
    return answer["text"], answer["finishReason"] == "ERROR"


def _older_failed_turn(served: Served, agent: Agent) -> tuple[str, bool]:
    caller = _bound(served, agent)
    conversation = caller.add(agent)
    caller.post("/api/v1/chat", {"message": "hi", "conversationId": conversation})
    answer = xspace.data(caller.get(f"/api/v1/conversation/{conversation}"))["messageList"][-1]
    return answer["text"], answer["finishReason"] == "ERROR"


STOPS = (StopForm(name="xspace", open=_stop), StopForm(name="xspace, older path", open=_older_stop))
MESSAGES = (MessageForm(name="xspace", open=_messages),)
FAILED_TURNS = (
    FailedTurnForm(name="xspace", read=_failed_turn),
    FailedTurnForm(name="xspace, older path", read=_older_failed_turn),
)
