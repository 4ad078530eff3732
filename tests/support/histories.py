"""A conversation of long messages, and the calls of a dialect that read one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from support.http_clients import GUARD, Ask
from support.live_server import Served

from palaver import app
from palaver.core.chat import NewMessage
from palaver.core.runs import read_to_end
from palaver.core.types import Agent, Conversation, Principal, Text

USER = "ann"
LETTERS = 100_000
"""Of a question: each is three bytes as it is stored."""
TURNS = 30
ANSWER = "yes"


@dataclass(kw_only=True)
class LongConversation:
    """A conversation whose questions are long, and the first letters of its messages."""

    served: Served
    agent: Agent
    who: Principal
    conversation: Conversation
    starts: list[str] = field(default_factory=list[str])

    @property
    def id(self) -> int:
        return self.conversation.id

    @property
    def uid(self) -> str:
        return self.conversation.uid.hex


Page = tuple[list[str], Ask | None]
"""Texts of the messages in their order, and the request of the next page."""
FirstPage = tuple[Ask, Callable[[Any], Page]]
"""The request of the first page, and how the JSON of a page is read."""


@dataclass(frozen=True, kw_only=True)
class HistoryForm:
    """A call that reads a conversation. ``newest_first``: it begins with the newest page, and goes back."""

    name: str
    first: Callable[[LongConversation], FirstPage]
    newest_first: bool = False
    paged: bool = True
    """Whether its pages may be shorter than requested."""
    max_messages: int = 2 * TURNS
    """How many messages it shows in all: the newest."""


def empty_conversation(served: Served, agent: Agent) -> LongConversation:
    """A new one, of the same end user; which dialect his credential is of makes no difference."""
    who = served.principal(served.key(app.all_dialects()[0].name), USER)
    made = served.do(served.core.chat.create_conversation(who, agent))
    return LongConversation(served=served, agent=agent, who=who, conversation=made)


def long_conversation(served: Served) -> LongConversation:
    """``TURNS`` long questions, each of them answered."""
    filled = empty_conversation(served, served.agent(ANSWER))

    async def say(text: str) -> None:
        message = NewMessage(parts=(Text(text=text),))
        turn = await served.core.chat.send(filled.who, filled.agent, message, conversation=filled.id)
        assert await read_to_end(turn.reader, GUARD) is not None

    for number in range(TURNS):
        served.do(say(f"{number:04}" + "中" * LETTERS))
        filled.starts += [f"{number:04}", ANSWER]
    while served.sql("SELECT 1 FROM message WHERE conversation = $1 AND status = 'live'", filled.id):
        time.sleep(0.01)
    return filled
