"""What a dialect does with turns: how messages are sent in one conversation, how a run is stopped, and how one that
failed is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from support.http_clients import Ask, Exchange
from support.live_server import Served

from palaver.core.types import Agent

USER = "ann"
FIRST_MESSAGE = "hi"


@dataclass(frozen=True, slots=True)
class StoppableStream:
    """A stream whose head was read, and the call that stops its run."""

    stream: Exchange
    stop: Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopForm:
    """One way to stop a run. ``deletes``: the call deletes the conversation."""

    name: str
    open: Callable[[Served, Agent], StoppableStream]
    deletes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageForm:
    """One way to send messages in a conversation.

    ``open`` makes a conversation, with settings of the credential, and returns the requests of its messages; the first
    is streamed. ``stops_abandoned``: by default, a message stops an abandoned turn.
    """

    name: str
    open: Callable[..., Callable[[str], Ask]]
    stops_abandoned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedTurnForm:
    """One way to read a failed turn: ``read`` sends a message whose turn fails, and returns the text of the answer as
    the conversation has it, and whether it is shown as failed."""

    name: str
    read: Callable[[Served, Agent], tuple[str, bool]]
