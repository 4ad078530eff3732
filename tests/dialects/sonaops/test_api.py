"""Every call but the stream: what is asked, what is answered, in which order things are found wrong."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from dialects.sonaops.client import (
    CREATE,
    HEX,
    IMAGE,
    INSPIRATION,
    LIST,
    POSTED,
    STREAM,
    TTS,
    USER,
    Caller,
    data,
    envelope,
    frames,
    named,
    refused,
)
from support.http_clients import Answer, Ask
from support.kit import until
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent, ApiKey
from palaver.dialects.sonaops import requirements

TOO_MANY = "Too many requests, please try again later"


@pytest.fixture(scope="module", autouse=True)
def agent(served: Served) -> Agent:
    return served.agent("yes", name="Anna", alias=("agent-uuid", "second"), opening_message="Hello", icon="a.png")


@pytest.fixture(scope="module")
def both(caller: Caller, later: Caller) -> list[tuple[Caller, int]]:
    """Both generations' callers, and what HTTP status a bad parameter is for them."""
    return [(caller, 400), (later, 200)]


# Creating -----------------------------------------------------------------------------------------------------------


@shows(
    requirements.r1,
    requirements.create_is_posted,
    requirements.success_envelope,
    requirements.id_is_a_bare_uuid,
    requirements.trace_id_is_32_letters,
    requirements.new_id_each_call,
)
def test_each_call_makes_a_conversation(served: Served, both: list[tuple[Caller, int]], agent: Agent) -> None:
    for caller, _ in both:
        first, second = (caller.post(CREATE, {"agentId": "agent-uuid"}) for _ in range(2))
        ids = [data(answer)["conversationId"] for answer in (first, second)]
        assert all(HEX.fullmatch(one) for one in ids)
        assert ids[0] != ids[1]
        assert first.json()["traceId"] != second.json()["traceId"]
        assert abs(int(first.json()["timestamp"]) - time.time() * 1000) < 10_000
        rows = served.sql("SELECT agent FROM conversation WHERE uid = ANY($1)", [UUID(one) for one in ids])
        assert [row["agent"] for row in rows] == [agent.id] * 2


@shows(requirements.r2, requirements.user_header, requirements.content_type_unchecked, requirements.row_before_answer)
def test_a_sha256_call_may_say_as_little_as_the_documented_client(served: Served, caller: Caller, agent: Agent) -> None:
    bare = {"X-Timestamp": None, "X-User-ID": None, "Content-Type": "text/plain"}
    name = caller.create(agent, headers=bare)
    assert served.history(caller.key, "default", name) == []


@shows(requirements.agent_id_comes_from_the_list, requirements.values_are_trimmed, requirements.list_first_alias)
def test_an_agent_is_named_by_alias_or_uuid_in_either_form_and_not_by_its_number(caller: Caller, agent: Agent) -> None:
    for name in ("agent-uuid", "second", str(agent.uid), agent.uid.hex, agent.uid.hex.upper(), " \u3000agent-uuid\n"):
        assert HEX.fullmatch(
            data(caller.post(CREATE, {"agentId": name}, signed=f"agentId={name.strip()}"))["conversationId"]
        )
    for name in ("anna", str(agent.id), "Agent-uuid"):
        refused(caller.post(CREATE, {"agentId": name}), 10404, "Agent not found")


@shows(requirements.r3, requirements.r4, requirements.r5, requirements.e_expired, requirements.c_json_always)
def test_r3_to_r5_are_envelopes(caller: Caller) -> None:
    members = {"agentId": "agent-uuid"}
    old = str(int(time.time()) - 302)
    refused(caller.post(CREATE, members, headers={"X-Timestamp": old}), 10401, "Request expired", http=401)
    refused(caller.post(CREATE, members, headers={"X-Signature": None}), 10401, "Missing signature", http=401)
    refused(caller.post(CREATE, members, headers={"Authorization": "Bearer nope"}), 10401, "Invalid API key")


@pytest.mark.parametrize("body", [b"", b" ", b"{}", b'{"agentId":null}', b'{"agentId":" "}', b'{"agentId":"\\u3000"}'])
@shows(requirements.r6, requirements.agent_id_missing, requirements.agent_id_is_required, requirements.e_required)
def test_r6_an_agent_is_required(both: list[tuple[Caller, int]], body: bytes) -> None:
    for caller, _ in both:
        refused(caller.post(CREATE, body, signed=""), 10400, "agentId is required")


