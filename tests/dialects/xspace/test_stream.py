"""Turns: sending messages, streaming answers, and the stored history."""

from __future__ import annotations

import re
from typing import Any

import pytest
from dialects.xspace.client import USER, Caller, chat_path, data, done, events, frames, joined, refused
from support.http_clients import Exchange
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import File
from palaver.dialects.xspace import requirements

BUSY = "Agent正在执行任务，请等待当前任务完成后再发送新请求"
SORRY = "系统开小差啦，请稍后重试"
SETTINGS: dict[str, Any] = {"max_waiting_turns": 1}
HISTORY = [
    *("index", "tenantId", "senderType", "senderId", "userId", "agentId", "id", "role", "type", "text", "time"),
    *("attachments", "think", "quotedText", "finished", "finishReason", "componentExecutedList", "metadata"),
    "messageType",
]


def first_message(exchange: Exchange) -> None:
    """Read up to the first event that is no heartbeat."""
    while (write := exchange.write()) is not None:
        if b"HEART_BEAT" not in write:
            return
    raise AssertionError("the stream ended")


@shows(
    requirements.event_order,
    requirements.final_result,
    requirements.message_members,
    requirements.history_members,
    requirements.finish_reasons,
)
def test_x18_a_complete_turn(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": "look it up"}, "It is ", "sunny.", {"usage": {"prompt": 31, "completion": 5}})
    conversation = caller.add(agent)
    run_events = events(caller.say(conversation))
    (run,) = {event["requestId"] for event in run_events}
    assert re.fullmatch("[0-9a-f]{32}", run)
    assert {event["data"]["id"] for event in run_events[:-1]} == {run}
    final = run_events[-1]["data"]
    assert final["success"]
    assert (final["outputText"], final["totalTokens"]) == ("It is sunny.", 36)
    assert joined(run_events) == "It is sunny."
    assert joined(run_events, "THINK") == "look it up"
    assert 0 <= final["endTime"] - final["startTime"] < 10_000
    question, answer = caller.messages(conversation)
    assert list(question) == list(answer) == HISTORY
    assert answer["id"] == run
    assert (answer["text"], answer["think"], answer["finishReason"]) == ("It is sunny.", "look it up", "stop")
    assert (answer["role"], answer["messageType"], answer["senderType"]) == ("ASSISTANT", "ASSISTANT", "AGENT")
    assert (answer["senderId"], answer["agentId"]) == (str(agent.id), agent.id)
    assert (question["role"], question["messageType"], question["senderType"]) == ("USER", "USER", "USER")
    assert question["senderId"] == str(question["userId"])
    assert (question["text"], question["think"], question["finishReason"]) == ("hi", None, None)
    assert question["finished"]
    assert answer["finished"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000\+00:00", answer["time"])
    assert question["index"] < answer["index"]


@shows(requirements.rejected_messages, requirements.languages, requirements.rejection_writes)
def test_x19_an_unknown_conversation_is_reported_in_the_stream(served: Served, caller: Caller) -> None:
    theirs = Caller(served, default_user="bob").add(served.agent("x"))
    for ref in (999_999_999, theirs, "x"):
        answer = caller.say(ref)
        assert len(answer.writes) == 2
        assert answer.header("Cache-Control") == "no-cache"
        assert answer.header("X-Accel-Buffering") == "no"
        assert answer.header("Content-Length") is None
        first, second = events(answer)
        assert first["requestId"] is second["requestId"] is None
        assert first["data"]["text"] == second["error"] == "Conversation does not exist."
    chinese = caller.post(chat_path(999), {"message": "x"}, headers={"Accept-Language": "zh-CN"})
    assert events(chinese)[-1]["error"] == "会话不存在"


@shows(requirements.chat_body, requirements.body_errors)
def test_an_invalid_message_is_reported_before_the_stream(caller: Caller) -> None:
    nothing: list[dict[str, Any]] = [{}, {"message": " "}, {"message": None, "attachments": []}, {"attachments": [{}]}]
    for body in nothing:
        refused(caller.post(chat_path(999_999), body), "4000", "message is required")
    for body in (
        b"{",
        b'{"message":{}}',
        b'{"message":"x","attachments":[1]}',
        b'{"message":"x","variableParams":"x"}',
    ):
        assert caller.post(chat_path(999_999), body).json()["message"].startswith("JSON parse error")
    refused(
        caller.post(chat_path(9), {"message": "x"}, headers={"Idempotency-Key": ""}), "4000", "Invalid Idempotency-Key"
    )


@shows(requirements.chat_body, requirements.scalars, requirements.uid_in_paths)
def test_variables_are_passed_to_the_run_and_other_members_are_ignored(served: Served, caller: Caller) -> None:
    agent = served.agent("{{who}}: ${content}")
    conversation = caller.add(agent, variables={"who": "nobody"})
    uid = caller.detail(conversation)["uid"]
    assert joined(events(caller.say(uid))) == "nobody: hi"
    more: dict[str, Any] = {
        "variableParams": {"who": "ann"},
        "conversationId": 5,
        "selectedComponents": [{"id": 1, "type": "Plugin"}],
        "skillIds": [1],
        "modelId": None,
        "debug": True,
        "requestId": "x",
    }
    assert joined(events(caller.post(chat_path(conversation), {"message": 7, **more}))) == "ann: 7"


@shows(requirements.stopped_run, requirements.messages_of_success)
def test_x20_a_stop_ends_the_turn_and_a_second_one_changes_nothing(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent("so far", HOLD, "never"))
    exchange = caller.begin(conversation)
    exchange.head()
    first_message(exchange)
    done(caller.stop(conversation))
    rest = [frames(write)[0] for write in exchange.rest()]
    message, final = [event for event in rest if event["eventType"] != "HEART_BEAT"]
    assert (message["data"]["text"], message["data"]["finishReason"]) == ("", "CANCEL")
    assert (final["error"], final["data"]["success"], final["data"]["outputText"]) == (None, True, "so far")
    done(caller.stop(conversation))
    assert caller.messages(conversation)[-1]["finishReason"] == "CANCEL"


@shows(requirements.queued_turns, requirements.rejected_messages)
def test_messages_are_queued_dropped_by_a_stop_and_limited(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent("x", HOLD))
    running = caller.begin(conversation)
    running.head()
    first_message(running)
    waiting = caller.begin(conversation, "second")
    waiting.head()
    assert frames(waiting.write() or b"")[0]["eventType"] == "HEART_BEAT"
    assert [event["error"] for event in events(caller.say(conversation, "third"))] == [None, BUSY]
    done(caller.stop(conversation))
    running.rest()
    run_events = [event for write in waiting.rest() for event in frames(write) if event["eventType"] != "HEART_BEAT"]
    assert [event["eventType"] for event in run_events] == ["MESSAGE", "FINAL_RESULT"]
    assert (run_events[0]["data"]["finishReason"], run_events[1]["data"]["outputText"]) == ("CANCEL", "")
    assert len(caller.messages(conversation)) == 4


@shows(requirements.unfinished_messages)
def test_a_message_in_progress_is_not_finished(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent(HOLD))
    exchange = caller.begin(conversation)
    exchange.head()
    answer = caller.messages(conversation)[-1]
    assert (answer["finished"], answer["finishReason"]) == (False, None)
    done(caller.stop(conversation))
    exchange.rest()


@shows(requirements.failed_run, requirements.reason_of_failures)
def test_a_failed_turn_ends_properly_and_is_stored(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent({"fail": "connect"}))
    run_events = events(caller.say(conversation))
    fence = f"```\n{SORRY}\n```"
    assert [event["eventType"] for event in run_events] == ["MESSAGE", "FINAL_RESULT"]
    message, final = run_events
    assert (message["data"]["text"], message["data"]["finishReason"]) == (fence, "ERROR")
    assert (final["error"], final["data"]["success"], final["data"]["outputText"]) == (SORRY, False, fence)
    stored = caller.messages(conversation)[-1]
    assert (stored["text"], stored["finishReason"]) == (fence, "ERROR")


@shows(requirements.step_events, requirements.history_members, requirements.history_steps)
def test_a_tool_call_is_a_step_and_is_stored(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent("so", {"call": {"name": "nothing", "arguments": {"q": "x"}}}, "done"))
    run_events = events(caller.say(conversation))
    steps = [event["data"] for event in run_events if event["eventType"] == "PROCESSING"]
    assert [step["status"] for step in steps] == ["EXECUTING", "FAILED"]
    assert steps[0]["result"]["executeId"] == steps[1]["result"]["executeId"]
    stored = caller.messages(conversation)[-1]
    assert stored["componentExecutedList"] == [steps[1]]
    assert stored["text"] == (
        f'so\n\n<div><markdown-custom-process executeId="{steps[0]["result"]["executeId"]}" type="ToolCall"'
        ' status="FAILED" name="nothing"></markdown-custom-process></div>\n\ndone'
    )
    assert run_events[-1]["data"]["outputText"] == "sodone"
    bound = Caller(served, kind="agent", agent=str(stored["agentId"]))
    assert data(bound.get(f"/api/v1/conversation/{conversation}"))["messageList"][-1]["text"] == stored["text"]


@shows(requirements.history_pages)
def test_x21_history_is_paginated_backwards(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent("to ${content}"))
    for number in range(3):
        events(caller.say(conversation, f"m{number}"))
    newest = caller.messages(conversation, "limit=2")
    assert [one["text"] for one in newest] == ["m2", "to m2"]
    before = caller.messages(conversation, f"index={newest[0]['index']}&limit=2")
    assert [one["text"] for one in before] == ["m1", "to m1"]
    assert [one["text"] for one in caller.messages(conversation, "limit=0")] == ["to m2"]
    assert len(caller.messages(conversation, f"limit=999&index={'9' * 19}")) == 6
    assert caller.messages(conversation, "index=-5") == []
    refused(caller.get(f"{chat_path(conversation)}/messages", "limit=x"), "4000", "Invalid value of limit")


@shows(requirements.heartbeats)
def test_heartbeats_are_sent_between_other_events(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent({"repeat": {"text": ".", "times": 200, "every": 0.01}}))
    answer = caller.say(conversation)
    beats = [event for event in frames(answer.body) if event["eventType"] == "HEART_BEAT"]
    assert len(beats) >= 2
    assert joined(events(answer)) == "." * 200


@pytest.mark.parametrize("at_once", [1, 7, 65_536])
@shows(requirements.reader_pace, requirements.ascii_stream, requirements.stream_form)
def test_slow_and_fast_readers_receive_the_same_events(served: Served, caller: Caller, at_once: int) -> None:
    conversation = caller.add(served.agent({"think": "用户"}, {"wait": 0.15}, "${content}", {"wait": 0.01}, "data"))
    ask = caller.request(
        "POST", chat_path(conversation), {"message": "根据🙂\u2028\n\x7f"}, headers={"Accept": "application/json"}
    )
    with served.connection(at_once=at_once) as connection:
        connection.send(ask)
        answer = connection.answer()
    assert answer.header("Transfer-Encoding") == "chunked"
    assert answer.header("Cache-Control") == "no-cache"
    assert all(len(frames(write)) == 1 for write in answer.writes)
    assert all(byte < 0x7F for byte in answer.body)
    assert joined(events(answer)) == "根据🙂\u2028\n\x7fdata"


@shows(requirements.replay, requirements.idempotent_creation, requirements.idempotency_form)
def test_an_equal_message_with_the_same_idempotency_key_is_one_run(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent("a", {"call": {"name": "x"}}, "b"))
    key = {"Idempotency-Key": "k"}
    first = caller.post(chat_path(conversation), {"message": "x"}, headers=key)
    again = caller.post(chat_path(caller.detail(conversation)["uid"]), {"message": "x"}, headers=key)
    assert again.header("Idempotency-Replayed") == "true"
    assert events(first)[-1] == events(again)[-1]
    assert events(first)[0]["requestId"] == events(again)[0]["requestId"]
    assert [event for event in events(first) if event["eventType"] == "PROCESSING"] == [
        event for event in events(again) if event["eventType"] == "PROCESSING"
    ]
    other = caller.post(chat_path(conversation), {"message": "y"}, headers=key)
    refused(other, "4220", "Idempotency-Key already used with a different request")
    assert len(caller.messages(conversation)) == 2


@shows(requirements.chat_body)
def test_attachments_are_stored_with_the_message(served: Served, caller: Caller) -> None:
    conversation = caller.add(served.agent("ok"))
    key = "local/default/20261121/0123456789abcdef0123456789abcdef.txt"
    attachments = [
        {"fileKey": key, "fileUrl": "x", "fileName": "a.txt", "mimeType": "text/plain"},
        {"fileUrl": f"http://test/api/f/{key[:-4]}.md"},
        {"fileUrl": "https://example.org/b.png", "fileName": "b.png", "mimeType": "image/png"},
    ]
    events(caller.post(chat_path(conversation), {"attachments": attachments}))
    question = served.history(caller.key, USER, caller.detail(conversation)["uid"])[0]
    assert [part.ref for part in question.parts if isinstance(part, File)] == [
        key,
        f"{key[:-4]}.md",
        "https://example.org/b.png",
    ]
    attached = caller.messages(conversation)[0]["attachments"]
    assert attached[0] == {
        "fileKey": key,
        "fileUrl": f"http://test/api/f/{key}",
        "fileName": "a.txt",
        "mimeType": "text/plain",
    }
    assert attached[2]["fileKey"] is None
    assert attached[2]["fileUrl"] == "https://example.org/b.png"
    assert data(caller.get(f"{chat_path(conversation)}/files"))["files"][2]["name"] == "b.png"


@shows(requirements.storage_quota)
def test_a_reached_quota_is_reported(served: Served, caller: Caller) -> None:
    agent = served.agent("so be it")
    with served.full("conversations"):
        refused(caller.post("/api/v1/chat/conversation/add", {"agentId": agent.id}), "4290", "Storage quota exceeded.")
