"""Asking surface B, and searching on A: requests as the vendor's Java client writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from dialects.snail.client import Event, frames
from support.http_clients import Answer, Ask
from support.live_server import Served

from palaver.core.types import Agent, ApiKey

B = "/snail-ai/openapi/v1"
CHAT, SYNC = f"{B}/agent/chat", f"{B}/agent/chat/sync"
CONVERSATIONS = f"{B}/agent/conversations"
MESSAGES = f"{CONVERSATIONS}/messages"
SEARCH = "/snail-ai/open-api/rag/search"
EVENTS = {"Accept": "text/event-stream"}


def good(answer: Answer) -> Any:
    """The ``data`` of a good answer, whose envelope is as it has to be."""
    body = answer.json()
    assert answer.status == 200, answer.body.decode()
    assert body["code"] == 1, answer.body.decode()
    assert list(body)[:5] == ["code", "msg", "data", "status", "message"]
    assert (body["msg"], body["status"], body["message"]) == ("success", 1, "success")
    assert answer.header("Content-Type") == "application/json"
    return body["data"]


def page_of(answer: Answer) -> tuple[int, int, int]:
    """(page, size, total) of a list."""
    good(answer)
    body = answer.json()
    assert list(body)[5:] == ["page", "size", "total"]
    return body["page"], body["size"], body["total"]


def refused_on_b(answer: Answer, message: str, *, status: int = 0, http: int = 200) -> None:
    """Asserts that the answer is that refusal, byte by byte."""
    text = json.dumps(message, ensure_ascii=False)
    expected = f'{{"code":0,"msg":{text},"data":null,"status":{status},"message":{text}}}'
    assert answer.body.decode() == expected
    assert answer.status == http
    assert answer.header("Content-Type") == "application/json"


def spoken(answer: Answer) -> list[tuple[str, Event]]:
    """The events of a stream that ended well."""
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/event-stream;charset=UTF-8", answer.body.decode()
    assert answer.complete
    return frames(answer.body)


class Caller:
    """A program with a credential of surface B."""

    def __init__(self, served: Served, key: ApiKey | None = None, **settings: Any) -> None:
        self.served = served
        self.key = key or served.key("snail", **settings)
        self.auth: dict[str, str] = {"Snail-Ai-App-Id": self.key.id, "Snail-Ai-Token": self.key.secret}

    def request(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any] | bytes | None = None,
        *,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Ask:
        """Fields of a POST go into its body, others into the query."""
        all_headers: dict[str, str | bytes] = {**self.auth, **(headers or {})}
        if method == "POST":
            body = fields if isinstance(fields, bytes) else json.dumps(fields or {}).encode()
            return Ask(path=path, headers=[*all_headers.items(), ("Content-Type", "application/json")], body=body)
        assert not isinstance(fields, bytes)
        query = "&".join(f"{name}={quote(str(value))}" for name, value in (fields or {}).items())
        return Ask(method=method, path=path, query=query, headers=list(all_headers.items()))

    def ask(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any] | bytes | None = None,
        *,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Answer:
        return self.served.ask(self.request(method, path, fields, headers=headers))

    def get(self, path: str, **fields: Any) -> Answer:
        return self.ask("GET", path, fields)

    def post(self, path: str, **fields: Any) -> Answer:
        return self.ask("POST", path, fields)

    def delete(self, path: str, **fields: Any) -> Answer:
        return self.ask("DELETE", path, fields)

    def register(self, external_id: str | None = None, **more: Any) -> str:
        """The ``openId`` of that user."""
        open_id: str = good(self.post(f"{B}/user/register", externalId=external_id, **more))["openId"]
        return open_id

    def say(
        self,
        agent: Agent | int,
        open_id: str,
        content: str = "hi",
        *,
        path: str = CHAT,
        headers: Mapping[str, str | bytes] | None = None,
        **more: Any,
    ) -> Answer:
        """One message, and the whole answer to it."""
        number = agent if isinstance(agent, int) else agent.id
        return self.ask(
            "POST", path, {"agentId": number, "openId": open_id, "content": content, **more}, headers=headers
        )
