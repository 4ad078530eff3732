"""Asking surface A: requests as its callers write them, answers as they read them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from support.http_clients import Answer, Ask, Exchange
from support.live_server import Served

from palaver.core.types import Agent, ApiKey

CHAT = "/snail-ai/open-api/chat"
USER = "external-user-001"
SECRET = "SAI_00112233445566778899aabbccddeeff"
FAR = 4_102_444_800
"""2100-01-01, as the specification's tokens have it."""
Event = dict[str, Any]


def segment(value: Any) -> str:
    """A part of a JWT: bytes as they are, anything else as compact JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(claims: Any, secret: str = SECRET, *, header: Any = None) -> str:
    """A token, signed with HS256 whatever its header says."""
    signed = f"{segment({'alg': 'HS256'} if header is None else header)}.{segment(claims)}"
    return f"{signed}.{segment(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"


def envelope(message: str, status: int = 0) -> bytes:
    """A refusal, byte by byte."""
    return (
        f'{{"code":0,"msg":"{message}","data":null,"status":{status},"message":"{message}","type":"error"}}'
    ).encode()


def error_frame(message: str, status: int = 0) -> list[tuple[str, Event]]:
    """A refusal, where server-sent events were asked for."""
    return [("error", {"message": message, "code": 0, "msg": message, "data": None, "status": status})]


def refused(answer: Answer, message: str, *, status: int = 0, http: int = 200) -> None:
    """Asserts that the answer is that refusal: one envelope, one line, whole."""
    assert answer.body.decode() == envelope(message, status).decode()
    assert answer.status == http
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Content-Length") == str(len(answer.body))
    assert b"\n" not in answer.body
    assert answer.complete


def events(answer: Answer) -> list[Event]:
    """The events of a stream of lines, heartbeats passed over."""
    assert answer.status == 200, answer.body
    assert answer.header("Content-Type") == "application/x-ndjson", answer.body.decode()
    return [json.loads(line) for line in answer.body.split(b"\n") if line]


def frames(body: bytes) -> list[tuple[str, Event]]:
    """(name, data) of every server-sent event, comments passed over."""
    assert body.endswith(b"\n\n")
    events: list[tuple[str, Event]] = []
    for frame in body.decode("ascii").split("\n\n")[:-1]:
        if frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        assert name.startswith("event:")
        assert data.startswith("data:")
        events.append((name.removeprefix("event:"), json.loads(data.removeprefix("data:"))))
    return events


def joined(run_events: list[Event], kind: str = "text") -> str:
    return "".join(event["content"] for event in run_events if event["type"] == kind)


def done(answer: Answer) -> Event:
    """The last line of an answer that ended well."""
    last = events(answer)[-1]
    assert last["type"] == "done", last
    assert answer.complete
    return last


class Caller:
    """Somebody with a credential. ``auth`` is what it sends as ``Snail-Ai-Auth`` unless told otherwise."""

    def __init__(self, served: Served, key: ApiKey | None = None) -> None:
        self.served = served
        self.key = key or served.key("snail")
        self.auth: str | None = self.key.secret

    @staticmethod
    def members(agent: Agent | int, content: str = "hi", *, user: str = USER, **more: Any) -> dict[str, Any]:
        number = agent if isinstance(agent, int) else agent.id
        return {"agentId": number, "openId": user, "content": content, **more}

    def request(
        self, body: bytes | Mapping[str, Any], *, headers: Mapping[str, str | bytes] | None = None, query: str = ""
    ) -> Ask:
        """The request with that body; a header given as "" is still sent."""
        all_headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if self.auth is not None:
            all_headers["Snail-Ai-Auth"] = self.auth
        all_headers.update(headers or {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Ask(path=CHAT, query=query, headers=list(all_headers.items()), body=content)

    def post(
        self, body: bytes | Mapping[str, Any], *, headers: Mapping[str, str | bytes] | None = None, query: str = ""
    ) -> Answer:
        return self.served.ask(self.request(body, headers=headers, query=query))

    def say(
        self,
        agent: Agent | int,
        content: str = "hi",
        *,
        user: str = USER,
        headers: Mapping[str, str | bytes] | None = None,
        **more: Any,
    ) -> Answer:
        """One message, and the whole answer to it."""
        return self.post(self.members(agent, content, user=user, **more), headers=headers)

    def begin(
        self,
        agent: Agent | int,
        content: str = "hi",
        *,
        user: str = USER,
        headers: Mapping[str, str | bytes] | None = None,
        **more: Any,
    ) -> Exchange:
        """One message, whose answer is read bit by bit."""
        return self.served.exchange(self.request(self.members(agent, content, user=user, **more), headers=headers))
