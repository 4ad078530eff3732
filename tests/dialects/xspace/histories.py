"""The calls that read a conversation."""

from __future__ import annotations

from typing import Any

from dialects.xspace import client as xspace
from support.histories import USER, FirstPage, HistoryForm, LongConversation, Page
from support.http_clients import Ask

LIMIT = 40


def _pages(conversation: LongConversation) -> FirstPage:
    caller = xspace.Caller(conversation.served, default_user=USER)

    def request(query: str) -> Ask:
        return caller.request("GET", f"{xspace.chat_path(conversation.id)}/messages", query=f"limit={LIMIT}{query}")

    def read(page: Any) -> Page:
        messages = page["data"]
        full = len(messages) == LIMIT  # as a client has to see it: nothing else says that there is more
        return [message["text"] for message in messages], request(f"&index={messages[0]['index']}") if full else None

    return request(""), read


def _older(conversation: LongConversation) -> FirstPage:
    agent = str(conversation.agent.uid)
    caller = xspace.Caller(conversation.served, default_user=USER, kind="agent", agent=agent)
    request = caller.request("GET", f"/api/v1/conversation/{conversation.id}")
    return request, lambda page: ([message["text"] for message in page["data"]["messageList"]], None)


HISTORIES = (
    HistoryForm(name="xspace", first=_pages, newest_first=True, paged=False),
    HistoryForm(name="xspace, older path", first=_older, paged=False, max_messages=20),
)