@shows(requirements.r7, requirements.r8, requirements.r9, requirements.e_agent, requirements.e_wrong_type)
def test_r7_to_r9(both: list[tuple[Caller, int]]) -> None:
    for caller, status in both:
        refused(caller.post(CREATE, b'{"agentId":', signed=""), 10400, "Invalid request body", http=status)
        refused(caller.post(CREATE, {"agentId": 7}), 10400, "agentId must be a string", http=status)
        refused(caller.post(CREATE, {"agentId": "ghost"}), 10404, "Agent not found")


@shows(requirements.e_agent)
def test_disabled_foreign_and_forbidden_agents_are_not_found(served: Served, caller: Caller, agent: Agent) -> None:
    other = served.agent("x", application="another", alias=("theirs",))
    off = served.agent("x", enabled=False)
    for name in (str(other.uid), "theirs", str(off.uid)):
        for path in (CREATE, STREAM, INSPIRATION, IMAGE):
            members = {"agentId": name, "conversationId": "x", "text": "x"}
            refused(caller.post(path, members), 10404, "Agent not found")
    narrow = Caller(served, served.key("sonaops", agents=["second-agent"]))
    refused(narrow.post(CREATE, {"agentId": str(agent.uid)}), 10404, "Agent not found")


@shows(requirements.r13, requirements.r14, requirements.e_conflict, requirements.e_bad_idempotency_key)
def test_an_idempotency_key_gives_the_same_bytes(served: Served, both: list[tuple[Caller, int]]) -> None:
    served.agent("x", alias=("agent-b",))
    for caller, status in both:
        once = {"Idempotency-Key": "a1"}
        first, second = (caller.post(CREATE, {"agentId": "agent-uuid"}, headers=once) for _ in range(2))
        assert first.body == second.body
        assert (first.header("Idempotency-Replayed"), second.header("Idempotency-Replayed")) == (None, "true")
        conflict = caller.post(CREATE, {"agentId": "agent-b"}, headers=once)
        refused(conflict, 10422, "Idempotency-Key already used with a different request", http=422)
        for path in (CREATE, STREAM, IMAGE):
            answer = caller.post(path, {"agentId": 7}, headers={"Idempotency-Key": "a b"})
            refused(answer, 10400, "Invalid Idempotency-Key", http=status)


# Keys and limits ----------------------------------------------------------------------------------------------------


@shows(requirements.r15, requirements.too_often, requirements.e_rate, requirements.e_order)
def test_a_rate_is_said_on_http_200_with_retry_after(served: Served) -> None:
    caller = Caller(served, served.key("sonaops", rpm=1))
    assert caller.create("agent-uuid")
    answer = caller.post(CREATE, {"agentId": 7})
    refused(answer, 10429, TOO_MANY)
    assert 1 <= int(answer.header("Retry-After") or 0) <= 60
    refused(caller.post(CREATE, b"{", signed=""), 10400, "Invalid request body", http=400)


@shows(requirements.r16, requirements.used_up, requirements.e_total)
def test_a_lifetime_count_is_said_on_http_200(served: Served) -> None:
    caller = Caller(served, served.key("sonaops", total=1))
    assert caller.create("agent-uuid")
    answer = caller.post(CREATE, {"agentId": "agent-uuid"})
    refused(answer, 10403, "API key usage limit reached")
    assert answer.header("Retry-After") is None


@shows(requirements.e_disabled_key, requirements.key_invalid)
def test_a_disabled_key_is_an_invalid_one(served: Served) -> None:
    for settings, status in (({}, 200), ({"signature": "hmac-sha256"}, 401)):
        caller = Caller(served, _disabled(served, served.key("sonaops", **settings)))
        refused(caller.post(CREATE, {"agentId": "agent-uuid"}), 10401, "Invalid API key", http=status)


def _disabled(served: Served, key: ApiKey) -> ApiKey:
    served.do(served.core.store.keys.set_enabled(key.id, enabled=False))

    async def known() -> bool | None:
        key_found = await served.core.store.keys.get_by_id("sonaops", key.id)
        return None if key_found is None else key_found.enabled

    served.do(until(known, False))
    return key


