"""One end user of one application through any dialect: the same few acts through each vendor's API, and our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

USER = "ann"


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectClient:
    """What the end user can do through one dialect. Conversations are named by their UUID. ``None``: the vendor has
    no such call."""

    start: Callable[[], str]
    """Start a conversation by saying "hi"; its UUID."""
    send: Callable[[str, str], str]
    """Send a message in a conversation; the answer."""
    list_messages: Callable[[str], list[str]] | None
    """Every text of the conversation, oldest first."""
    list_conversations: Callable[[], list[str]] | None
    get_title: Callable[[str], str] | None
    rename: Callable[[str, str], None] | None
    delete: Callable[[str], None] | None
    is_gone: Callable[[str], bool]
    """Whether the conversation answers like one that never was."""
