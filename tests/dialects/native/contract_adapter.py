"""What the tests of all dialects have to know of this one."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from dialects.native import client as native
from dialects.native import id_fields
from dialects.native.check_order import ORDER
from dialects.native.client import Frame, frames
from dialects.native.histories import HISTORIES
from dialects.native.limits import LIMITS
from dialects.native.turns import FAILED_TURNS, MESSAGES, STOPS
from requests import PreparedRequest
from support.contract import ContractAdapter, Form, Heard, RequestBuilder
from support.dialect_clients import USER, DialectClient
from support.http_clients import Ask
from support.live_server import Served
from support.stream_forms import QUESTION, StreamForm

from palaver.core.types import Agent, ApiKey
from palaver.dialects.native.responses import (
    AnswerResponse,
    ConversationRef,
    QuestionResponse,
    StepCounts,
    TurnResponse,
    UsageResponse,
)
from palaver.dialects.native.stream import NativeEncoder

_UID = "01990000000070008000000000000000"
_QUESTION = QuestionResponse(id=1, uid=_UID, conversation=_UID, created="2026-01-01T00:00:00.000Z", text="hi", parts=())
_ANSWER = AnswerResponse(
    id=2,
    uid=_UID,
    conversation=_UID,
    created="2026-01-01T00:00:00.000Z",
    text="",
    parts=(),
    status="waiting",
    reason=None,
    problem=None,
    usage=UsageResponse(),
    steps=StepCounts(begun=0, done=0),
    position=0,
    cursor=0,
    ended=None,
)
_SENT = TurnResponse(conversation=ConversationRef(id=1, uid=_UID), question=_QUESTION, answer=_ANSWER)


def _read(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    kind = "text"
    for frame in frames(writes):
        kind = frame.data["type"] if frame.name == "part.started" else kind
        heard.append(_said(frame, kind))
    return heard


def _said(frame: Frame, kind: str) -> Heard:
    match frame.name:
        case "text.delta" if kind == "thinking":
            return Heard(thinking=frame.data["text"])
        case "text.delta":
            return Heard(text=frame.data["text"])
        case "run.ended":
            return Heard(last=True, failure=frame.data["status"] in {"failed", "interrupted"})
        case _:
            assert frame.name in {"run.created", "part.started", "part.added"}
            return Heard()


def _stream(served: Served, agent: Agent) -> Ask:
    body = {"agent": agent.uid.hex, "content": QUESTION}
    return native.Caller(served, user=USER).request("POST", "messages", body, headers=native.EVENTS)


def _client(served: Served, agent: Agent) -> DialectClient:
    caller = native.Caller(served, user=USER)

    def listed() -> list[str]:
        return [
            str(UUID(one["uid"]))
            for one in native.good(caller.get("conversations", f"agent={agent.id}&limit=100"))["conversations"]
        ]

    def rename(conversation: str, title: str) -> None:
        native.good(caller.ask("PUT", f"conversations/{conversation}/title", {"title": title}))

    def delete(conversation: str) -> None:
        assert caller.ask("DELETE", f"conversations/{conversation}").status == 204

    return DialectClient(
        start=lambda: str(UUID(caller.begin(agent)["conversation"]["uid"])),
        send=lambda conversation, text: caller.say(conversation, text)["answer"]["text"],
        list_messages=lambda conversation: [one["text"] for one in caller.messages(conversation)],
        list_conversations=listed,
        get_title=lambda conversation: native.good(caller.get(f"conversations/{conversation}"))["title"],
        rename=rename,
        delete=delete,
        is_gone=lambda conversation: caller.get(f"conversations/{conversation}").status == 404,
    )


def _sign(key: ApiKey, _request: PreparedRequest) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.secret}", "X-User-ID": USER}


def _requests(served: Served, user: str, agents: Sequence[str], _key: ApiKey | None) -> RequestBuilder:
    caller = native.Caller(served, user=user, agents=list(agents))
    return lambda route, path, query, body: caller.request(route.method, path, body, query=query)


ADAPTER = ContractAdapter(
    forms=(
        Form(name="a message sent", encoder=lambda: NativeEncoder(0, _SENT), read=_read),
        Form(name="a run followed", encoder=lambda: NativeEncoder(0), read=_read),
    ),
    wrong_credentials=(
        {},
        {"Authorization": "Bearer pv-00000000000000000000000000000000"},
        {"Authorization": "pv-00000000000000000000000000000000", "X-User-ID": "ann"},
        {"Authorization": "Basic eDp5"},
        {"X-User-ID": "ann"},
    ),
    credentials_with=lambda text: (
        {"Authorization": f"Bearer pv-{text}"},
        {"Authorization": f"Basic {text}"},
    ),
    streams=(StreamForm(name="native", ask=_stream),),
    id_fields=id_fields.FIELDS,
    exempt_id_fields=id_fields.EXEMPT,
    not_ids=id_fields.NOT_IDS,
    client=_client,
    key_settings=lambda _: {},
    sign=_sign,
    requests=_requests,
    check_orders=(ORDER,),
    limits=LIMITS,
    stops=STOPS,
    messages=MESSAGES,
    failed_turns=FAILED_TURNS,
    histories=HISTORIES,
)
