"""Surface B: messages and their answers, streamed and whole."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from dialects.snail.client import frames
from dialects.snail.client_b import CHAT, CONVERSATIONS, EVENTS, MESSAGES, SYNC, B, Caller, good, refused_on_b, spoken
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent, Variable
from palaver.dialects.snail import chat, requirements_b

NO_AGENT = "智能体不存在或已被禁用"
SID = "5c0d7f5e-7a40-4b0e-8d0a-3b6a1f2e9c11"
BOTH = pytest.mark.parametrize("path", [CHAT, SYNC])


@pytest.fixture(scope="module")
def program(served: Served) -> Caller:
    return Caller(served)


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"think": "look it up"}, "You said: ${content}")


@pytest.fixture
def ann(served: Served, program: Caller) -> str:
    """A user whom no other test knows."""
    return program.register(served.new_name("ann"))


def error(message: str, status: int = 0) -> list[tuple[str, dict[str, Any]]]:
    return [("error", {"message": message, "code": 0, "msg": message, "data": None, "status": status})]


# The stream ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [[], [{"fail": "cut"}], [{"finish": "length"}]])
@shows(requirements_b.b_event_names, requirements_b.b_failed_run)
def test_there_are_no_other_events(served: Served, program: Caller, ann: str, end: list[Any]) -> None:
    call = {"call": {"name": "search", "arguments": {"query": "x"}}}
    agent = served.agent({"think": "hm"}, "one", call, {"think": " "}, "two", *end)
    names = [name for name, _ in spoken(program.say(agent, ann))]
    assert set(names) <= {"thinking", "text", "done", "error"}
    assert names[-1] in {"done", "error"}
    assert not {"done", "error"} & set(names[:-1])


@shows(requirements_b.b_types_in_order)
def test_the_first_field_of_a_wrong_type_is_named(program: Caller, ann: str) -> None:
    wrong: dict[str, Any] = {"sid": 1, "content": 1, "openId": [], "agentId": {}}
    for path in (CHAT, SYNC):
        for field in ("agentId", "openId", "content", "sid"):
            refused_on_b(program.post(path, **wrong), f"参数格式错误: {field}")
            wrong[field] = {"agentId": 1, "openId": ann, "content": "hi"}.get(field)
        wrong = {"sid": 1, "content": 1, "openId": [], "agentId": {}}


@shows(requirements_b.b_frames, requirements_b.b_sid)
def test_the_specifications_example_byte_by_byte(served: Served, program: Caller, ann: str) -> None:
    agent = served.agent({"think": "look it up"}, "根据")
    answer = program.say(agent, ann, conversationId="2f1c9d60-6a0e-4f7b-9b7d-0a1b2c3d4e5f", sid=SID)
    assert answer.status == 200
    assert answer.header("Content-Type") == "text/event-stream;charset=UTF-8"
    assert answer.header("X-Conversation-Id") == "2f1c9d60-6a0e-4f7b-9b7d-0a1b2c3d4e5f"
    assert answer.header("Cache-Control") == "no-cache"
    assert answer.complete
    assert answer.writes == [
        b'event:thinking\ndata:{"type":"thinking","sid":"%s","content":"look it up"}\n\n' % SID.encode(),
        b'event:text\ndata:{"type":"text","sid":"%s","content":"\\u6839\\u636e"}\n\n' % SID.encode(),
        b'event:done\ndata:{"conversationId":"2f1c9d60-6a0e-4f7b-9b7d-0a1b2c3d4e5f","fullText":"\\u6839\\u636e"}\n\n',
    ]


@shows(requirements_b.b_sid, requirements_b.b_lengths)
def test_a_sid_is_any_short_text_and_else_a_new_one(program: Caller, agent: Agent, ann: str) -> None:
    odd = '用户"\\\u2028🙂'
    assert {data["sid"] for _, data in spoken(program.say(agent, ann, sid=odd))[:-1]} == {odd}
    made = [{data["sid"] for _, data in spoken(program.say(agent, ann, sid=sid))[:-1]} for sid in (None, "", " ")]
    assert all(len(sids) == 1 for sids in made)
    assert len({str(UUID(sid)) for sids in made for sid in sids}) == 3
    for path in (CHAT, SYNC):
        refused_on_b(program.say(agent, ann, path=path, sid="x" * 256), "参数格式错误: sid")
    refused_on_b(program.post(CHAT, sid="x" * 256), "agentId agentId is required")


@shows(requirements_b.b_frames)
def test_one_byte_at_a_time_and_all_at_once_are_the_same(served: Served, program: Caller, ann: str) -> None:
    agent = served.agent({"pieces": {"of": "一🙂\n\ndata: x\r\u2028", "size": 1}})
    fields = {"agentId": agent.id, "openId": ann, "content": "hi", "conversationId": "cut", "sid": "s"}
    read: list[str] = []
    for at_once in (1, 65_536):
        with served.connection(at_once=at_once) as connection:
            connection.send(program.request("POST", CHAT, fields))
            run_events = spoken(connection.answer())
        read.append("".join(data["content"] for name, data in run_events if name == "text"))
        assert run_events[-1] == ("done", {"conversationId": "cut", "fullText": read[-1]})
    assert read[0] == read[1] == "一🙂\n\ndata: x\r\u2028"


@shows(requirements_b.b_n14, requirements_b.b_off)
def test_n14_the_sdks_body_with_its_nulls(program: Caller, agent: Agent, ann: str) -> None:
    body = (
        f'{{"agentId":{agent.id},"openId":"{ann}","conversationId":"c-9","content":"hi","disabledMcpServerIds":null,'
        '"disabledSkillIds":null,"deepPlanEnabled":null,"webSearchEnabled":null,"sid":null,"timeout":0}'
    )
    run_events = spoken(program.ask("POST", CHAT, body.encode()))
    assert [name for name, _ in run_events] == ["thinking", "text", "done"]
    assert run_events[-1][1] == {"conversationId": "c-9", "fullText": "You said: hi"}


@BOTH
@shows(requirements_b.b_off, requirements_b.b_wrong_type)
def test_what_is_to_be_off_is_taken_and_the_rest_is_ignored(program: Caller, agent: Agent, ann: str, path: str) -> None:
    more: dict[str, Any] = {"deepPlanEnabled": "?", "webSearchEnabled": 7, "timeout": [], "unknown": {}}
    answer = program.say(agent, ann, path=path, disabledMcpServerIds=[3, "4"], disabledSkillIds=[], **more)
    assert b"You said: hi" in answer.body
    refused_on_b(program.say(agent, ann, path=path, disabledSkillIds=["x"]), "参数格式错误: disabledSkillIds")
    refused_on_b(program.say(agent, ann, path=path, disabledMcpServerIds=3), "参数格式错误: disabledMcpServerIds")


@shows(requirements_b.b_failed_run)
def test_a_failed_run_ends_with_an_error_event_and_normally(served: Served, program: Caller, ann: str) -> None:
    agent = served.agent("so far", {"fail": "cut"})
    answer = program.say(agent, ann, sid="s")
    assert spoken(answer) == [("text", {"type": "text", "sid": "s", "content": "so far"}), *error("系统异常")]
    assert answer.writes[-1].startswith(b'event:error\ndata:{"message":"\\u7cfb')


@shows(requirements_b.b_stopped_run)
def test_a_stopped_run_is_done_with_the_text_so_far(served: Served, program: Caller) -> None:
    agent = served.agent("so far", HOLD)
    program.register("stopper")
    fields = {"agentId": agent.id, "openId": "stopper", "content": "go", "conversationId": "halt", "sid": "s"}
    exchange = served.exchange(program.request("POST", CHAT, fields))
    assert exchange.head().header("X-Conversation-Id") == "halt"
    while b"so far" not in (write := exchange.write() or b""):
        assert write == b": ping\n\n"
    served.stop_conversation(program.key, "stopper", "halt")
    last = [write for write in exchange.rest() if write != b": ping\n\n"]
    assert last == [b'event:done\ndata:{"conversationId":"halt","fullText":"so far"}\n\n']
    assert exchange.complete


# Refusals -----------------------------------------------------------------------------------------------------------


@shows(requirements_b.b_n15, requirements_b.b_unknown_open_id)
def test_n15_an_unknown_open_id_is_one_error_frame(program: Caller, agent: Agent) -> None:
    for accept in ("text/event-stream", "application/json, Text/Event-Stream;q=0.9", "text/event-stream, */*"):
        answer = program.say(agent, "nobody", headers={"Accept": accept})
        assert spoken(answer) == error("OpenId 无效: nobody", 5001)
    refused_on_b(program.say(agent, "nobody"), "OpenId 无效: nobody", status=5001)
    refused_on_b(program.say(agent, "nobody", path=SYNC, headers=EVENTS), "OpenId 无效: nobody", status=5001)


@shows(requirements_b.b_refusal_frames, requirements_b.b_auth_in_order)
def test_whatever_goes_wrong_before_the_run_is_a_frame_there(served: Served, agent: Agent) -> None:
    program = Caller(served)
    assert spoken(program.ask("POST", CHAT, b"{", headers=EVENTS)) == error("请求体不是合法的 JSON")
    assert spoken(program.ask("POST", CHAT, {}, headers=EVENTS)) == error("agentId agentId is required")
    program.auth["Snail-Ai-Token"] = "x"
    assert spoken(program.ask("POST", CHAT, {}, headers=EVENTS)) == error("Token 验证失败", 5001)
    program.auth.clear()
    message = "缺少认证信息，请提供 Snail-Ai-App-Id 和 Snail-Ai-Token"
    assert spoken(program.ask("POST", CHAT, {}, headers=EVENTS)) == error(message, 5001)


@BOTH
@shows(requirements_b.b_chat_required, requirements_b.b_field_rules, requirements_b.b_blank_is_absent)
def test_what_a_message_needs(program: Caller, agent: Agent, ann: str, path: str) -> None:
    whole = {"agentId": agent.id, "openId": ann, "content": "hi"}
    for missing in (None, "", " \n"):
        for name in whole:
            refused_on_b(program.post(path, **{**whole, name: missing}), f"{name} {name} is required")
    refused_on_b(program.post(path), "agentId agentId is required")
    refused_on_b(program.post(path, **{**whole, "agentId": "x"}), "参数格式错误: agentId")
    refused_on_b(program.post(path, **{**whole, "content": 7}), "参数格式错误: content")


@BOTH
@shows(requirements_b.b_chat_unknown_agent, requirements_b.b_user_before_agent, requirements_b.b_conversation_id_form)
@shows(requirements_b.b_other_agents_conversation)
def test_agents_and_conversations_that_will_not_do(
    served: Served, program: Caller, agent: Agent, ann: str, path: str
) -> None:
    off, foreign = served.agent("x", enabled=False), served.agent("x", application="somebody-else")
    for number in (off.id, foreign.id, 999_999, 0, -1, 10**30):
        refused_on_b(program.say(number, ann, path=path), NO_AGENT)
    refused_on_b(program.say(999_999, "nobody", path=path), "OpenId 无效: nobody", status=5001)
    for name in ("x" * 129, "a\nb", "a\x85b"):
        refused_on_b(program.say(agent, ann, path=path, conversationId=name), "参数格式错误: conversationId")
    program.say(agent, ann, conversationId="taken")
    other = served.agent("x")
    answer = program.say(other, ann, path=path, conversationId="taken")
    refused_on_b(answer, "conversationId 与 agentId 不匹配")


@shows(requirements_b.b_busy)
def test_too_many_waiting_messages_are_busy(served: Served, program: Caller) -> None:
    agent = served.agent(HOLD)
    program.register("busy")
    fields = {"agentId": agent.id, "openId": "busy", "content": "go", "conversationId": "queue"}
    open_streams = [served.exchange(program.request("POST", CHAT, fields)) for _ in range(5)]
    for stream in open_streams:
        assert stream.head().status == 200
    for path in (CHAT, SYNC):
        refused_on_b(program.post(path, **fields), "会话繁忙，请稍后再试")
    served.stop_conversation(program.key, "busy", "queue")
    for stream in open_streams:
        stream.rest()


# The whole answer ---------------------------------------------------------------------------------------------------


@shows(requirements_b.b_sync)
def test_a_blocking_call_answers_with_the_whole_text(served: Served, program: Caller, ann: str) -> None:
    agent = served.agent({"think": "hm"}, "一\n", {"think": "hm"}, {"wait": 0.05}, {"pieces": {"of": "二三"}})
    answer = program.say(agent, ann, path=SYNC, conversationId="whole")
    data = good(answer)
    assert list(data) == ["conversationId", "content", "durationMs"]
    assert (data["conversationId"], data["content"]) == ("whole", "一\n二三")
    assert 50 <= data["durationMs"] < 10_000
    messages = good(program.get(MESSAGES, agentId=agent.id, openId=ann, conversationId="whole"))
    assert [message["content"] for message in messages] == ["hi", "一\n二三"]
    made = good(program.say(agent, ann, path=SYNC))["conversationId"]
    assert str(UUID(made)) == made


@pytest.mark.parametrize("reason", ["connect", "timeout", "refused", "configuration"])
@shows(requirements_b.b_sync_failed, requirements_b.b_sync_reason)
def test_a_failed_run_is_told_with_its_reason(served: Served, program: Caller, ann: str, reason: str) -> None:
    agent = served.agent("so far", {"fail": reason})
    refused_on_b(program.say(agent, ann, path=SYNC), f"系统异常: {reason}")


@shows(requirements_b.b_sync_time)
def test_who_has_waited_long_enough_is_told_and_the_run_goes_on(
    served: Served, program: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chat.SYNC_TIMEOUT_S == 300
    monkeypatch.setattr(chat, "SYNC_TIMEOUT_S", 0.05)
    agent = served.agent("so far", HOLD)
    program.register("patient")
    refused_on_b(program.say(agent, "patient", path=SYNC, conversationId="long"), "对话超时")
    assert served.stop_conversation(program.key, "patient", "long") == 1


# Idempotency --------------------------------------------------------------------------------------------------------


@shows(requirements_b.b_replayed_stream, requirements_b.b_sid_of_replay)
def test_a_replayed_stream_is_the_same_run_with_the_same_sid(program: Caller, agent: Agent, ann: str) -> None:
    key = {"Idempotency-Key": f"chat-{ann}"}
    first, second = (program.say(agent, ann, headers=key) for _ in range(2))
    assert first.header("Idempotency-Replayed") is None
    assert second.header("Idempotency-Replayed") == "true"
    assert spoken(first) == spoken(second)
    assert len(good(program.get(CONVERSATIONS, agentId=agent.id, openId=ann))) == 1


@shows(requirements_b.b_replayed_answers, requirements_b.b_register_key)
def test_whole_answers_are_given_again_byte_for_byte(program: Caller, agent: Agent, ann: str) -> None:
    key = {"Idempotency-Key": f"answer-{ann}"}
    for path, fields in (
        (SYNC, {"agentId": agent.id, "openId": ann, "content": "hi"}),
        (CONVERSATIONS, {"agentId": agent.id, "openId": ann, "title": "once"}),
        (f"{B}/user/register", {"nickname": "new"}),
    ):
        first, second = (program.ask("POST", path, fields, headers=key) for _ in range(2))
        good(first)
        assert first.body == second.body
        assert first.header("Idempotency-Replayed") is None
        assert second.header("Idempotency-Replayed") == "true"
    assert len(good(program.get(CONVERSATIONS, agentId=agent.id, openId=ann))) == 2
    fresh = {"Idempotency-Key": f"fresh-{ann}"}
    made = program.ask("POST", f"{B}/user/register", {"externalId": f"new-{ann}"}, headers=fresh)
    assert good(made)["created"]


@shows(requirements_b.b_conflict)
def test_a_key_is_for_one_request(program: Caller, agent: Agent, ann: str) -> None:
    message = "Idempotency-Key already used with a different request"
    for path, fields in (
        (CHAT, {"agentId": agent.id, "openId": ann, "content": "hi"}),
        (SYNC, {"agentId": agent.id, "openId": ann, "content": "hi"}),
        (CONVERSATIONS, {"agentId": agent.id, "openId": ann, "title": "once"}),
        (f"{B}/user/register", {"nickname": "new"}),
    ):
        key = {"Idempotency-Key": f"conflict-{ann}"}
        assert program.ask("POST", path, fields, headers=key).status == 200
        refused_on_b(program.ask("POST", path, {**fields, "more": 1}, headers=key), message, http=422)
        for malformed in ("", "a b", "x" * 256):
            answer = program.ask("POST", path, fields, headers={"Idempotency-Key": malformed})
            refused_on_b(answer, "Idempotency-Key 格式错误")
    framed = program.ask(
        "POST",
        CHAT,
        {"agentId": agent.id, "openId": ann, "content": "else"},
        headers={**EVENTS, "Idempotency-Key": f"conflict-{ann}"},
    )
    assert frames(framed.body) == error(message)
    assert json.loads(framed.body.split(b"data:")[1])["status"] == 0


@shows(requirements_b.b_required_variables)
def test_a_variable_that_the_agent_requires_is_named_and_nothing_is_stored(
    served: Served, program: Caller, ann: str
) -> None:
    agent = served.agent("in {{city}}", variables=(Variable(name="city", required=True),))
    before = served.sql("SELECT count(*) AS n FROM message")
    for path in (CHAT, SYNC):
        assert "variables.city" in program.say(agent, ann, path=path).body.decode()
    assert served.sql("SELECT count(*) AS n FROM message") == before
