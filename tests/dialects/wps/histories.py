"""The calls that read a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dialects.wps import client as wps
from support.histories import USER, FirstPage, HistoryForm, LongConversation, Page
from support.http_clients import Ask


def _pages(more: str) -> Callable[[LongConversation], FirstPage]:
    def first(conversation: LongConversation) -> FirstPage:
        served = conversation.served
        caller = wps.Caller(served, served.key("wps", default_user=USER))
        path = f"/v7/devhub/app/{conversation.agent.uid}/session/messages"
        answer_ids: list[str] = []  # of questions whose answers are still to come, perhaps on the next page

        def request(token: str) -> Ask:
            query = f"session_id={conversation.uid}&page_size=100{more}"
            return caller.request("GET", path, query=query + (f"&next_page_token={token}" if token else ""))

        def read(page: Any) -> Page:
            items, token = page["data"]["items"], page["data"]["next_page_token"]
            for item in items:
                if item["role"] == "assistant":
                    assert item["id"] == item["chat_id"] == answer_ids.pop()
                else:
                    answer_ids.append(item["chat_id"])
            return [item["text"] for item in items], request(token) if token else None

        return request(""), read

    return first


HISTORIES = (
    HistoryForm(name="wps", first=_pages("")),
    HistoryForm(name="wps, with_event", first=_pages("&with_event=true")),
)
