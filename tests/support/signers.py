"""One end user of every dialect: requests made elsewhere, signed as the dialect that they go to wants it."""

from __future__ import annotations

from uuid import UUID, uuid4

from requests import PreparedRequest
from support.adapters import ADAPTERS
from support.dialect_clients import USER
from support.live_server import Served

from palaver.core.chat import NewMessage
from palaver.core.types import Agent, ApiKey, Conversation, Text


class Callers:
    """One end user with a credential of every dialect, an agent, and a conversation with it."""

    def __init__(self, served: Served, agent: Agent) -> None:
        self.served = served
        self.agent = agent
        self.keys: dict[str, ApiKey] = {
            name: served.key(name, **adapter.key_settings(agent)) for name, adapter in ADAPTERS.items()
        }

    def conversation(self) -> Conversation:
        """A new one."""
        who = self.served.principal(self.keys["native"], USER)
        return self.served.do(self.served.core.chat.create_conversation(who, self.agent, title="A title"))

    def run(self, conversation: Conversation) -> UUID:
        """One that answers in that conversation."""
        who = self.served.principal(self.keys["native"], USER)
        message = NewMessage(parts=(Text(text="hi"),), trace=uuid4().hex)
        sent = self.served.do(self.served.core.chat.send(who, self.agent, message, conversation=conversation.id))
        sent.reader.close()
        return sent.run_uid

    def sign(self, dialect: str, request: PreparedRequest) -> None:
        """Add to the request what proves who sends it."""
        key = self.keys.get(dialect)
        if key is not None:
            request.headers.update(ADAPTERS[dialect].sign(key, request))