@shows(requirements.repeated_request_id, requirements.request_id_echoed)
def test_a_request_id_is_good_once_where_the_key_says_so(served: Served, caller: Caller) -> None:
    strict = Caller(served, served.key("sonaops", reject_repeated_request_id=True))
    sent = {"X-Request-ID": "5f2d"}
    for one in (caller, caller, strict):
        answer = one.post(CREATE, {"agentId": "agent-uuid"}, headers=sent)
        assert data(answer)
        assert answer.header("X-Request-ID") == "5f2d"
    refused(strict.post(CREATE, {"agentId": "agent-uuid"}, headers=sent), 10401, "Request repeated", http=401)
    for _ in range(2):
        assert data(strict.post(CREATE, {"agentId": "agent-uuid"}))


@shows(requirements.e_unknown_route, requirements.e_too_large, requirements.c_json_always)
def test_no_route_no_method_and_too_much_need_no_credential(served: Served) -> None:
    for path in ("/v1/chat/history", "/v1/", "/saas/x"):
        refused(served.ask(Ask(path=path)), 10404, "Not found", http=404)
    for path in (CREATE, STREAM, INSPIRATION, IMAGE, TTS):
        refused(served.ask(Ask(method="GET", path=path)), 10405, "Method not allowed", http=405)
    for path in POSTED:
        refused(served.ask(Ask(path=path, body=b"x" * 1_048_577)), 10413, "Request body too large", http=413)


@shows(requirements.c_cors)
def test_a_browser_may_call_and_read_the_request_id(served: Served, caller: Caller) -> None:
    preflight_headers = [("Origin", "https://app"), ("Access-Control-Request-Headers", "x-signature,x-user-id")]
    preflight = served.ask(Ask(method="OPTIONS", path=CREATE, headers=preflight_headers))
    assert preflight.header("Access-Control-Allow-Headers") == "x-signature,x-user-id"
    answer = caller.post(CREATE, {"agentId": "agent-uuid"}, headers={"Origin": "https://app"})
    assert answer.header("Access-Control-Allow-Origin") == "https://app"
    assert "X-Request-ID" in (answer.header("Access-Control-Expose-Headers") or "")


# Types and requirements, in the tables' order -----------------------------------------------------------------------

TABLES: dict[str, tuple[str, ...]] = {
    CREATE: ("agentId",),
    STREAM: ("agentId", "conversationId", "text"),
    INSPIRATION: ("agentId", "conversationId"),
    IMAGE: ("agentId", "conversationId", "text"),
    TTS: ("messageId", "processedText"),
}
OPTIONAL: dict[str, tuple[tuple[str, str], ...]] = {
    CREATE: (),
    STREAM: (("language", "a string"), ("metadata", "an object")),
    INSPIRATION: (("language", "a string"),),
    IMAGE: (("language", "a string"), ("metadata", "an object")),
    TTS: (("voiceTimbreId", "a string"),),
}


@pytest.mark.parametrize("path", TABLES)
@shows(requirements.e_wrong_type, requirements.e_required, requirements.e_order)
def test_types_come_before_requirements_each_in_the_tables_order(both: list[tuple[Caller, int]], path: str) -> None:
    required = TABLES[path]
    for caller, status in both:
        for at, field in enumerate(required):
            members = dict.fromkeys(required[:at], "x")
            refused(caller.post(path, {**members, **dict.fromkeys(required[at:], "  ")}), 10400, f"{field} is required")
            refused(caller.post(path, members), 10400, f"{field} is required")
            wrong: dict[str, Any] = dict.fromkeys(required[at:], 1)
            refused(caller.post(path, {**members, **wrong}), 10400, f"{field} must be a string", http=status)
        for field, kind in OPTIONAL[path]:
            refused(caller.post(path, {field: 7}), 10400, f"{field} must be {kind}", http=status)


@shows(
    requirements.e_order,
    requirements.e_agent,
    requirements.e_conversation,
    requirements.e_other_agent,
    requirements.e_conflict,
)
def test_agent_conversation_their_bond_and_the_idempotency_key_are_looked_at_in_this_order(
    served: Served, caller: Caller, agent: Agent
) -> None:
    key = {"headers": {"Idempotency-Key": "order"}}
    other = served.agent("x")
    conversation = caller.create(agent)
    assert frames(caller.say(agent, conversation, how=key).body)
    refused(caller.say("ghost", uuid4().hex, how=key), 10404, "Agent not found")
    refused(caller.say(other, uuid4().hex, how=key), 10404, "Conversation not found")
    refused(caller.say(other, conversation, how=key), 10400, "agentId does not match the conversation")
    message = "Idempotency-Key already used with a different request"
    refused(caller.say(agent, conversation, "other", how=key), 10422, message, http=422)


