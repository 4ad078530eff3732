"""What the tests of all dialects have to know of this one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from dialects.snail import client as snail
from dialects.snail import client_b as snail_b
from dialects.snail import client_c as snail_c
from dialects.snail import id_fields
from dialects.snail.check_order import ORDERS
from dialects.snail.client import FAR, frames, jwt
from dialects.snail.histories import HISTORIES
from dialects.snail.limits import LIMITS
from dialects.snail.turns import FAILED_TURNS, MESSAGES, STOPS
from requests import PreparedRequest
from support.contract import ContractAdapter, Form, Heard, RequestBuilder
from support.dialect_clients import USER, DialectClient
from support.http_clients import Ask
from support.live_server import Served
from support.stream_forms import QUESTION, StreamForm

from palaver.core.types import Agent, ApiKey
from palaver.dialects.snail.errors import C
from palaver.dialects.snail.stream import SnailNdjsonEncoder, SnailSseEncoder
from palaver.wire.contract import Route

_RUN = UUID("5c0d7f5e-7a40-4b0e-8d0a-3b6a1f2e9c11")


def _lines(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write in writes:
        assert write.endswith(b"\n")
        assert write.count(b"\n") == 1, "one line, one write"
        heard.append(_said(json.loads(write)))
    return heard


def _frames(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write in writes:
        ((name, data),) = frames(write)
        heard.append(_said({"type": name, **data}))
    return heard


def _said(event: dict[str, str]) -> Heard:
    match event:
        case {"type": "thinking", "content": content}:
            return Heard(thinking=content)
        case {"type": "text", "content": content}:
            return Heard(text=content)
        case {"type": "done", "fullText": whole}:
            return Heard(whole=whole, last=True)
        case {"type": "error"}:
            return Heard(last=True, failure=True)
        case _:
            raise AssertionError(f"an event there should not be: {event}")


def _stream_a(served: Served, agent: Agent) -> Ask:
    return snail.Caller(served).request(snail.Caller.members(agent, QUESTION))


def _events_a(served: Served, agent: Agent) -> Ask:
    ask = _stream_a(served, agent)
    return replace(ask, headers=[*ask.headers, ("Accept", "text/event-stream")])


def _stream_b(served: Served, agent: Agent) -> Ask:
    caller = snail_b.Caller(served)
    fields = {"agentId": agent.id, "openId": caller.register(), "content": QUESTION}
    return caller.request("POST", snail_b.CHAT, fields, headers=snail_b.EVENTS)


def _stream_c(served: Served, agent: Agent) -> Ask:
    program = snail_b.Caller(served)
    user = program.register()
    browser = snail_c.Browser(served, snail_c.token(program.key, user))
    return browser.request("POST", snail_c.COMPLETIONS, body={"agentId": agent.id, "content": QUESTION})


def _client(served: Served, agent: Agent) -> DialectClient:
    caller = snail_b.Caller(served)
    user = caller.register(USER)
    where = {"agentId": agent.id, "openId": user}

    def say(conversation: str | None, text: str) -> tuple[str, str]:
        answer = caller.say(agent, user, text, conversationId=conversation)
        done = snail_b.spoken(answer)[-1][1]
        return done["conversationId"], done["fullText"]

    def listed() -> list[dict[str, Any]]:
        return snail_b.good(caller.get(snail_b.CONVERSATIONS, **where, size=200))

    def delete(conversation: str) -> None:
        snail_b.good(caller.delete(snail_b.CONVERSATIONS, **where, conversationId=conversation))

    def texts(conversation: str) -> list[str]:
        messages = snail_b.good(caller.get(snail_b.MESSAGES, **where, conversationId=conversation))
        return [message["content"] for message in messages]

    return DialectClient(
        start=lambda: say(None, "hi")[0],
        send=lambda conversation, text: say(conversation, text)[1],
        list_messages=texts,
        list_conversations=lambda: [item["conversationId"] for item in listed()],
        get_title=lambda conversation: next(
            item["title"] for item in listed() if item["conversationId"] == conversation
        ),
        rename=None,
        delete=delete,
        is_gone=lambda conversation: texts(conversation) == [],
    )


def _sign(key: ApiKey, request: PreparedRequest) -> dict[str, str]:
    if "/openapi/" in request.path_url:
        return {"Snail-Ai-App-Id": key.id, "Snail-Ai-Token": key.secret}
    if "/api/snail/" in request.path_url:
        return {"Snail-Ai-Auth": jwt({"appId": key.id, "openId": USER, "exp": FAR}, key.secret)}
    return {"Snail-Ai-Auth": key.secret}


def _requests(served: Served, user: str, agents: Sequence[str], _key: ApiKey | None) -> RequestBuilder:
    caller = snail_b.Caller(served, agents=list(agents))
    caller.auth["Snail-Ai-Auth"] = caller.key.secret
    browser = {"Snail-Ai-Auth": jwt({"appId": caller.key.id, "openId": user, "exp": FAR}, caller.key.secret)}

    def build(route: Route, path: str, query: str, body: Any) -> Ask:
        headers = browser if route.path.startswith(C) else None
        return replace(caller.request("POST", path, body, headers=headers), method=route.method, query=query)

    return build


ADAPTER = ContractAdapter(
    forms=(
        Form(name="lines", encoder=lambda: SnailNdjsonEncoder("conv-abc123"), read=_lines),
        Form(name="frames", encoder=lambda: SnailSseEncoder("conv-abc123", _RUN), read=_frames),
    ),
    wrong_credentials=(
        {},
        {"Snail-Ai-Auth": "SAI_00000000000000000000000000000000"},
        {"Snail-Ai-Auth": "Bearer x"},
        {"Snail-Ai-App-Id": "app-1", "Snail-Ai-Token": "SAI_" + "0" * 32},
        {"Snail-Ai-Auth": "eyJhbGciOiJub25lIn0.eyJhcHBJZCI6ImFwcC0xIiwiZXhwIjo0MTAyNDQ0ODAwfQ."},
    ),
    credentials_with=lambda text: (
        {"Snail-Ai-Auth": f"SAI_{text}", "Snail-Ai-App-Id": f"SAI_{text}", "Snail-Ai-Token": text},
        {"Snail-Ai-Auth": f"eyJhbGciOiJIUzI1NiJ9.{text}.{text}"},
    ),
    streams=(
        StreamForm(name="snail A", ask=_stream_a, mark=b"\n", aborts_on_failure=True),
        StreamForm(name="snail A as events", ask=_events_a),
        StreamForm(name="snail B", ask=_stream_b),
        StreamForm(name="snail C", ask=_stream_c),
    ),
    id_fields=id_fields.FIELDS,
    exempt_id_fields=id_fields.EXEMPT,
    not_ids=id_fields.NOT_IDS,
    client=_client,
    key_settings=lambda _: {"auto_register": True},
    sign=_sign,
    requests=_requests,
    check_orders=ORDERS,
    limits=LIMITS,
    stops=STOPS,
    messages=MESSAGES,
    failed_turns=FAILED_TURNS,
    histories=HISTORIES,
)
