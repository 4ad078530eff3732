"""What the tests of all dialects have to know of this one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

from dialects.sonaops import client as sonaops
from dialects.sonaops import id_fields
from dialects.sonaops.check_order import ORDER
from dialects.sonaops.client import frames
from dialects.sonaops.limits import LIMITS
from dialects.sonaops.turns import MESSAGES
from requests import PreparedRequest
from support.contract import ContractAdapter, Form, Heard, RequestBuilder
from support.dialect_clients import USER, DialectClient
from support.http_clients import Ask
from support.live_server import Served
from support.requests import wire_request
from support.stream_forms import QUESTION, StreamForm

from palaver.core.problems import Problem
from palaver.core.types import Agent, ApiKey
from palaver.dialects.sonaops.auth import signature
from palaver.dialects.sonaops.stream import SonaopsEncoder

_CONVERSATION = UUID("a1b2c3d4e5f64a7b8c9d0e1f2a3b4c5d")
_RUN = UUID("0b9f8e7d6c5b4a3f92e1d0c9b8a79685")


def _frames(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write in writes:
        ((name, data),) = frames(write)
        match name:
            case "thinking":
                heard.append(Heard(thinking=data["thought"]))
            case "message":
                heard.append(Heard(text=data["answer"]))
            case "message_end":
                heard.append(Heard())
            case "message_saved":
                heard.append(Heard(last=True))
            case "error":
                heard.append(Heard(last=True, failure=True))
            case _:
                raise AssertionError(f"an event there should not be: {name}")
    return heard


def _stream(served: Served, agent: Agent) -> Ask:
    caller = sonaops.Caller(served, user=USER)
    return caller.asks(agent, caller.create(agent), QUESTION)


def _client(served: Served, agent: Agent) -> DialectClient:
    caller = sonaops.Caller(served, user=USER)

    def say(conversation: str, text: str) -> str:
        return sonaops.joined(sonaops.frames(caller.say(agent, conversation, text).body))

    def begin() -> str:
        conversation = caller.create(agent)
        say(conversation, "hi")
        return str(UUID(conversation))

    def gone(conversation: str) -> bool:
        answer = caller.say(agent, conversation, "?")
        return answer.header("Content-Type") == "application/json" and answer.json()["code"] == 10404

    return DialectClient(
        start=begin,
        send=say,
        list_messages=None,
        list_conversations=None,
        get_title=None,
        rename=None,
        delete=None,
        is_gone=gone,
    )


def _sign(key: ApiKey, request: PreparedRequest) -> dict[str, str]:
    try:
        digest = signature(wire_request(request), key.secret)
    except Problem:  # a body that cannot be signed is refused whatever it is signed with
        digest = "0" * 64
    return {
        "Authorization": f"Bearer {key.id}",
        "X-Signature": digest,
        "X-Timestamp": str(int(time.time())),
        "X-User-ID": USER,
    }


def _requests(served: Served, user: str, agents: Sequence[str], key: ApiKey | None) -> RequestBuilder:
    caller = sonaops.Caller(served, key or served.key("sonaops", agents=list(agents)), user=user)
    return lambda route, path, query, body: caller.request(path, body, method=route.method, query=query)


ADAPTER = ContractAdapter(
    forms=(Form(name="frames", encoder=lambda: SonaopsEncoder(_CONVERSATION, _RUN), read=_frames),),
    wrong_credentials=(
        {},
        {"Authorization": "Bearer nobody"},
        {"Authorization": "Basic bm9ib2R5Og=="},
        {"Authorization": "Bearer nobody", "X-Signature": "0" * 64},
    ),
    credentials_with=lambda text: ({"Authorization": f"Bearer {text}", "X-Signature": text},),
    streams=(StreamForm(name="sonaops", ask=_stream),),
    id_fields=id_fields.FIELDS,
    exempt_id_fields=id_fields.EXEMPT,
    not_ids=id_fields.NOT_IDS,
    client=_client,
    key_settings=lambda _: {"default_user": USER},
    sign=_sign,
    requests=_requests,
    check_orders=(ORDER,),
    limits=LIMITS,
    stops=(),
    messages=MESSAGES,
    failed_turns=(),
    histories=(),
)
