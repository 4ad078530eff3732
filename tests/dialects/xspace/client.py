"""Asking as callers do: requests as they write them, answers as they read them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from support.http_clients import Answer, Ask, Exchange
from support.live_server import Served

from palaver.core.types import Agent, ApiKey
from palaver.wire.contract import Headers, Request

ADD = "/api/v1/chat/conversation/add"
LIST = "/api/v1/chat/conversation/list"
USER = "default"
TRACE = "0123456789abcdef0123456789abcdef"
NOW = 1_776_085_673.993
MEMBERS = ["code", "displayCode", "message", "data", "tid", "success"]
Event = dict[str, Any]


def call(
    headers: Mapping[str, str | bytes] | None = None,
    body: bytes = b"",
    *,
    method: str = "POST",
    path: str = "/api/v1/chat/conversation/add",
    route: str = "",
    query: str = "",
    now: float = NOW,
    origin: str = "http://test",
) -> Request:
    """A request as http hands it to the dialect."""
    pairs = (headers or {}).items()
    raw = [(name.encode("latin-1"), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]
    return Request(
        method=method,
        path=path,
        target=f"{path}?{query}" if query else path,
        headers=Headers(raw),
        route=route or path,
        path_params={},
        body=body,
        now=now,
        trace=TRACE,
        base_url=origin,
    )


def update_path(conversation: int | str) -> str:
    return f"/api/v1/chat/conversation/{conversation}/update"


def chat_path(conversation: int | str) -> str:
    return f"/api/v1/chat/{conversation}"


def enveloped(answer: Answer) -> dict[str, Any]:
    """The envelope, its constant parts checked."""
    assert answer.status == 200
    assert answer.header("Content-Type") == "application/json"
    said = answer.json()
    assert list(said) == MEMBERS
    assert said["displayCode"] == said["code"]
    assert said["success"] == (said["code"] == "0000")
    assert re.fullmatch(r"[1-9]\d{2,5}\d{13}", said["tid"])
    assert abs(int(said["tid"][-13:]) - time.time() * 1000) < 60_000
    return said


def data(answer: Answer) -> Any:
    """What a call that went well answers."""
    said = enveloped(answer)
    assert (said["code"], said["message"]) == ("0000", "success"), said
    return said["data"]


def done(answer: Answer) -> None:
    """A call that went well and has nothing to tell."""
    said = enveloped(answer)
    assert (said["code"], said["message"], said["data"]) == ("0000", "成功", None)


def refused(answer: Answer, code: str, message: str) -> None:
    said = enveloped(answer)
    assert (said["code"], said["message"], said["data"]) == (code, message, None)


def frames(body: bytes) -> list[Event]:
    """The events of a stream, each with its five members in order."""
    assert body.endswith(b"\n\n")
    found: list[Event] = []
    for block in body.decode("ascii").split("\n\n")[:-1]:
        assert block.startswith("data:{")
        assert "\n" not in block
        event = json.loads(block.removeprefix("data:"))
        assert list(event) == ["requestId", "eventType", "error", "data", "completed"]
        found.append(event)
    return found


def events(answer: Answer) -> list[Event]:
    """The events of an answer, heartbeats left out, in the one order they may have."""
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/event-stream;charset=UTF-8", answer.body.decode()
    assert answer.complete
    found = frames(answer.body)
    beats = [event for event in found if event["eventType"] == "HEART_BEAT"]
    assert all(event["data"] is None and not event["completed"] for event in beats)
    said = [event for event in found if event["eventType"] != "HEART_BEAT"]
    assert [event["eventType"] for event in found[-2:]] == ["MESSAGE", "FINAL_RESULT"]
    assert [event["completed"] for event in found] == [False] * (len(found) - 1) + [True]
    ends = [event["data"]["finished"] for event in said if event["eventType"] == "MESSAGE"]
    assert ends == [False] * (len(ends) - 1) + [True]
    return said


def joined(said: list[Event], kind: str = "CHAT") -> str:
    messages = [event["data"] for event in said if event["eventType"] == "MESSAGE"]
    return "".join(message["text"] for message in messages if message["type"] == kind)


class Caller:
    """Somebody with a key. ``auth`` is sent as ``Authorization`` unless it is ``None``."""

    def __init__(self, served: Served, key: ApiKey | None = None, **settings: Any) -> None:
        self.served = served
        self.key = key or served.key("xspace", **settings)
        self.auth: str | None = f"Bearer {self.key.secret}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] = b"",
        *,
        headers: Mapping[str, str | bytes] | None = None,
        query: str = "",
    ) -> Ask:
        given: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if self.auth is not None:
            given["Authorization"] = self.auth
        given.update(headers or {})
        said = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Ask(method=method, path=path, query=query, headers=list(given.items()), body=said)

    def post(
        self,
        path: str,
        body: bytes | Mapping[str, Any] = b"",
        *,
        headers: Mapping[str, str | bytes] | None = None,
        query: str = "",
    ) -> Answer:
        return self.served.ask(self.request("POST", path, body, headers=headers, query=query))

    def get(self, path: str, query: str = "", *, headers: Mapping[str, str | bytes] | None = None) -> Answer:
        return self.served.ask(self.request("GET", path, headers=headers, query=query))

    def add(self, agent: Agent, **more: Any) -> int:
        """A new conversation's id."""
        return data(self.post(ADD, {"agentId": agent.id, **more}))

    def detail(self, conversation: int | str) -> dict[str, Any]:
        return data(self.get(f"/api/v1/chat/conversation/{conversation}"))

    def update(self, conversation: int | str, body: bytes | Mapping[str, Any], **more: Any) -> Answer:
        return self.post(update_path(conversation), body, **more)

    def say(self, conversation: int | str, message: str = "hi", **more: Any) -> Answer:
        return self.post(chat_path(conversation), {"message": message, **more})

    def begin(self, conversation: int | str, message: str = "hi") -> Exchange:
        """One message, whose answer is read bit by bit."""
        return self.served.exchange(self.request("POST", chat_path(conversation), {"message": message}))

    def stop(self, conversation: int | str) -> Answer:
        return self.post(f"{chat_path(conversation)}/stop")

    def messages(self, conversation: int | str, query: str = "") -> list[dict[str, Any]]:
        return data(self.get(f"{chat_path(conversation)}/messages", query))
