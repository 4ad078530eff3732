"""The calls that read a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dialects.native import client as native
from support.histories import USER, FirstPage, HistoryForm, LongConversation, Page
from support.http_clients import Ask


def _pages(way: str) -> Callable[[LongConversation], FirstPage]:
    def first(conversation: LongConversation) -> FirstPage:
        caller, path = native.Caller(conversation.served, user=USER), f"conversations/{conversation.id}/messages"

        def request(query: str) -> Ask:
            return caller.request("GET", path, query=f"limit=100{query}")

        def read(page: Any) -> Page:
            messages = page["messages"]
            texts = [message["text"] for message in messages]
            if not page["more"]:
                return texts, None
            return texts, request(f"&{way}={messages[0 if way == 'before' else -1]['id']}")

        return request("" if way == "before" else "&after=0"), read

    return first


HISTORIES = (
    HistoryForm(name="native, back from the newest", first=_pages("before"), newest_first=True),
    HistoryForm(name="native, from the oldest", first=_pages("after")),
)
