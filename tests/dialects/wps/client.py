"""Asking as callers of the vendor's API do: signed requests, and answers as they are read."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from support.http_clients import Answer, Ask, Exchange
from support.live_server import Served

from palaver.core.types import Agent, ApiKey
from palaver.dialects.wps.auth import SCOPES

Event = dict[str, Any]
USER = "default"
CURL_TIMEOUT = 20.0
BEAT = b"\n\n"


def now(**off: float) -> str:
    """The date header of a request that is made now, or so much earlier or later."""
    return (datetime.now(UTC) + timedelta(**off)).strftime("%a, %d %b %Y %H:%M:%S GMT")


def signed(key_id: str, secret: str, ask: Ask, *, date: str, media_type: str = "application/json") -> dict[str, str]:
    """The headers that sign the request."""
    target = ask.path + (f"?{ask.query}" if ask.query else "")
    body = hashlib.sha256(ask.body).hexdigest() if ask.body else ""
    text = f"KSO-1{ask.method}{target}{media_type}{date}{body}"
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return {
        "Content-Type": media_type,
        "X-Kso-Date": date,
        "X-Kso-Authorization": f"KSO-1 {key_id}:{signature}",
    }


def refused(answer: Answer, http: int, code: int, message: str) -> None:
    """Asserts that the answer is that refusal, whole and without data."""
    body = answer.json()
    assert (answer.status, body["code"], body["msg"]) == (http, code, message)
    assert list(body) == ["code", "msg", "debug"]
    assert list(body["debug"]) == ["desc"]
    assert answer.header("Content-Type") == "application/json"
    assert answer.complete


def invalid(answer: Answer, reason: str) -> None:
    refused(answer, 400, 400000001, f"kso: InvalidArgument err: {reason}")


def data(answer: Answer) -> Any:
    """The data of a success."""
    body = answer.json()
    assert answer.status == 200, body
    assert answer.header("Content-Type") == "application/json"
    assert list(body) == ["code", "msg", "data"]
    assert (body["code"], body["msg"]) == (0, "success")
    return body["data"]


def spoken(writes: Sequence[bytes]) -> list[Event]:
    """The messages of a stream; asserts that each write is one, in the form of Python's ``json.dumps``."""
    events: list[Event] = []
    for write in writes:
        if write == BEAT:
            continue
        event = json.loads(write)
        assert write == json.dumps(event).replace("\x7f", "\\u007f").encode("ascii") + b"\n\n"
        assert list(event) == ["event", "data"]
        events.append(event)
    return events


def names(events: Sequence[Event]) -> list[str]:
    """What the messages are, an agent's with its state."""
    return [_name(event) for event in events]


def _name(event: Event) -> str:
    match event:
        case {"event": "add_message", "data": message}:
            return f"{message['sender_name']} {message['properties']['state']}"
        case {"event": "end_vertex", "data": {"build_data": build}}:
            return f"end {build['id'].partition('-')[0]}"
        case _:
            return event["event"]


def merged(events: Sequence[Event]) -> list[str]:
    """The same without what may be merged: partial messages after the first, neighbouring tokens."""
    merged_names: list[str] = []
    for name in names(events):
        if name == "Agent partial" and "Agent partial" in merged_names:
            continue
        if name == "token" and merged_names[-1] == "token":
            continue
        merged_names.append(name)
    return merged_names


def chunks(events: Sequence[Event]) -> str:
    return "".join(event["data"]["chunk"] for event in events if event["event"] == "token")


def agents(events: Sequence[Event]) -> list[Event]:
    """The agent's messages."""
    return [one["data"] for one in events if one["event"] == "add_message" and one["data"]["sender_name"] == "Agent"]


class Caller:
    """Somebody with an access key; ``token`` is the user token it sends, if any."""

    def __init__(self, served: Served, key: ApiKey | None = None, *, token: str | None = None) -> None:
        self.served = served
        self.key = key or served.key("wps")
        self.token = token

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] = b"",
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        date: str | None = None,
    ) -> Ask:
        """The signed request; a header given replaces the one there would be, ``""`` leaves it out."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        ask = Ask(method=method, path=path, query=query, body=content)
        all_headers = signed(self.key.id, self.key.secret, ask, date=now() if date is None else date)
        if self.token is not None:
            all_headers["Authorization"] = f"Bearer {self.token}"
        all_headers.update(headers or {})
        kept = [(name, value) for name, value in all_headers.items() if value]
        return Ask(method=method, path=path, query=query, body=content, headers=kept)

    def post(self, path: str, body: bytes | Mapping[str, Any] = b"", **more: Any) -> Answer:
        return self.served.ask(self.request("POST", path, body, **more))

    def get(self, path: str, query: str = "", **more: Any) -> Answer:
        return self.served.ask(self.request("GET", path, query=query, **more))

    def say(self, agent: Agent, text: str = "hi", *, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        return self.post(chat(agent), {"text": text, **more}, headers=headers)

    def begin(
        self, agent: Agent, text: str = "hi", *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Exchange:
        """A streamed message, whose answer is read bit by bit."""
        body = {"text": text, "stream": True, **more}
        return self.served.exchange(self.request("POST", chat(agent), body, headers=headers))

    def hear(
        self, agent: Agent, text: str = "hi", *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> list[Event]:
        """A streamed message, and the whole of its answer."""
        answer = self.begin(agent, text, headers=headers, **more).answer()
        assert answer.status == 200, answer.body
        assert answer.complete
        return spoken(answer.writes)

    def items(self, agent: Agent, session: str, **query: str) -> list[Event]:
        """The messages of a session."""
        fields = "&".join(f"{name}={value}" for name, value in {"session_id": session, **query}.items())
        return data(self.get(f"/v7/devhub/app/{agent.uid}/session/messages", fields))["items"]

    def cancel(self, agent: Agent, chat_id: str) -> Answer:
        return self.post(f"/v7/devhub/app/{agent.uid}/chat/{chat_id}/cancel")

    def issue(self, user: str, *scopes: str, life_s: float = 60) -> str:
        """A user token, as consent would give it."""
        people = self.served.core.services.users
        return self.served.do(people.issue_token(self.key, "access", user, scopes or SCOPES, life_s=life_s))

    def of(self, user: str) -> Caller:
        """The same for an end user of its own."""
        return Caller(self.served, self.key, token=self.issue(user))


def chat(agent: Agent) -> str:
    return f"/v7/devhub/app/{agent.uid}/chat/create"
