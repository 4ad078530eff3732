"""The vendor's Java client of surface B, rebuilt in Python from how it behaves: what it sends, and how it reads."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

PREFIX = "/snail-ai/openapi/v1"


class SnailAiError(Exception):
    """A call that the server, or the client itself, calls a failure."""


@dataclass(frozen=True)
class Event:
    name: str
    data: dict[str, Any]


class Client:
    """Its calls, as far as the tests make them."""

    def __init__(self, base_url: str, app_id: str, token: str) -> None:
        self._address = urlsplit(base_url).netloc
        self._headers = {"Snail-Ai-App-Id": app_id, "Snail-Ai-Token": token}

    def get(self, path: str, **fields: Any) -> Any:
        return self._call("GET", path, fields)

    def delete(self, path: str, **fields: Any) -> Any:
        return self._call("DELETE", path, fields)

    def post(self, path: str, **fields: Any) -> Any:
        return self._call("POST", path, fields)

    def agents(self) -> list[dict[str, Any]]:
        """With their dates parsed, in exactly the one form it knows."""
        listed_agents: list[dict[str, Any]] = self.get("/agents")
        for agent in listed_agents:
            for name in ("createDt", "updateDt"):
                moment = datetime.strptime(agent[name], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007  it has no zone
                assert moment.strftime("%Y-%m-%d %H:%M:%S") == agent[name]
        return listed_agents

    def chat(self, agent: int, open_id: str, conversation: str | None, content: str) -> Iterator[Event]:
        """The events of an answer. A failure on HTTP's level is an event, too."""
        body = {
            "agentId": agent,
            "openId": open_id,
            "conversationId": conversation,
            "content": content,
            "disabledMcpServerIds": None,
            "disabledSkillIds": None,
            "deepPlanEnabled": None,
            "webSearchEnabled": None,
            "sid": None,
            "timeout": 0,
        }
        connection, answer = self._send("POST", "/agent/chat", body, {"Accept": "text/event-stream"})
        try:
            if answer.status >= 400:
                yield Event("error", {"message": f"HTTP {answer.status}"})
                return
            yield from _events(answer)
        finally:
            connection.close()

    def _call(self, method: str, path: str, fields: Mapping[str, Any]) -> Any:
        connection, answer = self._send(method, path, fields, {})
        try:
            if answer.status >= 400:
                raise SnailAiError(f"HTTP {answer.status}")
            said = json.loads(answer.read())
        finally:
            connection.close()
        if said.get("status", 1) != 1:
            raise SnailAiError(said["message"])
        return said["data"]

    def _send(
        self, method: str, path: str, fields: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._address, timeout=10)
        target, body = PREFIX + path, None
        if method == "POST":
            body = json.dumps(fields)
            headers = {**headers, "Content-Type": "application/json"}
        else:
            target += "?" + urlencode({name: value for name, value in fields.items() if value is not None})
        connection.request(method, target, body, {**self._headers, **headers})
        return connection, connection.getresponse()


def _events(answer: http.client.HTTPResponse) -> Iterator[Event]:
    """``event:`` and ``data:`` at the beginning of a line; several ``data:`` are joined with nothing in between;
    comments, and whatever else stands there, are passed over."""
    name = data = ""
    while line := answer.readline():
        text = line.decode("latin-1").rstrip("\r\n")
        if text.startswith("event:"):
            name = text.removeprefix("event:").strip()
        elif text.startswith("data:"):
            data += text.removeprefix("data:").strip()
        elif not text and data:
            yield Event(name, json.loads(data))
            name = data = ""
