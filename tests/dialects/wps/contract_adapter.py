"""What the tests of all dialects have to know of this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dialects.wps import client as wps
from dialects.wps import id_fields
from dialects.wps.check_order import ORDER
from dialects.wps.client import now, spoken
from dialects.wps.examples import encoder
from dialects.wps.histories import HISTORIES
from dialects.wps.limits import LIMITS
from dialects.wps.turns import FAILED_TURNS, MESSAGES, STOPS
from requests import PreparedRequest
from support.contract import ContractAdapter, Heard, RequestBuilder
from support.contract import Form as ContractForm
from support.dialect_clients import USER, DialectClient
from support.http_clients import Ask
from support.live_server import Served
from support.requests import wire_request
from support.stream_forms import QUESTION, StreamForm

from palaver.core.types import Agent, ApiKey
from palaver.dialects.wps.auth import signature
from palaver.dialects.wps.stream import WpsEncoder, WpsStreamOptions


def _heard(writes: Sequence[bytes]) -> list[Heard]:
    heard: list[Heard] = []
    for write, event in zip(writes, spoken(writes), strict=True):
        assert write.endswith(b"\n\n")
        match event:
            case {"event": "token", "data": {"chunk": chunk}}:
                heard.append(Heard(text=chunk))
            case {"event": "add_message", "data": {"text": text, "properties": {"state": "complete", "icon": "Bot"}}}:
                heard.append(Heard(whole=text))
            case {"event": "end_vertex", "data": {"build_data": {"valid": False}}}:
                heard.append(Heard(failure=True))
            case {"event": "end"}:
                heard.append(Heard(last=True))
            case {"event": "vertices_sorted" | "add_message" | "end_vertex"}:
                heard.append(Heard())
            case _:
                raise AssertionError(f"an event there should not be: {event}")
    return heard


def _prefixed(writes: Sequence[bytes]) -> list[Heard]:
    assert all(write.startswith(b"data: {") for write in writes)
    return _heard([write.removeprefix(b"data: ") for write in writes])


def _encoder(form: WpsStreamOptions) -> Callable[[], WpsEncoder]:
    return lambda: encoder(form)


CHAT = "/v7/devhub/app/{}/chat/create"


def _stream(path: str, body: Mapping[str, Any], **settings: Any) -> Callable[[Served, Agent], Ask]:
    def ask(served: Served, agent: Agent) -> Ask:
        caller = wps.Caller(served, served.key("wps", default_user=USER, **settings))
        return caller.request("POST", path.format(agent.uid), {"text": QUESTION, **body})

    return ask


def _client(served: Served, agent: Agent) -> DialectClient:
    caller = wps.Caller(served, served.key("wps", default_user=USER))

    def say(conversation: str, text: str) -> str:
        return wps.chunks(caller.hear(agent, text, session_id=conversation))

    def begin() -> str:
        events = caller.hear(agent)
        return next(event["data"]["session_id"] for event in events if event["event"] == "add_message")

    def delete(conversation: str) -> None:
        wps.data(caller.post(f"/v7/devhub/session/{conversation}/delete"))

    return DialectClient(
        start=begin,
        send=say,
        list_messages=lambda conversation: [item["text"] for item in caller.items(agent, conversation)],
        list_conversations=lambda: [
            item["session_id"]
            for item in wps.data(caller.get(f"/v7/devhub/app/{agent.uid}/session/list", "page_size=100"))["items"]
        ],
        get_title=lambda conversation: wps.data(caller.get(f"/v7/devhub/session/{conversation}/name"))["name"],
        rename=None,
        delete=delete,
        is_gone=lambda conversation: caller.say(agent, "?", session_id=conversation).status == 404,
    )


def _sign(key: ApiKey, request: PreparedRequest) -> dict[str, str]:
    signed = {"Content-Type": str(request.headers.get("Content-Type", "")), "X-Kso-Date": now()}
    call = wire_request(request, signed)
    return {
        "X-Kso-Date": signed["X-Kso-Date"],
        "X-Kso-Authorization": f"KSO-1 {key.id}:{signature(call, key.secret)}",
    }


def _requests(served: Served, user: str, agents: Sequence[str], key: ApiKey | None) -> RequestBuilder:
    caller = wps.Caller(served, key or served.key("wps", default_user=user, agents=list(agents)))
    return lambda route, path, query, body: caller.request(route.method, path, body, query=query)


ADAPTER = ContractAdapter(
    forms=(
        ContractForm(name="messages", encoder=_encoder(WpsStreamOptions()), read=_heard),
        ContractForm(name="every token", encoder=_encoder(WpsStreamOptions(partial_every_s=0)), read=_heard),
        ContractForm(name="data lines", encoder=_encoder(WpsStreamOptions(data_prefix=True)), read=_prefixed),
    ),
    wrong_credentials=(
        {},
        {"X-Kso-Authorization": "KSO-1 AK:00", "X-Kso-Date": "Mon, 02 Jan 2006 15:04:05 GMT"},
        {"X-Kso-Authorization": "KSO-1 AK", "X-Kso-Date": "Mon, 02 Jan 2006 15:04:05 GMT"},
        {"X-Kso-Authorization": "KSO-1 AK:00", "Authorization": "Bearer x"},
    ),
    credentials_with=lambda text: (
        {"X-Kso-Date": "now", "X-Kso-Authorization": f"KSO-1 {text}:{text}"},
        {"Authorization": f"Bearer {text}"},
    ),
    streams=(
        StreamForm(name="wps", ask=_stream(CHAT, {"stream": True})),
        StreamForm(name="wps, every token", ask=_stream("/v7/sse/devhub/apps/{}/chats/create", {}, partial_every_ms=0)),
        StreamForm(name="wps, data lines", ask=_stream(CHAT, {"stream": True}, sse_data_prefix=True, error_event=True)),
    ),
    id_fields=id_fields.FIELDS,
    exempt_id_fields=id_fields.EXEMPT,
    not_ids=id_fields.NOT_IDS,
    client=_client,
    key_settings=lambda _: {
        "default_user": USER,
        "redirect_uris": ["https://example.com/callback"],
        "auto_approve_user": USER,
    },
    sign=_sign,
    requests=_requests,
    check_orders=(ORDER,),
    limits=LIMITS,
    stops=STOPS,
    messages=MESSAGES,
    failed_turns=FAILED_TURNS,
    histories=HISTORIES,
)
