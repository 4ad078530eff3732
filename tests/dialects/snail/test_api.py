"""The call, its fields and its refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dialects.snail.client import CHAT, USER, Caller, done, envelope, events, joined, refused
from support.http_clients import Answer, Ask
from support.live_server import Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.snail import requirements

NO_AGENT = "智能体不存在或已被禁用"
MISSING = "agentId 和 content 为必填参数"
NO_USER = "openId 为必填参数"
NO_JSON = "请求体不是合法的 JSON"
TOO_LARGE = "请求体过大"


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"think": "look it up"}, "You said: ${content}")


def without(members: dict[str, Any], name: str) -> dict[str, Any]:
    return {other: value for other, value in members.items() if other != name}


def heard(answer: Answer) -> str:
    """What the agent was asked, which it says again."""
    return joined(events(answer)).removeprefix("You said: ")


# A message and its answer -------------------------------------------------------------------------------------------


@shows(
    requirements.n1,
    requirements.chat_is_posted,
    requirements.answer_is_ndjson,
    requirements.thinking_lines,
    requirements.text_lines_are_joined,
    requirements.media_type,
    requirements.conversation_header,
    requirements.done_line,
    requirements.full_text,
    requirements.order_of_lines,
    requirements.first_message_makes_a_conversation,
    requirements.conversation_id_comes_back,
)
def test_n1_a_message_is_answered_line_by_line(caller: Caller, agent: Agent) -> None:
    answer = caller.post({"agentId": agent.id, "openId": "external-user-001", "content": "hi"})
    run_events = events(answer)
    assert [event["type"] for event in run_events] == ["thinking", "text", "done"]
    assert run_events[0] == {"type": "thinking", "content": "look it up"}
    assert joined(run_events) == "You said: hi" == run_events[-1]["fullText"]
    assert run_events[-1]["conversationId"] == answer.header("X-Conversation-Id")
    assert list(run_events[-1]) == ["type", "conversationId", "fullText"]
    assert answer.complete


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/x-ndjson", "text/html"])
@shows(requirements.accept_star, requirements.accept_chooses)
def test_whoever_does_not_ask_for_events_gets_lines(caller: Caller, agent: Agent, accept: str | None) -> None:
    answer = caller.say(agent, headers={} if accept is None else {"Accept": accept})
    assert done(answer)["fullText"] == "You said: hi"


@pytest.mark.parametrize("off", [{"disabledMcpServerIds": [3], "disabledSkillIds": [2]}, {"disabledMcpServerIds": []}])
@shows(
    requirements.n4,
    requirements.mcp_servers_can_be_off,
    requirements.skills_can_be_off,
    requirements.unknown_disabled_ids,
)
def test_n4_ids_of_what_is_to_be_off_are_taken(caller: Caller, agent: Agent, off: dict[str, Any]) -> None:
    assert heard(caller.say(agent, **off)) == "hi"


@pytest.mark.parametrize("ids", [[2**63], [-1, 0], ["3"], [3.0], [10**30]])
@shows(requirements.unknown_disabled_ids, requirements.digits_are_numbers)
def test_ids_that_name_nothing_are_ignored(caller: Caller, agent: Agent, ids: list[Any]) -> None:
    assert heard(caller.say(agent, disabledMcpServerIds=ids, disabledSkillIds=ids)) == "hi"


@shows(requirements.n4, requirements.null_is_absent, requirements.conversation_id_is_optional)
def test_a_null_is_an_absent_member(caller: Caller, agent: Agent) -> None:
    answer = caller.say(agent, conversationId=None, disabledMcpServerIds=None, disabledSkillIds=None, x=None)
    assert done(answer)["conversationId"] not in {None, ""}


@shows(requirements.other_members_are_ignored, requirements.unknown_members)
def test_members_that_mean_nothing_here_are_passed_over(caller: Caller, agent: Agent) -> None:
    more: dict[str, Any] = {
        "sid": 1,
        "timeout": "never",
        "deepPlanEnabled": [],
        "webSearchEnabled": {},
        "stream": False,
        "": {"a": []},
    }
    assert heard(caller.say(agent, **more)) == "hi"


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=gbk", ""]
)
@shows(requirements.any_media_type)
def test_the_body_is_json_whatever_its_content_type_says(caller: Caller, agent: Agent, media_type: str) -> None:
    assert heard(caller.say(agent, "用户", headers={"Content-Type": media_type})) == "用户"


@shows(requirements.header_names, requirements.header_values)
def test_header_names_have_no_case_and_values_are_trimmed(served: Served, caller: Caller, agent: Agent) -> None:
    body = json.dumps(caller.members(agent)).encode()
    ask = Ask(path=CHAT, headers=[("SNAIL-ai-AUTH", f" \t{caller.auth} \t")], body=body)
    assert heard(served.ask(ask)) == "hi"


# Odd, but legal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("x" * 100_000, id="100,000 characters"),
        pytest.param("用" * 100_000, id="100,000 Chinese characters"),
        pytest.param("👩‍👩‍👧🏽 🙂 🏴‍☠️", id="emoji"),
        pytest.param("مرحبا \u202eעולם\u202c\u200f", id="right to left"),
        pytest.param("a\u2028b\u2029c\x85d\r\ne\x00f".replace("\x00", ""), id="line ends"),
        pytest.param("\x01\x1f\x7f\x80\ufeff\uffff\U0010ffff", id="what has no picture"),
        pytest.param('{"type":"done"}\n\ndata: x\n\n: ping', id="looks like a stream"),
        pytest.param("{{name}} {% x %} {0} %s", id="looks like a template"),
        pytest.param("'; DROP TABLE message; --", id="looks like a statement"),
        pytest.param("  x  \n", id="white space around it"),
        pytest.param("\u200b", id="a character of no width"),
        pytest.param("0", id="nought"),
    ],
)
@shows(requirements.odd_but_legal, requirements.content_is_required)
def test_odd_but_legal_content_is_answered(caller: Caller, agent: Agent, content: str) -> None:
    answer = caller.say(agent, content)
    assert heard(answer) == content
    assert done(answer)["fullText"] == f"You said: {content}"


@shows(requirements.nul)
def test_u_0000_is_passed_on_and_stored_as_u_fffd(served: Served, caller: Caller, agent: Agent) -> None:
    user = "nul\x00user"
    answer = caller.say(agent, "a\x00b", user=user)
    assert heard(answer) == "a\ufffdb"
    question, _ = served.history(caller.key, "nul\ufffduser", done(answer)["conversationId"])
    assert question.text == "a\ufffdb"


@pytest.mark.parametrize(
    "user", ["x", " x", "飞书|ou_7d8a6e", "🙂", "a\nb", "x" * 255, "用" * 255, "1", "null", "../.."]
)
@shows(requirements.open_id_is_any_text, requirements.unknown_users_are_registered)
def test_an_open_id_is_any_text(served: Served, caller: Caller, agent: Agent, user: str) -> None:
    answer = caller.say(agent, user=user)
    assert len(served.history(caller.key, user, done(answer)["conversationId"])) == 2


@shows(requirements.open_id_has_a_length)
def test_an_open_id_of_more_than_255_characters_is_refused(caller: Caller, agent: Agent) -> None:
    refused(caller.say(agent, user="x" * 256), "参数格式错误: openId")


@shows(requirements.last_member_counts)
def test_of_a_repeated_member_the_last_one_counts(caller: Caller, agent: Agent) -> None:
    body = f'{{"content":1,"agentId":999,"openId":"u","content":"first","content":"last","agentId":{agent.id}}}'
    assert heard(caller.post(body.encode())) == "last"
    body = f'{{"agentId":{agent.id},"openId":"u","content":"first","content":null}}'
    refused(caller.post(body.encode()), MISSING)


# The agent ----------------------------------------------------------------------------------------------------------


@shows(requirements.n5, requirements.unknown_agent, requirements.envelope_is_one_line, requirements.null_is_written)
def test_n5_an_agent_that_is_not_there(caller: Caller) -> None:
    answer = caller.say(999)
    refused(answer, NO_AGENT)
    assert answer.body.decode() == (
        '{"code":0,"msg":"智能体不存在或已被禁用","data":null,"status":0,'
        '"message":"智能体不存在或已被禁用","type":"error"}'
    )


@shows(requirements.failures_have_a_type, requirements.every_line_has_a_type)
def test_a_refusal_is_a_line_with_a_type(caller: Caller) -> None:
    members = caller.say(999).json()
    assert list(members) == ["code", "msg", "data", "status", "message", "type"]
    assert (members["type"], members["code"], members["status"], members["data"]) == ("error", 0, 0, None)
    assert members["msg"] == members["message"]


@shows(requirements.unknown_agent)
def test_a_disabled_agent_is_not_there_until_it_is_enabled(served: Served, caller: Caller) -> None:
    agent = served.agent("yes", enabled=False)
    refused(caller.say(agent), NO_AGENT)
    served.agent("yes", name=agent.name)
    assert done(caller.say(agent))["fullText"] == "yes"


@shows(requirements.foreign_agent)
def test_an_agent_of_another_application_is_not_there(served: Served, caller: Caller) -> None:
    theirs = served.agent("yes", application="elsewhere")
    refused(caller.say(theirs), NO_AGENT)


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**400, -(10**400)])
@shows(requirements.numbers_that_name_nothing)
def test_any_other_number_names_no_agent(caller: Caller, number: int) -> None:
    refused(caller.say(number), NO_AGENT)
    if abs(number) < 10**40:
        refused(caller.post(caller.members(0) | {"agentId": str(number)}), NO_AGENT)


@pytest.mark.parametrize("written", ['"{}"', '" {} "', "{}.0", "{}e0", '"00{}"'])
@shows(requirements.digits_are_numbers, requirements.whole_floats_are_numbers, requirements.agent_id_is_a_number)
def test_a_number_may_be_written_in_other_ways(caller: Caller, agent: Agent, written: str) -> None:
    body = f'{{"agentId":{written.format(agent.id)},"openId":"u","content":"hi"}}'
    assert heard(caller.post(body.encode())) == "hi"


@pytest.mark.parametrize(
    "value", [1.5, 1e-9, True, False, [], [1], {}, {"id": 1}, "one", "1.0", "0x1", "+1", "１", "1 2"]
)
@shows(requirements.wrong_type, requirements.agent_id_is_a_number)
def test_an_agent_id_that_is_no_number_is_a_wrong_type(caller: Caller, value: Any) -> None:
    refused(caller.post(caller.members(1) | {"agentId": value}), "参数格式错误: agentId")


@shows(requirements.agents_setting)
def test_a_credential_may_use_the_agents_it_names_and_no_other(served: Served, agent: Agent) -> None:
    mine = served.agent("mine", alias=(served.new_name("alias"),))
    for name in (str(mine.id), mine.uid.hex, str(mine.uid), mine.name, mine.spec.alias[0]):
        caller = Caller(served, served.key("snail", agents=["something", name]))
        assert done(caller.say(mine))["fullText"] == "mine"
        refused(caller.say(agent), NO_AGENT)
    refused(Caller(served, served.key("snail", agents=[])).say(mine), NO_AGENT)


# Missing members and wrong types ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["content", "agentId"])
@shows(requirements.n6, requirements.missing_members, requirements.blank_is_missing)
def test_n6_without_agent_or_content(caller: Caller, agent: Agent, name: str) -> None:
    members = caller.members(agent)
    refused(caller.post(without(members, name)), MISSING)
    for blank in (None, "", " ", "\t\r\n", "\u3000\u00a0"):
        refused(caller.post(members | {name: blank}), MISSING)


@shows(requirements.n7, requirements.open_id_is_missing, requirements.open_id_is_required)
def test_n7_without_user(caller: Caller, agent: Agent) -> None:
    members = caller.members(agent)
    refused(caller.post(without(members, "openId")), NO_USER)
    for blank in (None, "", " ", "\t\n"):
        refused(caller.post(members | {"openId": blank}), NO_USER)


@pytest.mark.parametrize("name", ["openId", "content", "conversationId"])
@pytest.mark.parametrize("value", [1, 0, 1.5, True, False, [], ["x"], {}, {"x": 1}])
@shows(requirements.wrong_type)
def test_a_text_that_is_none_is_a_wrong_type(caller: Caller, agent: Agent, name: str, value: Any) -> None:
    refused(caller.post(caller.members(agent) | {name: value}), f"参数格式错误: {name}")


@pytest.mark.parametrize("name", ["disabledMcpServerIds", "disabledSkillIds"])
@pytest.mark.parametrize("value", [3, "3", True, {}, [1.5], [True], ["x"], [[3]], [None], [3, {}]])
@shows(requirements.wrong_type)
def test_a_list_of_numbers_that_is_none_is_a_wrong_type(caller: Caller, agent: Agent, name: str, value: Any) -> None:
    refused(caller.post(caller.members(agent) | {name: value}), f"参数格式错误: {name}")


@shows(requirements.rows_are_in_order, requirements.fields_before_agent)
def test_fields_are_checked_in_their_order_and_before_the_agent(caller: Caller) -> None:
    refused(caller.post({}), MISSING)
    refused(caller.post({"agentId": 999}), MISSING)
    refused(caller.post({"content": "hi"}), MISSING)
    refused(caller.post({"openId": "u", "content": " "}), MISSING)
    refused(caller.post({"agentId": 999, "content": "hi"}), NO_USER)
    refused(caller.post({"agentId": 999, "content": "hi", "conversationId": "x" * 129}), NO_USER)
    refused(caller.say(999, conversationId="x" * 129), "参数格式错误: conversationId")


@shows(requirements.types_come_first)
def test_a_wrong_type_is_reported_before_a_missing_member(caller: Caller) -> None:
    refused(caller.post({"conversationId": 1}), "参数格式错误: conversationId")
    refused(caller.post({"content": 1, "openId": 2, "agentId": []}), "参数格式错误: agentId")
    refused(caller.post({"content": 1, "openId": 2}), "参数格式错误: openId")


# The body -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t "])
@shows(requirements.empty_body, requirements.no_json_object)
def test_an_empty_body_is_no_object(caller: Caller, body: bytes) -> None:
    refused(caller.post(body), NO_JSON)


@pytest.mark.parametrize(
    "body", [b"{", b"}", b"[]", b'"hi"', b"null", b"1", b"{'a':1}", b"{}{}", b"a=b", b"\x00", b"{,}"]
)
@shows(requirements.no_json_object)
def test_a_body_that_is_no_object_is_malformed(caller: Caller, body: bytes) -> None:
    refused(caller.post(body), NO_JSON)


@pytest.mark.parametrize(
    "content", [b"\xff", b"\xc0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xe7\x94", "é".encode("latin-1")]
)
@shows(requirements.utf8)
def test_invalid_utf_8_is_malformed(caller: Caller, agent: Agent, content: bytes) -> None:
    body = json.dumps(caller.members(agent, "CONTENT")).encode().replace(b"CONTENT", content)
    refused(caller.post(body), NO_JSON)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@shows(requirements.byte_order_mark, requirements.utf8)
def test_a_byte_order_mark_and_other_encodings_are_malformed(caller: Caller, agent: Agent, encoding: str) -> None:
    refused(caller.post(json.dumps(caller.members(agent)).encode(encoding)), NO_JSON)


@pytest.mark.parametrize("name", ["content", "openId", "conversationId", "x"])
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude00\ud83d", "\ud83d\n\n"])
@shows(requirements.lone_surrogates)
def test_a_lone_surrogate_is_malformed_wherever_it_stands(caller: Caller, agent: Agent, name: str, text: str) -> None:
    refused(caller.post(caller.members(agent) | {name: text}), NO_JSON)
    refused(caller.post(caller.members(agent) | {text: name}), NO_JSON)


@shows(requirements.lone_surrogates)
def test_a_whole_pair_is_a_character(caller: Caller, agent: Agent) -> None:
    body = json.dumps(caller.members(agent, "🙂"), ensure_ascii=True).encode()
    assert b"\\ud83d\\ude42" in body
    assert heard(caller.post(body)) == "🙂"


@pytest.mark.parametrize(("before", "after"), [("[", "]"), ('{"a":', "}")])
@shows(requirements.depth)
def test_sixty_four_levels_are_read_and_sixty_five_are_not(
    caller: Caller, agent: Agent, before: str, after: str
) -> None:
    def body(levels: int) -> bytes:
        inside = before * (levels - 1) + "1" + after * (levels - 1)
        return json.dumps(caller.members(agent, x="INSIDE")).replace('"INSIDE"', inside).encode()

    assert heard(caller.post(body(64))) == "hi"
    for levels in (65, 66, 1000, 100_000):
        refused(caller.post(body(levels)), NO_JSON)


@shows(requirements.many_members)
def test_twenty_thousand_members_are_read_and_no_more(caller: Caller, agent: Agent) -> None:
    assert heard(caller.post(caller.members(agent, x=[[]] * 19_990))) == "hi"
    refused(caller.post(caller.members(agent, x=[[]] * 20_001)), NO_JSON)


# The size -----------------------------------------------------------------------------------------------------------


def padded(caller: Caller, agent: Agent, size: int) -> bytes:
    """A good body of exactly that many bytes."""
    bare = json.dumps(caller.members(agent, pad=""))
    return bare.replace('"pad": ""', '"pad": "' + "x" * (size - len(bare)) + '"').encode()


@shows(requirements.size_limit)
def test_a_body_of_exactly_the_limit_is_read(served: Served, caller: Caller, agent: Agent) -> None:
    body = padded(caller, agent, served.settings.max_body_bytes)
    assert len(body) == 1_048_576
    assert heard(caller.post(body)) == "hi"


@pytest.mark.parametrize("more", [1, 1_048_576])
@shows(requirements.body_too_large, requirements.size_is_declared)
def test_a_body_over_the_limit_is_refused(served: Served, caller: Caller, agent: Agent, more: int) -> None:
    body = padded(caller, agent, served.settings.max_body_bytes + more)
    refused(caller.post(body), TOO_LARGE, http=413)


@shows(requirements.size_is_declared)
def test_a_length_over_the_limit_is_refused_before_anything_comes(served: Served, caller: Caller) -> None:
    ask = Ask(path=CHAT, headers=[("Content-Length", "1048577"), ("Snail-Ai-Auth", caller.key.secret)], pieces=())
    refused(served.ask(ask), TOO_LARGE, http=413)


@shows(requirements.size_is_counted)
def test_a_body_without_a_length_is_counted_while_it_comes(served: Served, caller: Caller, agent: Agent) -> None:
    limit = served.settings.max_body_bytes
    headers = [("Snail-Ai-Auth", caller.key.secret)]
    for size, fits in ((limit, True), (limit + 1, False), (2 * limit, False)):
        body = padded(caller, agent, size)
        pieces = [body[at : at + 100_000] for at in range(0, size, 100_000)]
        answer = served.ask(Ask(path=CHAT, headers=headers, pieces=pieces))
        if fits:
            assert heard(answer) == "hi"
        else:
            refused(answer, TOO_LARGE, http=413)


@shows(requirements.size_is_declared, requirements.size_is_counted)
def test_two_mebibytes_on_a_socket_are_refused_and_the_server_goes_on(
    served: Served, caller: Caller, agent: Agent
) -> None:
    body = padded(caller, agent, 2 * 1_048_576)
    pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    headers = [("Snail-Ai-Auth", caller.key.secret)]
    for ask in (Ask(path=CHAT, headers=headers, body=body), Ask(path=CHAT, headers=headers, pieces=pieces)):
        with served.connection() as connection:
            connection.send(ask)
            answer = connection.answer()
            assert (answer.status, answer.body) == (413, envelope(TOO_LARGE))
            connection.send(caller.request(caller.members(agent)))
            assert heard(connection.answer()) == "hi"


# Paths and methods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/snail-ai/",
        "/snail-ai/x",
        "/snail-ai/open-api",
        "/snail-ai/open-api/",
        "/snail-ai/open-api/chat/",
        "/snail-ai/open-api/chat/1",
        "/snail-ai/open-api/Chat",
        "/snail-ai/open-api//chat",
        "/snail-ai/open-api/chat;x=1",
        "/snail-ai/open-api/rag/../chat",
    ],
)
@shows(requirements.unknown_path, requirements.route_is_first)
def test_a_path_there_is_not_needs_no_credential(served: Served, path: str) -> None:
    refused(served.ask(Ask(path=path, body=b"x" * 2_000_000)), "接口不存在", http=404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE"])
@shows(requirements.wrong_method, requirements.route_is_first)
def test_a_method_there_is_not_needs_no_credential(served: Served, method: str) -> None:
    answer = served.ask(Ask(method=method, path=CHAT, body=b"x" * 2_000_000))
    refused(answer, "请求方法不支持", http=405)
    assert answer.header("Allow") == "POST, OPTIONS"


@shows(requirements.wrong_method)
def test_head_is_refused_like_get_without_a_body(served: Served) -> None:
    with served.connection() as connection:
        connection.send(Ask(method="HEAD", path=CHAT))
        assert connection.answer(bodiless=True).status == 405
        connection.send(Ask(method="GET", path=CHAT))
        assert connection.answer().status == 405


# The order of checks ------------------------------------------------------------------------------------------------


@shows(requirements.size_before_credential, requirements.credential_before_json)
def test_size_then_credential_then_json(served: Served, caller: Caller) -> None:
    stranger = Caller(served, caller.key)
    stranger.auth = None
    refused(stranger.post(b"{" * 1_048_577), TOO_LARGE, http=413)
    refused(stranger.post(b"{"), "缺少认证信息，请提供 Snail-Ai-Auth", status=5001)
    stranger.auth = "wrong"
    refused(stranger.post(b"{"), "Token 验证失败", status=5001)
    refused(caller.post(b"{"), NO_JSON)


@shows(requirements.agent_before_idempotency)
def test_fields_and_agent_are_checked_before_the_idempotency_key(caller: Caller, agent: Agent) -> None:
    malformed = {"Idempotency-Key": "a b"}
    refused(caller.post(b"[]", headers=malformed), NO_JSON)
    refused(caller.post({}, headers=malformed), MISSING)
    refused(caller.post(without(caller.members(agent), "openId"), headers=malformed), NO_USER)
    refused(caller.say(999, headers=malformed), NO_AGENT)
    refused(caller.say(agent, headers=malformed), "Idempotency-Key 格式错误")


# Browsers -----------------------------------------------------------------------------------------------------------

EXPOSED = "X-Conversation-Id, X-Chat-Id, X-Session-Id, X-Request-ID, Idempotency-Replayed"


@shows(requirements.cors_echoes)
def test_every_answer_may_be_read_by_the_page_that_asked(served: Served, caller: Caller, agent: Agent) -> None:
    origin = {"Origin": "https://shop.example"}
    for answer in (
        caller.say(agent, headers=origin),
        caller.say(999, headers=origin),
        caller.post(b"x" * 1_048_577, headers=origin),
        served.ask(Ask(method="GET", path=CHAT, headers=list(origin.items()))),
    ):
        assert answer.header("Access-Control-Allow-Origin") == "https://shop.example"
        assert answer.header("Access-Control-Allow-Credentials") == "true"
        assert answer.header("Access-Control-Expose-Headers") == EXPOSED
        assert answer.header("Vary") == "Origin"


@shows(requirements.cors_echoes)
def test_without_an_origin_nothing_is_said_about_it(caller: Caller, agent: Agent) -> None:
    assert not [name for name, _ in caller.say(agent).headers if name.lower().startswith("access-control-")]


@shows(requirements.cors_preflight)
def test_a_preflight_is_answered_without_a_credential(served: Served) -> None:
    headers = [
        ("Origin", "null"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type, snail-ai-auth, x-anything"),
    ]
    answer = served.ask(Ask(method="OPTIONS", path=CHAT, headers=headers))
    assert answer.status == 204
    assert answer.body == b""
    assert answer.header("Access-Control-Allow-Origin") == "null"
    assert answer.header("Access-Control-Allow-Credentials") == "true"
    assert answer.header("Access-Control-Allow-Methods") == "HEAD, GET, POST, PUT, DELETE, OPTIONS"
    assert answer.header("Access-Control-Allow-Headers") == "content-type, snail-ai-auth, x-anything"


# Whatever happens ---------------------------------------------------------------------------------------------------


@shows(requirements.no_header, requirements.n8)
def test_n8_without_the_header(caller: Caller, agent: Agent) -> None:
    body = json.dumps(caller.members(agent, user=USER)).encode()
    answer = caller.served.ask(Ask(path=CHAT, body=body))
    refused(answer, "缺少认证信息，请提供 Snail-Ai-Auth", status=5001)


@shows(requirements.size_is_declared)
def test_who_asks_before_sending_too_much_is_told_at_once(served: Served, caller: Caller, agent: Agent) -> None:
    headers = [("Snail-Ai-Auth", caller.key.secret), ("Expect", "100-continue")]
    with served.connection() as connection:
        connection.send(Ask(path=CHAT, headers=[*headers, ("Content-Length", "2097152")]))
        answer = connection.answer()
        assert (answer.status, answer.body) == (413, envelope(TOO_LARGE))
    body = json.dumps(caller.members(agent)).encode()
    with served.connection() as connection:
        connection.send(Ask(path=CHAT, headers=[*headers, ("Content-Length", str(len(body)))]))
        assert connection.head().status == 100
        connection.send_raw(body)
        assert heard(connection.answer()) == "hi"


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@shows(requirements.upgrades_are_passed_over)
def test_an_offer_to_upgrade_the_connection_is_passed_over(
    served: Served, caller: Caller, agent: Agent, protocol: str
) -> None:
    ask = caller.request(caller.members(agent))
    offer = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", protocol), ("HTTP2-Settings", "AAEAAEAAAAIAAAAB")]
    with served.connection() as connection:
        connection.send(Ask(path=ask.path, headers=[*offer, *ask.headers], body=ask.body))
        assert heard(connection.answer()) == "hi"
