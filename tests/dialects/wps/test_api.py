"""Create chat, cancel, app detail, and how each of them is refused."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from dialects.wps.client import CURL_TIMEOUT, USER, Caller, agents, chat, data, invalid, merged, now, refused, spoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.http_clients import Answer, Ask
from support.kit import until
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent, Variable
from palaver.dialects.wps import DIALECT, requirements
from palaver.wire.contract import CurlSample


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("Turn ${turn}: ${content}", alias=("helper",))


def finished(caller: Caller, agent: Agent, session: str) -> list[Any]:
    """The messages of a session, once its answers are complete; as a client that does not stream polls for them."""

    async def all_done() -> bool:
        history = await caller.served.list_messages(caller.key, USER, session)
        return all(message.ended for message in history if message.role == "assistant")

    caller.served.do(until(all_done, True))
    return caller.items(agent, session)


# A message and its answer -------------------------------------------------------------------------------------------


@shows(
    requirements.chat_is_posted,
    requirements.envelope,
    requirements.new_session_without_id,
    requirements.no_text_without_stream,
    requirements.chat_headers,
    requirements.app_id_in_the_path,
)
def test_w1_a_chat_that_is_not_streamed(caller: Caller, agent: Agent) -> None:
    answer = caller.say(agent)
    body = data(answer)
    assert list(body) == ["session_id", "chat_id"]
    assert all(str(UUID(body[name])) == body[name] for name in body)
    assert (answer.header("X-Session-Id"), answer.header("X-Chat-Id")) == (body["session_id"], body["chat_id"])
    assert answer.body.startswith(b'{"code":0,"msg":"success","data":{"session_id":"')
    items = finished(caller, agent, body["session_id"])
    assert [item["text"] for item in items] == ["hi", "Turn 1: hi"]
    assert {item["chat_id"] for item in items} == {body["chat_id"]}


@shows(requirements.long_history)
def test_a_page_of_long_messages_is_a_short_one(caller: Caller, agent: Agent) -> None:
    session = data(caller.say(agent, "0" + "x" * 1_000_000))["session_id"]
    finished(caller, agent, session)
    for number in range(1, 4):
        caller.say(agent, f"{number}" + "x" * 1_000_000, session_id=session)
        finished(caller, agent, session)
    path, query = f"/v7/devhub/app/{agent.uid}/session/messages", f"session_id={session}&page_size=100"
    items: list[dict[str, Any]] = []
    token, pages = "", 0
    while token or not pages:
        page = data(caller.get(path, f"{query}&next_page_token={token}" if token else query))
        assert 1 <= len(page["items"]) < 8
        items += page["items"]
        token = page["next_page_token"]
        pages += 1
    assert pages >= 2
    assert [one["text"][0] for one in items if one["role"] == "user"] == ["0", "1", "2", "3"]
    assert len({one["id"] for one in items}) == len(items) == 8


@shows(requirements.goes_on_in_a_session)
def test_w2_a_session_goes_on(caller: Caller, agent: Agent) -> None:
    first = data(caller.say(agent))
    second = data(caller.say(agent, "more", session_id=first["session_id"]))
    assert second["session_id"] == first["session_id"]
    assert second["chat_id"] != first["chat_id"]
    items = finished(caller, agent, UUID(first["session_id"]).hex)
    assert [item["text"] for item in items] == ["hi", "Turn 1: hi", "more", "Turn 2: more"]


@pytest.mark.parametrize("blank", [None, "", " "])
@shows(requirements.new_session_without_id)
def test_a_blank_session_id_is_none(caller: Caller, agent: Agent, blank: str | None) -> None:
    assert data(caller.say(agent, session_id=blank))["session_id"]


@pytest.mark.parametrize("spelling", ["app/{}/chat/create", "apps/{}/chats/create"])
@shows(requirements.twins)
def test_w4_both_spellings_are_one_call(caller: Caller, agent: Agent, spelling: str) -> None:
    for ref in (agent.uid, agent.uid.hex, agent.uid.hex.upper(), "helper"):
        assert data(caller.post(f"/v7/devhub/{spelling.format(ref)}", {"text": "hi"}))


@shows(requirements.sse_twin)
def test_w4_the_sse_twin_streams_unless_told_otherwise(caller: Caller, agent: Agent) -> None:
    path = f"/v7/sse/devhub/apps/{agent.uid}/chats/create"
    assert merged(spoken(caller.post(path, {"text": "hi"}).writes))[-1] == "end"
    assert merged(spoken(caller.post(path, {"text": "hi", "stream": None}).writes))[-1] == "end"
    assert data(caller.post(path, {"text": "hi", "stream": False}))


@shows(requirements.the_page_s_body, requirements.files_are_kept)
def test_w5_the_page_s_whole_body(caller: Caller, agent: Agent) -> None:
    session = data(caller.say(agent))["session_id"]
    body = {
        "files": ["string", "https://example.com/文.pdf"],
        "session_id": session,
        "stream": True,
        "text": "string",
        "variables": [{"key": "string", "value": "string"}],
    }
    events = spoken(caller.post(chat(agent), body).writes)
    assert events[1]["data"]["files"] == body["files"]
    assert agents(events)[-1]["text"] == "Turn 2: string"
    assert [item["files"] for item in caller.items(agent, session)[2:]] == [body["files"], []]


@shows(requirements.variables_fill_in)
def test_variables_reach_the_agent(served: Served, caller: Caller) -> None:
    agent = served.agent(instructions="- text: '{{city}}|{{day}}|{{none}}'")
    variables = [{"key": "city", "value": "a"}, {"key": "day", "value": "用"}, {"key": "city", "value": "b"}]
    assert agents(caller.hear(agent, variables=variables))[-1]["text"] == "b|用|"


@shows(requirements.aliases_come_back)
def test_an_alias_is_what_the_client_sees_again(served: Served, caller: Caller, agent: Agent) -> None:
    who = served.principal(caller.key, USER)
    served.do(
        served.core.store.conversations.create(
            who, served.do(served.core.chat.get_or_create_user(who)), agent, alias="my 1"
        )
    )
    answer = caller.begin(agent, session_id="my 1").answer()
    assert answer.header("X-Session-Id") == "my%201"
    assert {message["session_id"] for message in agents(spoken(answer.writes))} == {"my 1"}
    assert data(caller.say(agent, session_id="my 1"))["session_id"] == "my 1"


# Exactly once -------------------------------------------------------------------------------------------------------


@shows(requirements.idempotency, requirements.twins)
def test_w16_one_key_is_one_run(caller: Caller, agent: Agent) -> None:
    headers = {"Idempotency-Key": "once-1"}
    first = caller.say(agent, headers=headers)
    again = caller.say(agent, headers=headers)
    twin = caller.post(f"/v7/devhub/apps/{agent.uid}/chats/create", {"text": "hi"}, headers=headers)
    assert first.body == again.body == twin.body
    assert [one.header("Idempotency-Replayed") for one in (first, again, twin)] == [None, "true", "true"]
    assert again.header("X-Chat-Id") == first.header("X-Chat-Id")
    assert len(finished(caller, agent, data(first)["session_id"])) == 2


@shows(requirements.idempotency, requirements.twins)
@pytest.mark.parametrize("call", ["chat/create", "session/create"])
def test_one_key_is_one_call_however_the_agent_is_spelt(caller: Caller, agent: Agent, call: str) -> None:
    headers = {"Idempotency-Key": "once-spelt"}
    spelt = (agent.uid, agent.uid.hex, str(agent.uid).upper(), "helper", quote(agent.name))
    answers = [caller.post(f"/v7/devhub/app/{ref}/{call}", {"text": "hi"}, headers=headers) for ref in spelt]
    assert len({answer.body for answer in answers}) == 1
    assert [answer.header("Idempotency-Replayed") for answer in answers] == [None, *["true"] * 4]


@shows(requirements.idempotency_conflict)
def test_w16_another_request_under_the_key_is_a_conflict(caller: Caller, agent: Agent) -> None:
    headers = {"Idempotency-Key": "once-2"}
    caller.say(agent, headers=headers)
    message = "kso: InvalidArgument err: Idempotency-Key already used with a different request"
    refused(caller.say(agent, "other", headers=headers), 422, 422000001, message)


@shows(requirements.idempotency)
def test_a_streamed_call_answers_its_twin_as_that_one_wants(caller: Caller, agent: Agent) -> None:
    headers = {"Idempotency-Key": "once-3"}
    first = data(caller.say(agent, headers=headers))
    path = f"/v7/sse/devhub/apps/{agent.uid}/chats/create"
    again = caller.post(path, {"text": "hi"}, headers=headers)
    assert spoken(again.writes)[1]["data"]["chat_id"] == first["chat_id"]
    assert again.header("Idempotency-Replayed") == "true"


# Cancelling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["path", "body", "query"])
@shows(requirements.cancel_by_body_or_query, requirements.twins, requirements.cancel_is_idempotent)
def test_a_chat_is_cancelled_by_path_body_or_query(served: Served, caller: Caller, how: str) -> None:
    agent = served.agent(HOLD)
    made = data(caller.say(agent))
    chat_id, plural = made["chat_id"], f"/v7/devhub/apps/{agent.uid}/chats/cancel"

    def cancel() -> Answer:
        match how:
            case "body":
                return caller.post(plural, {"chat_id": chat_id})
            case "query":
                return caller.post(plural, {"chat_id": None}, query=f"chat_id=x&chat_id={chat_id}")
            case _:
                return caller.cancel(agent, chat_id)

    assert data(cancel()) == {}
    assert finished(caller, agent, made["session_id"])[1]["state"] == "complete"
    assert data(cancel()) == {}


@shows(requirements.cancel_is_idempotent, requirements.isolation)
def test_what_cannot_be_cancelled_goes_on(served: Served, caller: Caller, agent: Agent) -> None:
    busy = served.agent(HOLD)
    made = data(caller.say(busy))
    stranger = caller.of("stranger")
    foreign = Caller(served, served.key("wps", application="other"))
    assert data(caller.cancel(agent, made["chat_id"])) == {}
    assert data(stranger.cancel(busy, made["chat_id"])) == {}
    refused(foreign.cancel(busy, made["chat_id"]), 404, 404000002, "kso: NotFound err: app not found")
    assert data(caller.cancel(agent, "no uuid")) == {}
    assert data(caller.cancel(agent, "a550de06-0198-4a57-a5cd-75000522bf1d")) == {}
    assert caller.items(busy, made["session_id"])[1]["state"] == "partial"
    caller.cancel(busy, made["chat_id"])


@shows(requirements.cancel_by_body_or_query, requirements.wrong_types)
def test_a_cancel_without_chat_id_is_refused(caller: Caller, agent: Agent) -> None:
    path = f"/v7/devhub/apps/{agent.uid}/chats/cancel"
    invalid(caller.post(path), "chat_id is required")
    invalid(caller.post(path, {"chat_id": " "}), "chat_id is required")
    invalid(caller.post(path, {"chat_id": 5}), "invalid chat_id")
    invalid(caller.post(path, b"["), "invalid request body")


# What an agent is ---------------------------------------------------------------------------------------------------


@shows(requirements.app_detail, requirements.twins)
def test_app_detail(served: Served, caller: Caller) -> None:
    variables = (Variable(name="city"), Variable(name="day", required=True, description="which"))
    name = served.new_name("detail")
    served.agent("x", name=name, alias=("shown",), description="说明", variables=variables)
    for path in ("/v7/devhub/app/shown/detail", "/v7/devhub/apps/shown/detail"):
        assert caller.get(path).body.decode() == (
            '{"code":0,"msg":"success","data":{"app_id":"shown","name":"NAME","description":"说明","icon":null,'
            '"variables":[{"key":"city","required":false,"description":""},'
            '{"key":"day","required":true,"description":"which"}]}}'
        ).replace("NAME", name)


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [{}, {"text": None}, {"text": " "}, {"text": "", "stream": "x"}])
@shows(requirements.text_is_required, requirements.failures_have_no_data, requirements.errors_are_in_order)
def test_w6_text_is_required(caller: Caller, agent: Agent, members: dict[str, Any]) -> None:
    answer = caller.post(chat(agent), members)
    invalid(answer, "text is required")
    assert answer.body == (
        b'{"code":400000001,"msg":"kso: InvalidArgument err: text is required","debug":{"desc":"text is required"}}'
    )


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"text": 5}, "text"),
        ({"stream": "true"}, "stream"),
        ({"session_id": 1}, "session_id"),
        ({"files": "a"}, "files"),
        ({"files": [1]}, "files"),
        ({"variables": {"a": "b"}}, "variables"),
        ({"variables": [{"value": "b"}]}, "variables"),
        ({"variables": [{"key": "a", "value": 5}]}, "variables"),
    ],
)
@shows(requirements.wrong_types)
def test_a_wrong_type_is_named_by_its_member(caller: Caller, agent: Agent, members: dict[str, Any], field: str) -> None:
    invalid(caller.post(chat(agent), {"text": "hi", **members}), f"invalid {field}")


@pytest.mark.parametrize("body", [b"", b" ", b"[]", b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"text":"\\ud800"}'])
@shows(requirements.no_json_object)
def test_a_body_that_is_no_object(caller: Caller, agent: Agent, body: bytes) -> None:
    invalid(caller.post(chat(agent), body), "invalid request body")


@shows(requirements.many_members)
def test_a_body_of_too_many_members(caller: Caller, agent: Agent) -> None:
    few, many = (b'{"text":"hi","more":[' + b"[]," * times + b"0]}" for times in (19_996, 20_001))
    data(caller.post(chat(agent), few))
    invalid(caller.post(chat(agent), many), "invalid request body")


@shows(requirements.errors_are_in_order, requirements.app_not_found, requirements.session_not_found)
def test_errors_come_in_order(caller: Caller, agent: Agent) -> None:
    nobody = "/v7/devhub/app/none/chat/create"
    bad_key = {"Idempotency-Key": "a b"}
    invalid(caller.post(nobody, b"[", headers=bad_key), "invalid request body")
    invalid(caller.post(nobody, {}, headers=bad_key), "invalid Idempotency-Key")
    invalid(caller.post(nobody, {"stream": 1}), "text is required")
    invalid(caller.post(nobody, {"text": "hi", "stream": 1}), "invalid stream")
    refused(caller.post(nobody, {"text": "hi", "session_id": "x"}), 404, 404000002, "kso: NotFound err: app not found")
    refused(caller.say(agent, session_id="x"), 404, 404000002, "kso: NotFound err: session not found")


@shows(requirements.app_not_found, requirements.isolation)
def test_agents_that_are_not_there_disabled_or_not_the_credential_s(served: Served, caller: Caller) -> None:
    off = served.agent("x", enabled=False)
    other = served.agent("x")
    foreign = served.agent("x", application="other")
    limited = Caller(served, served.key("wps", agents=[str(off.uid)]))
    answers = [
        caller.say(off),
        caller.say(foreign),
        limited.say(other),
        caller.post("/v7/devhub/app/x/chat/create", {"text": "a"}),
    ]
    for answer in answers:
        refused(answer, 404, 404000002, "kso: NotFound err: app not found")
    assert len({answer.body for answer in answers}) == 1


@shows(requirements.session_not_found, requirements.isolation)
def test_w7_sessions_of_others_are_not_found(served: Served, caller: Caller, agent: Agent) -> None:
    session = data(caller.say(agent))["session_id"]
    stranger, elsewhere = caller.of("stranger"), served.agent("x")
    absent = "00000000-0000-4000-8000-000000000000"
    answers = [
        stranger.say(agent, session_id=session),
        caller.say(elsewhere, session_id=session),
        caller.say(agent, session_id=absent),
    ]
    for answer in answers:
        refused(answer, 404, 404000002, "kso: NotFound err: session not found")


@shows(requirements.missing_signature, requirements.signature_mismatch, requirements.date_out_of_range)
def test_w8_unsigned_wrong_and_late(caller: Caller, agent: Agent) -> None:
    unsigned = caller.say(agent, headers={"X-Kso-Authorization": "", "X-Kso-Date": ""})
    refused(unsigned, 401, 401000001, "kso: Unauthenticated err: missing signature")
    wrong = caller.say(agent, headers={"X-Kso-Authorization": f"KSO-1 {caller.key.id}:{'0' * 64}"})
    refused(wrong, 401, 401000001, "kso: Unauthenticated err: signature mismatch")
    late = caller.post(chat(agent), {"text": "hi"}, date=now(minutes=-16))
    refused(late, 401, 401000001, "kso: Unauthenticated err: date out of range")
    unknown = caller.say(agent, headers={"X-Kso-Authorization": "KSO-1 AK:00"})
    refused(unknown, 401, 401000001, "kso: Unauthenticated err: invalid access key")


@shows(requirements.needs_the_chat_scope, requirements.token_needs_scope, requirements.token_must_be_good)
def test_w9_and_w10_tokens(served: Served, caller: Caller, agent: Agent) -> None:
    narrow = Caller(served, caller.key, token=caller.issue("ann", "kso.devhub_session.readwrite"))
    scope = "kso: PermissionDenied access_token verify err: invalid_scope"
    refused(narrow.say(agent), 403, 400000003, scope)
    expired = Caller(served, caller.key, token=caller.issue("ann", life_s=-1))
    refused(expired.say(agent), 401, 400001001, "kso: Unauthenticated access_token invalid or expired")


@shows(requirements.token_without_signature, requirements.token_names_the_user, requirements.token_can_be_required)
def test_a_token_alone(served: Served, agent: Agent) -> None:
    free = Caller(served, served.key("wps", require_signature=False))
    unsigned = {"X-Kso-Authorization": "", "X-Kso-Date": ""}
    mine = free.of("ann")
    session = data(mine.say(agent, headers=unsigned))["session_id"]
    assert served.history(free.key, "ann", session)
    refused(free.say(agent), 401, 400001001, "kso: Unauthenticated access_token missing")
    strict = Caller(served, token=None)
    signed = Caller(served, strict.key, token=strict.issue("ann"))
    missing = "kso: Unauthenticated err: missing signature"
    refused(signed.say(agent, headers=unsigned), 401, 401000001, missing)


@shows(requirements.unknown_route)
def test_w14_unknown_routes_and_methods(caller: Caller, agent: Agent) -> None:
    for answer in (caller.get("/v7/devhub/none"), caller.get(chat(agent)), caller.get("/oauth2/none")):
        refused(answer, 404, 404000001, "404 Route Not Found")


@shows(requirements.size_before_route, requirements.unknown_route, requirements.too_large)
def test_a_body_that_is_too_large_is_refused_whether_a_route_serves_it_or_not(served: Served, agent: Agent) -> None:
    for method, path in (("POST", "/v7/devhub/none"), ("DELETE", chat(agent)), ("POST", "/oauth2/none")):
        large = served.ask(Ask(method=method, path=path, body=b"x" * 1_048_577))
        refused(large, 413, 413000001, "kso: InvalidArgument err: request body too large")
        refused(served.ask(Ask(method=method, path=path, body=b"x")), 404, 404000001, "404 Route Not Found")


@pytest.mark.parametrize("query", ["?", "??", "?&", "?a=", "?a=%7E&a=%7e", "?q=%E4%BD%A0+", "?a#b"])
@pytest.mark.parametrize("proxied", ["", "http://gateway.example"])
@shows(requirements.target_as_sent)
def test_the_address_is_signed_as_it_was_sent(served: Served, agent: Agent, proxied: str, query: str) -> None:
    path = f"/v7/devhub/app/{agent.uid}/detail{query}"
    ask = Caller(served).request("GET", path)
    with served.connection() as connection:
        connection.send(replace(ask, path=proxied + path))
        assert data(connection.answer())["name"]
        connection.send(replace(ask, path=proxied + path.partition("?")[0]))
        refused(connection.answer(), 401, 401000001, "kso: Unauthenticated err: signature mismatch")


@shows(requirements.too_large)
def test_a_body_that_is_too_large(served: Served, agent: Agent) -> None:
    answer = served.ask(Ask(path=chat(agent), body=b"x" * 1_048_577))
    refused(answer, 413, 413000001, "kso: InvalidArgument err: request body too large")


@shows(requirements.limits)
def test_rate_and_lifetime_limits(served: Served, agent: Agent) -> None:
    message = "kso: ResourceExhausted err: too many requests"
    hurried, counted = Caller(served, served.key("wps", rpm=1)), Caller(served, served.key("wps", total=1))
    for caller in (hurried, counted):
        data(caller.say(agent))
    refused(answer := hurried.say(agent), 429, 429000001, message)
    assert 1 <= int(answer.header("Retry-After") or 0) <= 60
    refused(answer := counted.say(agent), 429, 429000001, message)
    assert answer.header("Retry-After") is None


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["key", "value"]), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.dictionaries(st.sampled_from(["text", "stream", "files", "session_id", "variables"]), json_values),
    query=st.sampled_from(["", "page_size=%00", "chat_id=%ff&next_page_token=x", "&&==", "page_size=9&session_id=%F0"]),
)
@shows(requirements.wrong_types, requirements.no_json_object)
def test_whatever_is_sent_it_is_no_failure_of_ours(
    caller: Caller, agent: Agent, members: dict[str, Any], query: str
) -> None:
    assert caller.post(chat(agent), {"text": " ", **members}, query=query).status in {200, 400, 404}
    assert caller.post(f"/v7/devhub/apps/{agent.uid}/chats/cancel", members, query=query).status in {200, 400}
    assert caller.get(f"/v7/devhub/app/{agent.uid}/session/list", query).status in {200, 400}
    assert caller.get(f"/v7/devhub/app/{agent.uid}/session/messages", query).status in {200, 400, 404}


@shows(requirements.curl_sample)
def test_the_sample_that_newcomers_paste_works(served: Served, caller: Caller, agent: Agent) -> None:
    sample = CurlSample(
        base_url=served.base_url,
        id=caller.key.id,
        secret=caller.key.secret,
        agent_id=agent.id,
        agent_uid=agent.uid.hex,
    )
    command = ["sh", "-c", DIALECT.curl(sample)]
    output = subprocess.run(command, check=True, capture_output=True, timeout=CURL_TIMEOUT).stdout
    events = [json.loads(piece) for piece in output.split(b"\n\n") if piece]
    assert agents(events)[-1]["text"] == "Turn 1: How do I configure a model?"


@shows(requirements.full)
def test_a_quota_that_is_used_up_is_told_without_a_time(served: Served, agent: Agent) -> None:
    with served.full("conversations"):
        answer = Caller(served, served.key("wps")).say(agent)
    refused(answer, 429, 429000001, "kso: ResourceExhausted err: storage quota exceeded")
    assert answer.header("Retry-After") is None
