"""Calls that go beyond a limit, and how a dialect refuses them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from support.http_clients import Answer, Ask
from support.live_server import Served

from palaver.core.types import Agent, ApiKey, Conversation

USER = "ann"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Somebody with a credential of an application of its own, and a conversation."""

    served: Served
    application: str
    key: ApiKey
    agent: Agent
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response to a call beyond a limit. ``retry_after``: it says when to try again."""

    status: int
    text: str
    retry_after: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """The refusals of a dialect, by the reason."""

    rate: Refusal
    daily_rate: Refusal | None
    """``None``: a credential has no daily limit."""
    usage: Refusal
    waiting: Refusal
    overload: Refusal
    full: Refusal
    file: Refusal | None
    """``None``: no call stores a file."""
    body: Refusal

    def each(self) -> list[Refusal]:
        reasons = (self.rate, self.daily_rate, self.usage, self.waiting, self.overload, self.full, self.file, self.body)
        return [refusal for refusal in reasons if refusal is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCalls:
    """The calls of a dialect that can go beyond a limit."""

    settings: Mapping[str, Any]
    """Settings of the credential."""
    send: Callable[[Guest, str], Ask]
    """Send a message in the guest's conversation."""
    start: Callable[[Guest], Ask]
    """Start a conversation."""
    upload: Callable[[Guest, int], Ask] | None
    """Upload a file of that size. ``None``: no call stores a file."""
    checks_request_ids: bool
    """Whether ``start`` sends a request id that is valid once."""
    refusals: Refusals


def new_guest(served: Served, dialect: str, calls: LimitCalls, **settings: Any) -> Guest:
    application = served.new_name("guest")
    key = served.key(dialect, application=application, **calls.settings, **settings)
    agent = served.agent("so be it", application=application)
    conversation = served.do(served.core.chat.create_conversation(served.principal(key, USER), agent))
    return Guest(served=served, application=application, key=key, agent=agent, conversation=conversation)


def assert_refused(answer: Answer, refusal: Refusal) -> None:
    body = answer.body.decode()
    assert refusal.text in body or json.dumps(refusal.text)[1:-1] in body, body
    assert answer.status == refusal.status
    retry_after = answer.header("Retry-After")
    assert (retry_after is not None) == refusal.retry_after
    assert retry_after is None or int(retry_after) >= 1
