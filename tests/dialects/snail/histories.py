"""The calls that read a conversation."""

from __future__ import annotations

from typing import Any

from dialects.snail import client_b as snail
from dialects.snail import client_c as snail_c
from support.histories import USER, FirstPage, HistoryForm, LongConversation, Page


def _read(page: Any) -> Page:
    return [message["content"] for message in page["data"]], None


def _surface_b(conversation: LongConversation) -> FirstPage:
    caller = snail.Caller(conversation.served)
    fields = {
        "agentId": conversation.agent.id,
        "openId": caller.register(USER),
        "conversationId": conversation.uid,
    }
    return caller.request("GET", snail.MESSAGES, fields), _read


def _surface_c(conversation: LongConversation) -> FirstPage:
    served = conversation.served
    browser = snail_c.Browser(served, snail_c.token(served.key("snail"), USER))
    fields = {"agentId": conversation.agent.id, "conversationId": conversation.uid}
    return browser.request("GET", f"{snail_c.C}/messages", fields), _read


HISTORIES = (
    HistoryForm(name="snail B", first=_surface_b, paged=False),
    HistoryForm(name="snail C", first=_surface_c, paged=False),
)
