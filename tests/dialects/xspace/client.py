"""A client: requests as callers write them, responses as they read them."""

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
UPLOAD = "/api/v1/file/upload"
FORM_TYPE = "multipart/form-data; boundary=b0"
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
    """A request as the HTTP layer passes it to the dialect."""
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


def form(*fields: tuple[str, bytes], boundary: str = "b0") -> bytes:
    """A form of (what follows ``form-data``, content)."""
    mark = f"--{boundary}".encode()
    pieces = [
        mark + b"\r\nContent-Disposition: form-data" + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in fields
    ]
    return b"".join(pieces) + mark + b"--\r\n"


def enveloped(answer: Answer) -> dict[str, Any]:
    """The envelope, after checking its constant parts."""
    assert answer.status == 200
    assert answer.header("Content-Type") == "application/json"
    envelope = answer.json()
    assert list(envelope) == MEMBERS
    assert envelope["displayCode"] == envelope["code"]
    assert envelope["success"] == (envelope["code"] == "0000")
    assert re.fullmatch(r"[1-9]\d{2,5}\d{13}", envelope["tid"])
    assert abs(int(envelope["tid"][-13:]) - time.time() * 1000) < 60_000
    return envelope


def data(answer: Answer) -> Any:
    """The data of a success response."""
    envelope = enveloped(answer)
    assert (envelope["code"], envelope["message"]) == ("0000", "success"), envelope
    return envelope["data"]


def done(answer: Answer) -> None:
    """Checks a success response without data."""
    envelope = enveloped(answer)
    assert (envelope["code"], envelope["message"], envelope["data"]) == ("0000", "成功", None)


def refused(answer: Answer, code: str, message: str) -> None:
    envelope = enveloped(answer)
    assert (envelope["code"], envelope["message"], envelope["data"]) == (code, message, None)


def frames(body: bytes) -> list[Event]:
    """The events of a stream, after checking their form."""
    assert body.endswith(b"\n\n")
    run_events: list[Event] = []
    for block in body.decode("ascii").split("\n\n")[:-1]:
        assert block.startswith("data:{")
        assert "\n" not in block
        event = json.loads(block.removeprefix("data:"))
        assert list(event) == ["requestId", "eventType", "error", "data", "completed"]
        run_events.append(event)
    return run_events


def events(answer: Answer) -> list[Event]:
    """The events of a response without heartbeats, after checking their order."""
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/event-stream;charset=UTF-8", answer.body.decode()
    assert answer.complete
    all_events = frames(answer.body)
    beats = [event for event in all_events if event["eventType"] == "HEART_BEAT"]
    assert all(event["data"] is None and not event["completed"] for event in beats)
    run_events = [event for event in all_events if event["eventType"] != "HEART_BEAT"]
    assert [event["eventType"] for event in all_events[-2:]] == ["MESSAGE", "FINAL_RESULT"]
    assert [event["completed"] for event in all_events] == [False] * (len(all_events) - 1) + [True]
    ends = [event["data"]["finished"] for event in run_events if event["eventType"] == "MESSAGE"]
    assert ends == [False] * (len(ends) - 1) + [True]
    return run_events


def joined(run_events: list[Event], kind: str = "CHAT") -> str:
    messages = [event["data"] for event in run_events if event["eventType"] == "MESSAGE"]
    return "".join(message["text"] for message in messages if message["type"] == kind)


class Caller:
    """A client with a key. ``auth`` is sent as ``Authorization`` unless it is ``None``."""

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
        all_headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if self.auth is not None:
            all_headers["Authorization"] = self.auth
        all_headers.update(headers or {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Ask(method=method, path=path, query=query, headers=list(all_headers.items()), body=content)

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
        """Send a message; its answer is read event by event."""
        return self.served.exchange(self.request("POST", chat_path(conversation), {"message": message}))

    def stop(self, conversation: int | str) -> Answer:
        return self.post(f"{chat_path(conversation)}/stop")

    def messages(self, conversation: int | str, query: str = "") -> list[dict[str, Any]]:
        return data(self.get(f"{chat_path(conversation)}/messages", query))
