"""Asking as a client of the vendor does: bodies, signatures, envelopes."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from support.http_clients import Answer, Ask, Exchange
from support.live_server import Served

from palaver.core.types import Agent, ApiKey
from palaver.wire.contract import Headers, Request

CREATE = "/v1/chat/conversation"
LIST = "/v1/agent/list"
STREAM = "/v1/chat/stream"
INSPIRATION = "/v1/chat/inspiration"
IMAGE = "/v1/chat/image"
TTS = "/v1/chat/tts"
POSTED = (CREATE, LIST, STREAM, INSPIRATION, IMAGE, TTS)
USER = "user-123"
NOW = 1_742_000_000.0
HEX = re.compile(r"[0-9a-f]{32}")
Members = dict[str, Any]


def call(
    headers: Mapping[str, str | bytes] | None = None,
    body: bytes = b"",
    *,
    method: str = "POST",
    path: str = CREATE,
    query: str = "",
    now: float = NOW,
    trace: str = "0" * 32,
) -> Request:
    """A request as http hands it to the dialect, made by hand."""
    pairs = (headers or {}).items()
    raw = [(name.encode("latin-1"), value if isinstance(value, bytes) else value.encode()) for name, value in pairs]
    return Request(
        method=method,
        path=path,
        target=f"{path}?{query}" if query else path,
        headers=Headers(raw),
        route=path,
        path_params={},
        body=body,
        now=now,
        trace=trace,
        base_url="https://host",
    )


def stringified(value: Any) -> str:
    """``value`` as ``JSON.stringify`` writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def canonical(members: Mapping[str, Any]) -> str:
    """The members as the documented client signs them."""
    kept: list[str] = []
    for name in sorted(members):
        value = members[name]
        text = value.strip() if isinstance(value, str) else "" if value is None else stringified(value)
        if text:
            kept.append(f"{name}={text}")
    return "&".join(kept)


def envelope(answer: Answer) -> Members:
    """The answer's envelope, which every answer but a stream and a sound has."""
    assert answer.header("Content-Type") == "application/json"
    body = answer.json()
    assert list(body) == ["code", "success", "message", "data", "traceId", "timestamp"]
    assert body["success"] is (body["code"] == 10200)
    assert re.fullmatch(r"[A-Za-z0-9]{32}", body["traceId"])
    assert re.fullmatch(r"[0-9]{13}", body["timestamp"])
    assert b"\n" not in answer.body
    assert answer.header("X-Request-ID")
    return body


def data(answer: Answer) -> Members:
    """What a successful answer carries."""
    assert answer.status == 200, answer.body
    body = envelope(answer)
    assert (body["code"], body["message"]) == (10200, "OK"), body
    return body["data"]


def refused(answer: Answer, code: int, message: str, *, http: int = 200) -> None:
    """Asserts that the answer is that refusal."""
    body = envelope(answer)
    assert (answer.status, body["code"], body["message"], body["data"]) == (http, code, message, None)


def frames(body: bytes) -> list[tuple[str, Members]]:
    """Name and data of every event, comments passed over."""
    assert body.endswith(b"\n\n")
    run_events: list[tuple[str, Members]] = []
    for frame in body.decode("ascii").split("\n\n")[:-1]:
        if frame.startswith(":"):
            assert frame == ": ping"
            continue
        name, data_line = frame.split("\n")
        assert name.startswith("event: ")
        assert data_line.startswith('data: {"event":')
        run_events.append((name.removeprefix("event: "), json.loads(data_line.removeprefix("data: "))))
    assert all(name == data_line["event"] for name, data_line in run_events)
    return run_events


def joined(run_events: Sequence[tuple[str, Members]], member: str = "answer") -> str:
    return "".join(members.get(member, "") for _, members in run_events)


class Caller:
    """Somebody with a credential, who signs by its rule."""

    def __init__(self, served: Served, key: ApiKey | None = None, *, user: str | None = USER) -> None:
        self.served = served
        self.key = key or served.key("sonaops")
        self.user = user
        self.secret = self.key.secret

    def request(
        self,
        path: str,
        body: bytes | Mapping[str, Any] = b"",
        *,
        method: str = "POST",
        query: str = "",
        headers: Mapping[str, str | bytes | None] | None = None,
        signed: str | None = None,
    ) -> Ask:
        """A signed request; a header given as ``None`` is left out, ``signed`` stands in for the canonical body."""
        sent = body if isinstance(body, bytes) else stringified(body).encode()
        if signed is None:
            signed = canonical(json.loads(body or b"{}") if isinstance(body, bytes) else body)
        all_headers: dict[str, str | bytes | None] = {
            "Authorization": f"Bearer {self.key.id}",
            "Content-Type": "application/json",
            "X-Timestamp": str(int(time.time())),
            "X-User-ID": self.user,
            **(headers or {}),
        }
        if "X-Signature" not in all_headers:
            all_headers["X-Signature"] = self._signature(method, path, query, signed, all_headers)
        pairs = [(name, value) for name, value in all_headers.items() if value is not None]
        return Ask(method=method, path=path, query=query, headers=pairs, body=sent)

    def _signature(self, method: str, path: str, query: str, body: str, headers: Mapping[str, Any]) -> str:
        canonical_query = "&".join(
            f"{name}={value.strip()}" for name, value in sorted(parse_qsl(query), key=_first) if value.strip()
        )
        if self.key.setting("signature") != "hmac-sha256":
            signed_text = canonical_query if method == "GET" else body
            return hashlib.sha256((signed_text + self.secret).encode()).hexdigest()
        stamp, user = headers["X-Timestamp"] or "", headers["X-User-ID"] or ""
        lines = (method, path, stamp, user, canonical_query, "" if method == "GET" else body)
        return hmac.new(self.secret.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()

    def post(self, path: str, body: bytes | Mapping[str, Any] = b"", **how: Any) -> Answer:
        return self.served.ask(self.request(path, body, **how))

    def get(self, path: str, query: str = "", **how: Any) -> Answer:
        return self.served.ask(self.request(path, method="GET", query=query, **how))

    def create(self, agent: Agent | str, **how: Any) -> str:
        """A new conversation's id."""
        return data(self.post(CREATE, {"agentId": named(agent)}, **how))["conversationId"]

    def asks(self, agent: Agent | str, conversation: str, text: str = "hi", **more: Any) -> Ask:
        how = more.pop("how", {})
        members = {"agentId": named(agent), "conversationId": conversation, "text": text, **more}
        return self.request(STREAM, members, **how)

    def say(self, agent: Agent | str, conversation: str, text: str = "hi", **more: Any) -> Answer:
        """One message, and the whole answer to it."""
        return self.served.ask(self.asks(agent, conversation, text, **more))

    def begin(self, agent: Agent | str, conversation: str, text: str = "hi", **more: Any) -> Exchange:
        """One message, whose answer is read bit by bit."""
        return self.served.exchange(self.asks(agent, conversation, text, **more))


def named(agent: Agent | str) -> str:
    return agent if isinstance(agent, str) else str(agent.uid)


def _first(pair: tuple[str, str]) -> str:
    return pair[0]
