"""The client of the page's section "流式对话中获取智能体回复" in Python, by its described behaviour, and the vendor's
sample call that does not stream: create from ``text`` alone, then poll the messages call."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import requests

TIMEOUT = 10.0


@dataclass(slots=True, kw_only=True)
class Shown:
    """What its user sees of one answer."""

    reply: str = ""
    ids: list[str] = field(default_factory=list[str])
    chats: list[str] = field(default_factory=list[str])
    streamed: str = ""
    last: str = ""


class Client:
    """Signs, says, listens."""

    def __init__(self, base_url: str, app_id: str, app_key: str, agent: str) -> None:
        self._base_url = base_url
        self._app_id = app_id
        self._app_key = app_key
        self._agent = agent
        self.session: str | None = None

    def call(self, method: str, path: str, body: bytes = b"", *, stream: bool = False) -> requests.Response:
        date, media_type = formatdate(usegmt=True), "application/json"
        digest = hashlib.sha256(body).hexdigest() if body else ""
        text = f"KSO-1{method}{path}{media_type}{date}{digest}"
        signature = hmac.new(self._app_key.encode(), text.encode(), hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": media_type,
            "X-Kso-Date": date,
            "X-Kso-Authorization": f"KSO-1 {self._app_id}:{signature}",
        }
        url = self._base_url + path
        return requests.request(method, url, data=body, headers=headers, stream=stream, timeout=TIMEOUT)

    def listen(self, text: str) -> Shown:
        """Say something and read the messages line by line; blank lines are passed over."""
        body = json.dumps({"text": text, "stream": True, "session_id": self.session}).encode()
        page = Shown()
        with self.call("POST", f"/v7/devhub/app/{self._agent}/chat/create", body, stream=True) as response:
            for event in _events(response):
                self._show(event, page)
        return page

    def ask(self, text: str) -> dict[str, Any]:
        """Say something without a stream; the envelope."""
        body = json.dumps({"text": text}).encode()
        return self.call("POST", f"/v7/devhub/app/{self._agent}/chat/create", body).json()

    def messages(self, session: str) -> list[dict[str, Any]]:
        path = f"/v7/devhub/app/{self._agent}/session/messages?session_id={session}"
        return self.call("GET", path).json()["data"]["items"]

    def _show(self, event: dict[str, Any], page: Shown) -> None:
        page.last, data = event["event"], event["data"]
        if page.last == "token":
            page.streamed += data["chunk"]
        if page.last != "add_message":
            return
        self.session = data["session_id"]
        if (data["sender"], data["sender_name"]) != ("Machine", "Agent"):
            return
        page.reply = data["text"]
        page.ids = list(dict.fromkeys([*page.ids, data["id"]]))
        page.chats = list(dict.fromkeys([*page.chats, data["chat_id"]]))


def _events(response: requests.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.strip():
            yield json.loads(line)
