"""Asking surface C, as the vendor's chat page does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from dialects.snail.client import FAR, jwt
from support.http_clients import Answer, Ask
from support.live_server import Served

from palaver.core.types import ApiKey

C = "/api/snail/chat"
COMPLETIONS, CONVERSATIONS, SESSION = f"{C}/completions", f"{C}/conversations", f"{C}/session"


def token(key: ApiKey, user: str | None, **claims: Any) -> str:
    """What B's ``/embed-token`` would issue."""
    bound = {} if user is None else {"openId": user}
    return jwt({"appId": key.id, "exp": FAR, **bound, **claims}, key.secret)


class Browser:
    """One end user's page. ``auth`` is its token."""

    def __init__(self, served: Served, auth: str | None) -> None:
        self.served = served
        self.auth = auth

    def request(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Ask:
        """``fields`` go into the query, ``body`` is JSON; a page says on every call that it sends JSON."""
        all_headers: dict[str, str | bytes] = {"Content-Type": "application/json"}
        if self.auth is not None:
            all_headers["Snail-Ai-Auth"] = self.auth
        all_headers |= headers or {}
        data = b"" if body is None else json.dumps(body).encode()
        return Ask(
            method=method, path=path, query=urlencode(fields or {}), headers=list(all_headers.items()), body=data
        )

    def ask(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Answer:
        return self.served.ask(self.request(method, path, fields, body, headers))

    def get(self, path: str, **fields: Any) -> Answer:
        return self.ask("GET", path, fields)

    def delete(self, path: str, **fields: Any) -> Answer:
        return self.ask("DELETE", path, fields)

    def post(self, path: str, **members: Any) -> Answer:
        return self.ask("POST", path, body=members)
