"""The requests of callers as bytes, signed like those of each vendor's clients."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from palaver.core.types import Agent, ApiKey

USER = "bench"
SETTINGS: Mapping[str, Mapping[str, Any]] = {"sonaops": {"signature": "hmac-sha256"}}
"""Settings of a dialect's credential with which signatures are checked."""
LISTS = ("wps", "xspace", "native")
"""Dialects with a paginated list of conversations."""


def post(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    return _request("POST", path, {**headers, "Content-Length": str(len(body))}) + body


def get(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    return _request("GET", path, headers or {})


def _request(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode()


def relayed(text: str = "hi") -> bytes:
    """The same question, sent to the model's endpoint directly."""
    body = {"model": "gpt", "stream": True, "messages": [{"role": "user", "content": text}]}
    return post("/v1/chat/completions", _json(body), {"Content-Type": "application/json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller with a credential of one dialect, one end user and one agent."""

    key: ApiKey
    agent: Agent
    user: str = USER

    def say(self, conversation: UUID, text: str = "hi") -> bytes:
        """A message whose answer is streamed."""
        match self.key.dialect:
            case "snail":
                token = {"Snail-Ai-Auth": _token(self.key), "Content-Type": "application/json"}
                body = {"agentId": self.agent.id, "openId": self.user, "content": text}
                return post("/snail-ai/open-api/chat", _json({**body, "conversationId": str(conversation)}), token)
            case "wps":
                body = {"text": text, "session_id": str(conversation), "stream": True}
                return self._kso("POST", f"/v7/devhub/app/{self.agent.uid}/chat/create", _json(body))
            case "xspace":
                body = {"message": text}
                return post(f"/api/v1/chat/{conversation}", _json(body), self._bearer())
            case "sonaops":
                body = {"agentId": self.agent.uid.hex, "conversationId": conversation.hex, "text": text}
                return self._sonaops("/v1/chat/stream", body)
            case "native":
                body = {"content": text, "stream": True}
                headers = {**self._bearer(), "Accept": "text/event-stream"}
                return post(f"/palaver/v1/conversations/{conversation.hex}/messages", _json(body), headers)
            case dialect:
                raise LookupError(f"the bench has no requests for the dialect {dialect!r}")

    def create(self) -> bytes:
        """Create a conversation (Sonaops)."""
        return self._sonaops("/v1/chat/conversation", {"agentId": self.agent.uid.hex})

    def stop(self, conversation: UUID) -> bytes:
        """Stop the running turn of a conversation (XSpace), regardless of who started it."""
        return post(f"/api/v1/chat/{conversation}/stop", b"{}", self._bearer())

    def listing(self) -> bytes:
        """The first page of the user's conversations."""
        match self.key.dialect:
            case "wps":
                return self._kso("GET", f"/v7/devhub/app/{self.agent.uid}/session/list?page_size=20")
            case "xspace":
                return get(f"/api/v1/chat/conversation/list?agentId={self.agent.id}&limit=20", self._bearer())
            case "native":
                return get("/palaver/v1/conversations?limit=20", self._bearer())
            case dialect:
                raise LookupError(f"{dialect!r} has no list of conversations")

    def _bearer(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.key.secret}",
            "Content-Type": "application/json",
            "X-User-ID": self.user,
        }

    def _kso(self, method: str, target: str, body: bytes = b"") -> bytes:
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        digest = hashlib.sha256(body).hexdigest() if body else ""
        signature = _hmac(self.key, f"KSO-1{method}{target}application/json{date}{digest}")
        headers = {
            "Content-Type": "application/json",
            "X-Kso-Date": date,
            "X-Kso-Authorization": f"KSO-1 {self.key.id}:{signature}",
        }
        return get(target, headers) if method == "GET" else post(target, body, headers)

    def _sonaops(self, path: str, members: Mapping[str, str]) -> bytes:
        canonical = "&".join(f"{name}={members[name]}" for name in sorted(members))
        stamp = str(int(time.time()))
        headers = {
            "Authorization": f"Bearer {self.key.id}",
            "Content-Type": "application/json",
            "X-Timestamp": stamp,
            "X-User-ID": self.user,
            "X-Signature": _hmac(self.key, f"POST\n{path}\n{stamp}\n{self.user}\n\n{canonical}"),
        }
        return post(path, _json(members), headers)


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _hmac(key: ApiKey, text: str) -> str:
    return hmac.new(key.secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _token(key: ApiKey) -> str:
    """A Snail JWT, valid for an hour."""
    signed = f"{_segment(_json({'alg': 'HS256'}))}.{_segment(_json({'appId': key.id, 'exp': int(time.time()) + 3600}))}"
    return f"{signed}.{_segment(hmac.new(key.secret.encode(), signed.encode(), hashlib.sha256).digest())}"


def _segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
