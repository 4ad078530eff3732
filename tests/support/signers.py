"""Somebody at every front door: requests made elsewhere, signed as the dialect they go to wants it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from dialects.snail.client import FAR, jwt
from dialects.wps.client import now
from requests import PreparedRequest
from support.live_server import Served

from palaver.core.chat import NewMessage
from palaver.core.problems import Problem
from palaver.core.types import Agent, ApiKey, Conversation, Text
from palaver.dialects.sonaops.auth import signature as sonaops_signature
from palaver.dialects.wps.auth import signature as wps_signature
from palaver.wire.contract import Headers, Request

USER = "ann"


class Callers:
    """One end user with a credential of every dialect, an agent, and a conversation with it."""

    def __init__(self, served: Served, agent: Agent) -> None:
        self.served = served
        self.agent = agent
        self.keys: dict[str, ApiKey] = {
            "native": served.key("native"),
            "snail": served.key("snail", auto_register=True),
            "sonaops": served.key("sonaops", default_user=USER),
            "wps": served.key(
                "wps", default_user=USER, redirect_uris=["https://example.com/callback"], auto_approve_user=USER
            ),
            "xspace": served.key("xspace", default_user=USER, kind="agent", agent=str(agent.id)),
        }

    def conversation(self) -> Conversation:
        """A new one."""
        who = self.served.principal(self.keys["sonaops"], USER)
        return self.served.do(self.served.core.chat.create_conversation(who, self.agent, title="A title"))

    def run(self, conversation: Conversation) -> UUID:
        """One that answers in that conversation."""
        who = self.served.principal(self.keys["sonaops"], USER)
        said = NewMessage(parts=(Text(text="hi"),), trace=uuid4().hex)
        sent = self.served.do(self.served.core.chat.send(who, self.agent, said, conversation=conversation.id))
        sent.reader.close()
        return sent.run_uid

    def sign(self, dialect: str, request: PreparedRequest) -> None:
        """Add to the request what proves who sends it."""
        key = self.keys.get(dialect)
        if key is not None:
            request.headers.update(signing_headers(dialect, key, request))


def signing_headers(dialect: str, key: ApiKey, request: PreparedRequest) -> dict[str, str]:
    """What proves, in that dialect, that the key's owner sends the request."""
    return _SIGN[dialect](key, request)


def _call(request: PreparedRequest, headers: Mapping[str, str]) -> Request:
    """The request as the dialect will see it."""
    path, _, query = request.path_url.partition("?")
    body = request.body if isinstance(request.body, bytes) else str(request.body or "").encode()
    return Request(
        method=request.method or "",
        path=path,
        target=f"{path}?{query}" if query else path,
        headers=Headers([(name.encode(), value.encode()) for name, value in headers.items()]),
        route=path,
        path_params={},
        body=body,
        now=time.time(),
        trace=uuid4().hex,
    )


def _native(key: ApiKey, _request: PreparedRequest) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.secret}", "X-User-ID": USER}


def _snail(key: ApiKey, request: PreparedRequest) -> dict[str, str]:
    if "/openapi/" in request.path_url:
        return {"Snail-Ai-App-Id": key.id, "Snail-Ai-Token": key.secret}
    if "/api/snail/" in request.path_url:
        return {"Snail-Ai-Auth": jwt({"appId": key.id, "openId": USER, "exp": FAR}, key.secret)}
    return {"Snail-Ai-Auth": key.secret}


def _sonaops(key: ApiKey, request: PreparedRequest) -> dict[str, str]:
    try:
        digest = sonaops_signature(_call(request, {}), key.secret)
    except Problem:  # a body that cannot be signed is refused whatever it is signed with
        digest = "0" * 64
    return {
        "Authorization": f"Bearer {key.id}",
        "X-Signature": digest,
        "X-Timestamp": str(int(time.time())),
        "X-User-ID": USER,
    }


def _wps(key: ApiKey, request: PreparedRequest) -> dict[str, str]:
    signed = {"Content-Type": str(request.headers.get("Content-Type", "")), "X-Kso-Date": now()}
    call = _call(request, signed)
    return {
        "X-Kso-Date": signed["X-Kso-Date"],
        "X-Kso-Authorization": f"KSO-1 {key.id}:{wps_signature(call, key.secret)}",
    }


def _xspace(key: ApiKey, _request: PreparedRequest) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.secret}"}


_SIGN: dict[str, Any] = {"native": _native, "snail": _snail, "sonaops": _sonaops, "wps": _wps, "xspace": _xspace}
