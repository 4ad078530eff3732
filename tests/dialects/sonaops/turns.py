"""Messages in one conversation. The vendor has no call that stops a run, and none that reads a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dialects.sonaops import client as sonaops
from support.http_clients import Ask
from support.live_server import Served
from support.turns import USER, MessageForm

from palaver.core.types import Agent


def _messages(served: Served, agent: Agent, **settings: Any) -> Callable[[str], Ask]:
    caller = sonaops.Caller(served, served.key("sonaops", **settings), user=USER)
    conversation = caller.create(agent)
    return lambda text: caller.asks(agent, conversation, text)


MESSAGES = (MessageForm(name="sonaops", open=_messages),)
