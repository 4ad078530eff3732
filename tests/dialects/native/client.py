"""Asking palaver's own API: requests as its callers write them, answers as they read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.http_clients import Answer, Ask, Exchange
from support.live_server import Served

from palaver.core.types import Agent, ApiKey

ROOT = "/palaver/v1"
USER = "ann"
EVENTS = {"Accept": "text/event-stream"}
LATER = {"Prefer": "respond-async"}
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One event of a stream; ``retry`` is there on the first."""

    id: int
    name: str
    data: Document
    retry: int | None = None


def frames(writes: Sequence[bytes]) -> list[Frame]:
    """The events of a stream, one a write, byte for byte as the page has them; heartbeats passed over."""
    return [_frame(write) for write in writes if write != b": alive\n\n"]


def _frame(write: bytes) -> Frame:
    lines = write.decode("ascii").removesuffix("\n\n").split("\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert list(fields) in (["id", "event", "data"], ["retry", "id", "event", "data"])
    retry = fields.get("retry")
    return Frame(
        id=int(fields["id"]),
        name=fields["event"],
        data=json.loads(fields["data"]),
        retry=None if retry is None else int(retry),
    )


def folded(heard: Sequence[Frame], onto: Sequence[Document] = ()) -> list[Document]:
    """The parts that events write, behind those that were there: what a client of the page does."""
    parts = [dict(part) for part in onto]
    for frame in heard:
        match frame.name:
            case "part.started":
                parts.append({**frame.data, "text": ""})
            case "text.delta":
                parts[-1]["text"] += frame.data["text"]
            case "part.added":
                parts.append(frame.data["part"])
            case _:
                assert frame.name in {"run.created", "run.ended"}
    return parts


def heard(answer: Answer) -> list[Frame]:
    assert answer.status == 200, answer.body
    assert answer.header("Content-Type") == "text/event-stream; charset=utf-8"
    assert answer.complete
    return frames(answer.writes)


def good(answer: Answer, status: int = 200) -> Document:
    assert answer.status == status, answer.body
    assert answer.header("Content-Type") == "application/json"
    return answer.json()


def problem(answer: Answer, status: int, code: str, **members: Any) -> Document:
    """Asserts that the answer is that problem; the document."""
    document = answer.json()
    assert (answer.status, document["code"]) == (status, code), document
    assert answer.header("Content-Type") == "application/problem+json"
    assert (document["status"], document["type"]) == (status, f"{ROOT}/problems#{code}")
    assert document["title"]
    assert document["detail"]
    assert len(document["trace"]) == 32
    assert {name: document.get(name) for name in members} == members
    return document


class Caller:
    """Somebody with a credential, for one end user."""

    def __init__(self, served: Served, key: ApiKey | None = None, *, user: str | None = USER, **settings: Any) -> None:
        self.served = served
        self.key = key or served.key("native", **settings)
        self.user = user

    def headers(self, more: Mapping[str, str | bytes] | None = None) -> dict[str, str | bytes]:
        user: dict[str, str | bytes] = {} if self.user is None else {"X-User-ID": self.user}
        return {"Authorization": f"Bearer {self.key.secret}", **user, **(more or {})}

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] = b"",
        *,
        query: str = "",
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Ask:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        place = path if path.startswith("/palaver") else f"{ROOT}/{path}"
        return Ask(method=method, path=place, query=query, headers=list(self.headers(headers).items()), body=content)

    def ask(self, method: str, path: str, body: bytes | Mapping[str, Any] = b"", **more: Any) -> Answer:
        return self.served.ask(self.request(method, path, body, **more))

    def get(self, path: str, query: str = "", **headers: str | bytes) -> Answer:
        return self.ask("GET", path, query=query, headers=headers)

    # What is asked again and again ----------------------------------------------------------------------------------

    def begin(self, agent: Agent, content: str = "hi", **more: Any) -> Document:
        """The first message of a new conversation, and the whole answer."""
        return good(self.ask("POST", "messages", {"agent": agent.uid.hex, "content": content, **more}))

    def say(self, conversation: str | int, content: str = "hi", **more: Any) -> Document:
        """One message, and the whole answer."""
        return good(self.ask("POST", f"conversations/{conversation}/messages", {"content": content, **more}))

    def stream(self, agent: Agent, content: str = "hi", **headers: str) -> Exchange:
        """The first message of a new conversation, whose answer is read bit by bit."""
        body = {"agent": agent.uid.hex, "content": content}
        return self.served.exchange(self.request("POST", "messages", body, headers={**EVENTS, **headers}))

    def follow(self, run: str, after: int | None = None, *, last: str | None = None) -> Exchange:
        """A run's events, read bit by bit; ``last`` is the ``Last-Event-ID``."""
        query = "" if after is None else f"after={after}"
        headers = {} if last is None else {"Last-Event-ID": last}
        return self.served.exchange(self.request("GET", f"runs/{run}/events", query=query, headers=headers))

    def run(self, uid: str) -> Document:
        return good(self.get(f"runs/{uid}"))

    def messages(self, conversation: str | int, query: str = "limit=100") -> list[Document]:
        return good(self.get(f"conversations/{conversation}/messages", query))["messages"]