# The agent list -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(served: Served) -> Caller:
    """Who may use three agents of an application that has five."""
    listed: tuple[tuple[str, dict[str, Any]], ...] = (
        ("b", {"alias": ("bee",), "description": "Buzz", "extra": {"sonaops": {"voiceId": "v1"}}}),
        ("a", {"opening_message": "Hi", "icon": "https://x/y.png"}),
        ("c", {}),
        ("hidden", {"enabled": False}),
        ("forbidden", {}),
    )
    for name, more in listed:
        served.agent("x", application="list", name=name, **more)
    return Caller(served, served.key("sonaops", application="list", agents=["a", "b", "c", "hidden"]))


@shows(requirements.list_members, requirements.list_order, requirements.list_first_alias, requirements.list_by_get)
def test_the_list_shows_enabled_agents_by_name(shop: Caller) -> None:
    for answer in (shop.post(LIST), shop.post(LIST, {}), shop.get(LIST), shop.get(LIST, "pageNum=1&pageSize=20")):
        body = data(answer)
        assert list(body) == ["list", "total"]
        first, second, third = body["list"]
        assert UUID(first.pop("agentId"))
        assert first == {"name": "a", "avatar": "https://x/y.png", "description": "", "greeting": "Hi", "voiceId": None}
        assert list(second) == ["agentId", "name", "avatar", "description", "greeting", "voiceId"]
        assert (second["agentId"], second["avatar"], second["description"]) == ("bee", None, "Buzz")
        assert (second["voiceId"], third["name"], body["total"]) == ("v1", "c", 3)


@shows(requirements.list_pages, requirements.list_by_get)
def test_the_list_is_cut_into_pages(shop: Caller) -> None:
    def names(answer: Answer) -> tuple[list[str], int]:
        body = data(answer)
        return [agent["name"] for agent in body["list"]], body["total"]

    assert names(shop.post(LIST, {"pageNum": 2, "pageSize": 2})) == (["c"], 3)
    assert names(shop.get(LIST, "pageNum=2&pageSize=2&pageNum=1")) == (["a", "b"], 3)
    assert names(shop.get(LIST, "pageNum=&language=12")) == (["a", "b", "c"], 3)
    assert names(shop.post(LIST, {"pageNum": 10**15})) == ([], 3)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"pageNum": 0}, "pageNum must be an integer of at least 1"),
        ({"pageNum": -1, "pageSize": "x"}, "pageNum must be an integer of at least 1"),
        ({"pageNum": "x", "pageSize": 0}, "pageNum must be an integer"),
        ({"pageNum": 1.5}, "pageNum must be an integer"),
        ({"pageNum": True}, "pageNum must be an integer"),
        ({"pageSize": 101}, "pageSize must be an integer from 1 to 100"),
        ({"pageSize": 0, "language": 1}, "pageSize must be an integer from 1 to 100"),
        ({"language": 1}, "language must be a string"),
    ],
)
@shows(requirements.e_wrong_type)
def test_pages_out_of_range_are_refused(shop: Caller, members: dict[str, Any], message: str) -> None:
    refused(shop.post(LIST, members), 10400, message, http=400)
    if members != {"language": 1} and True not in members.values():
        query = "&".join(f"{name}={value}" for name, value in members.items())
        refused(shop.get(LIST, query), 10400, message, http=400)


# Inspiration --------------------------------------------------------------------------------------------------------


@shows(requirements.inspiration_replies, requirements.one_id_for_the_dialogue)
def test_without_an_endpoint_an_agents_questions_that_were_not_asked_are_suggested(
    served: Served, caller: Caller
) -> None:
    agent = served.agent("x", suggested_questions=("Why?", "hi", "How?", "y" * 201, "When?", "Who?"))
    conversation = caller.create(agent)
    caller.say(agent, conversation, "hi")
    members = {"agentId": named(agent), "conversationId": conversation, "language": "en"}
    assert data(caller.post(INSPIRATION, members)) == {"replies": ["Why?", "How?", "When?"]}
    assert len(served.history(caller.key, USER, conversation)) == 2


