"""Adapts the tests common to all dialects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from dialects.xspace import client as xspace
from dialects.xspace import id_fields
from dialects.xspace.check_order import ORDER
from dialects.xspace.client import Event, frames
from dialects.xspace.histories import HISTORIES
from dialects.xspace.limits import LIMITS
from dialects.xspace.turns import FAILED_TURNS, MESSAGES, STOPS
from requests import PreparedRequest
from support.contract import ContractAdapter, Form, Heard, RequestBuilder
from support.dialect_clients import USER, DialectClient
from support.http_clients import Ask
from support.live_server import Served
from support.stream_forms import QUESTION, StreamForm

from palaver.core.types import Agent, ApiKey
from palaver.dialects.xspace import legacy
from palaver.dialects.xspace.stream import XSpaceEncoder
from palaver.wire.contract import Route

_RUN = UUID("5b1f0a9c-3d7e-4c21-a6b8-f0e1d2c3b4a5")


def _read(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write in writes:
        (event,) = frames(write)
        assert event["requestId"] == _RUN.hex
        heard.append(_heard(event))
    return heard


def _heard(event: Event) -> Heard:
    match event:
        case {"eventType": "MESSAGE", "data": {"type": "CHAT", "text": text}}:
            return Heard(text=text)
        case {"eventType": "MESSAGE", "data": {"type": "THINK", "text": text}}:
            return Heard(thinking=text)
        case {"eventType": "PROCESSING", "data": {"result": {"executeId": step}}}:
            assert step
            return Heard()
        case {"eventType": "FINAL_RESULT", "error": error, "data": {"outputText": whole}, "completed": True}:
            return Heard(whole=whole, last=True, failure=error is not None)
        case _:
            raise AssertionError(f"an event there should not be: {event}")


def _stream(served: Served, agent: Agent) -> Ask:
    caller = xspace.Caller(served, default_user=USER)
    return caller.request("POST", xspace.chat_path(caller.add(agent)), {"message": QUESTION})


def _older_stream(served: Served, agent: Agent) -> Ask:
    caller = xspace.Caller(served, default_user=USER, kind="agent", agent=str(agent.uid))
    return caller.request("POST", "/api/v1/chat", {"message": QUESTION, "conversationId": caller.add(agent)})


def _client(served: Served, agent: Agent) -> DialectClient:
    caller = xspace.Caller(served, default_user=USER)

    def uid(conversation: Any) -> str:
        return str(UUID(caller.detail(conversation)["uid"]))

    def begin() -> str:
        conversation = caller.add(agent)
        caller.say(conversation)
        return uid(conversation)

    def rename(conversation: str, title: str) -> None:
        xspace.data(caller.update(conversation, {"topic": title}))

    def listed() -> list[str]:
        return [
            str(UUID(item["uid"])) for item in xspace.data(caller.get(xspace.LIST, f"agentId={agent.id}&limit=100"))
        ]

    def delete(conversation: str) -> None:
        xspace.done(caller.post(f"/api/v1/chat/conversation/{conversation}/delete"))

    return DialectClient(
        start=begin,
        send=lambda conversation, text: xspace.joined(xspace.events(caller.say(conversation, text))),
        list_messages=lambda conversation: [item["text"] for item in caller.messages(conversation, "limit=100")],
        list_conversations=listed,
        get_title=lambda conversation: caller.detail(conversation)["topic"],
        rename=rename,
        delete=delete,
        is_gone=lambda conversation: caller.get(f"/api/v1/chat/conversation/{conversation}").json()["code"] == "0001",
    )


def _sign(key: ApiKey, _request: PreparedRequest) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.secret}"}


_BOUND = {f"{route.method} {route.path}" for route in legacy.ROUTES}
"""Routes of keys that are bound to one agent."""


def _requests(served: Served, user: str, agents: Sequence[str], _key: ApiKey | None) -> RequestBuilder:
    unbound = xspace.Caller(served, default_user=user, agents=list(agents))
    bound = xspace.Caller(served, default_user=user, agents=list(agents), kind="agent", agent=agents[0])

    def build(route: Route, path: str, query: str, body: Any) -> Ask:
        caller = bound if f"{route.method} {route.path}" in _BOUND else unbound
        return caller.request(route.method, path, body, query=query)

    return build


ADAPTER = ContractAdapter(
    forms=(Form(name="frames", encoder=lambda: XSpaceEncoder(_RUN, 1_776_085_640_000), read=_read),),
    wrong_credentials=(
        {},
        {"Authorization": "Bearer ak-00000000000000000000000000000000"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer ck-1"},
    ),
    credentials_with=lambda text: ({"Authorization": f"Bearer ak-{text}"}, {"Authorization": f"ak-{text}"}),
    streams=(
        StreamForm(name="xspace", ask=_stream),
        StreamForm(name="xspace, older path", ask=_older_stream),
    ),
    id_fields=id_fields.FIELDS,
    exempt_id_fields=id_fields.EXEMPT,
    not_ids=id_fields.NOT_IDS,
    client=_client,
    key_settings=lambda agent: {"default_user": USER, "kind": "agent", "agent": str(agent.id)},
    sign=_sign,
    requests=_requests,
    check_orders=(ORDER,),
    limits=LIMITS,
    stops=STOPS,
    messages=MESSAGES,
    failed_turns=FAILED_TURNS,
    histories=HISTORIES,
)