# Conversations of others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [STREAM, INSPIRATION, IMAGE])
@shows(requirements.r11, requirements.e_conversation, requirements.e_other_agent, requirements.both_uuid_forms)
def test_a_conversation_is_its_end_users_and_its_agents(
    served: Served, caller: Caller, agent: Agent, path: str
) -> None:
    other = served.agent("x")
    conversation = caller.create(agent)
    stranger = Caller(served, caller.key, user="somebody else")
    members = {"agentId": "agent-uuid", "text": "hi"}
    for asker, name in ((stranger, conversation), (caller, uuid4().hex), (caller, "nonsense"), (caller, "7")):
        refused(asker.post(path, {**members, "conversationId": name}), 10404, "Conversation not found")
    for name in (conversation, str(UUID(conversation)), f" {conversation.upper()} "):
        answer = caller.post(path, {**members, "agentId": str(other.uid), "conversationId": name})
        refused(answer, 10400, "agentId does not match the conversation")


@shows(requirements.image_unconfigured, requirements.tts_unconfigured, requirements.r10)
def test_without_an_endpoint_there_is_neither_picture_nor_voice(served: Served, caller: Caller, agent: Agent) -> None:
    conversation = caller.create(agent)
    members = {"agentId": "agent-uuid", "conversationId": conversation, "text": "a cat"}
    refused(caller.post(IMAGE, members), 10400, "Agent missing image generation config")
    message = frames(caller.say(agent, conversation).body)[-1][1]["messageId"]
    for name in (message, str(UUID(message))):
        answer = caller.post(TTS, {"messageId": name, "processedText": "yes"})
        refused(answer, 10400, "Agent missing voice config")


@shows(requirements.tts_message)
def test_a_message_is_its_end_users(served: Served, both: list[tuple[Caller, int]], agent: Agent) -> None:
    caller, _ = both[0]
    message = frames(caller.say(agent, caller.create(agent)).body)[-1][1]["messageId"]
    for one, status in ((both[0][0], 404), (both[1][0], 200)):
        stranger = Caller(served, one.key, user="somebody else")
        for asker, name in ((stranger, message), (one, uuid4().hex), (one, "x")):
            answer = asker.post(TTS, {"messageId": name, "processedText": "yes"})
            refused(answer, 10404, "Message not found", http=status)


@shows(requirements.e_waiting)
def test_too_many_waiting_messages_are_too_many_requests(served: Served, caller: Caller) -> None:
    agent = served.agent(HOLD)
    conversation = caller.create(agent)
    exchanges = [caller.begin(agent, conversation) for _ in range(5)]
    assert [exchange.head().status for exchange in exchanges] == [200] * 5
    refused(caller.say(agent, conversation), 10429, TOO_MANY)
    served.stop_conversation(caller.key, USER, conversation)
    for exchange in exchanges:
        exchange.rest()


@shows(requirements.e_overload)
def test_a_server_that_stops_takes_no_more_messages(
    served: Served, both: list[tuple[Caller, int]], agent: Agent
) -> None:
    for one, _ in both:
        conversation = one.create(agent)
        served.core.runs.closing = True
        try:
            answer = one.say(agent, conversation)
        finally:
            served.core.runs.closing = False
        refused(answer, 10429, TOO_MANY)
        assert answer.header("Retry-After") is None
        assert frames(one.say(agent, conversation).body)


@shows(requirements.e_internal, requirements.c_json_always)
def test_while_the_database_is_away_there_is_an_envelope(served: Served, both: list[tuple[Caller, int]]) -> None:
    for one, _ in both:  # their keys are known
        data(one.post(LIST))
    served.do(served.core.store.db.close())
    try:
        for one, bad in both:
            answer = one.post(CREATE, {"agentId": "agent-uuid"})
            assert envelope(answer)["message"] == "Internal server error"
            assert answer.status == (500 if bad == 400 else 200)
    finally:
        served.do(served.core.store.db.open())
    for one, _ in both:
        assert one.create("agent-uuid")


@shows(requirements.full)
def test_a_quota_that_is_used_up_is_said_on_http_200(served: Served) -> None:
    agent = served.agent("so be it")
    with served.full("conversations"):
        answer = Caller(served).post(CREATE, {"agentId": str(agent.uid)})
    refused(answer, 10403, "storage quota exceeded")
    assert answer.header("Retry-After") is None
