"""Messages: how they are sent, and the forms in which their answers come."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from dialects.native.client import EVENTS, LATER, ROOT, Caller, Document, folded, frames, good, heard, problem
from support.http_clients import Answer
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.native import requirements

SETTINGS = {"max_waiting_turns": 1}


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("turn ${turn}: ${content}")


def sending(caller: Caller, agent: Agent, **more: str) -> Answer:
    return caller.ask("POST", "messages", {"agent": agent.id, "content": "hi"}, headers=more)


@shows(requirements.begin, requirements.documents, requirements.answer_state)
def test_a_first_message_is_answered_as_a_whole(caller: Caller, agent: Agent) -> None:
    answer = sending(caller, agent)
    document = good(answer)
    place, question, reply = document["conversation"], document["question"], document["answer"]
    assert list(document) == ["conversation", "question", "answer"]
    assert list(place) == ["id", "uid"]
    assert list(question) == ["role", "id", "uid", "conversation", "created", "text", "parts"]
    assert list(reply) == [
        *list(question),
        *("status", "reason", "problem", "usage", "steps", "position", "cursor", "ended"),
    ]
    assert (question["role"], question["text"], question["conversation"]) == ("user", "hi", place["uid"])
    assert question["parts"] == [{"type": "text", "text": "hi"}]
    assert reply["parts"] == [{"type": "text", "text": "turn 1: hi"}]
    assert (reply["status"], reply["reason"], reply["problem"]) == ("complete", "stop", None)
    assert reply["steps"] == {"begun": 0, "done": 0}
    assert (reply["position"], reply["cursor"]) == (10, 12)
    assert answer.header("Location") == f"{ROOT}/runs/{reply['uid']}"
    assert caller.run(reply["uid"]) == reply
    assert caller.messages(place["id"]) == [question, reply]


@shows(requirements.go_on)
def test_a_conversation_goes_on(served: Served, caller: Caller, agent: Agent) -> None:
    begun = caller.begin(agent)
    turn = caller.say(begun["conversation"]["id"], "and?")
    assert turn["conversation"] == begun["conversation"]
    assert turn["answer"]["text"] == "turn 2: and?"
    problem(caller.ask("POST", "conversations/nobody/messages", {"content": "hi"}), 404, "not_found")
    gone = served.agent("x", name="soon-off")
    there = caller.begin(gone)["conversation"]["uid"]
    served.agent("x", name="soon-off", enabled=False)
    answer = caller.ask("POST", f"conversations/{there}/messages", {"content": "hi"})
    problem(answer, 404, "not_found", noun="agent")
    assert len(caller.messages(there)) == 2


@shows(requirements.variables)
def test_variables_stay_with_the_conversation_and_a_messages_own_come_first(served: Served, caller: Caller) -> None:
    agent = served.agent(instructions='[{"text": "{{guest}} of {{room}}"}]', model="scripted")
    begun = caller.begin(agent, variables={"guest": "Bo", "room": 7})
    place = begun["conversation"]["uid"]
    assert begun["answer"]["text"] == "Bo of 7"
    assert caller.say(place, variables={"guest": "Al"})["answer"]["text"] == "Al of 7"
    assert caller.say(place)["answer"]["text"] == "Bo of 7"
    assert good(caller.get(f"conversations/{place}"))["variables"] == {"guest": "Bo", "room": 7}


@shows(requirements.content, requirements.attached, requirements.parts)
def test_files_are_attached_by_key_and_by_address(caller: Caller, agent: Agent) -> None:
    menu = good(
        caller.ask("POST", "files", b"soup", query="name=menu.txt", headers={"Content-Type": "text/plain"}), 201
    )
    address = "https://files.example/a%20b/%E5%9B%BE.png?x=1"
    question = caller.begin(agent, content="", files=[menu["key"], address])["question"]
    assert question["text"] == ""
    assert question["parts"] == [
        {"type": "file", "file": menu["key"], "name": "menu.txt", "media_type": "text/plain"},
        {"type": "file", "file": address, "name": "图.png", "media_type": ""},
    ]
    body = {"agent": agent.id, "content": "x", "files": ["nobody's"]}
    problem(caller.ask("POST", "messages", body), 404, "not_found", noun="file")
    body = {"agent": agent.id, "content": "x", "files": ["https://[x/"]}
    problem(caller.ask("POST", "messages", body), 400, "invalid", field="files", rule="type")


@shows(requirements.unread, requirements.parts)
def test_an_answer_says_which_of_the_question_s_files_were_not_read(served: Served, caller: Caller) -> None:
    def upload(name: str, content: bytes) -> str:
        headers = {"Content-Type": "text/html"}
        return good(caller.ask("POST", "files", content, query=f"name={name}", headers=headers), 201)["key"]

    deep, fine = upload("deep.html", b"<div>" * 600), upload("fine.html", b"<p>fine")
    turn = caller.begin(served.agent("ok"), files=[deep, fine])
    assert [part for part in turn["question"]["parts"] if "problem" in part] == []
    unread = {"type": "file", "file": deep, "name": "deep.html", "media_type": "text/html"}
    unread["problem"] = "too deeply nested (more than 512 levels)"
    assert turn["answer"]["parts"] == [unread, {"type": "text", "text": "ok"}]
    assert turn["answer"]["text"] == "ok"
    place = turn["conversation"]["uid"]
    assert caller.say(place)["answer"]["parts"] == [{"type": "text", "text": "ok"}]
    body = {"content": "", "files": [deep]}
    streamed = heard(caller.ask("POST", f"conversations/{place}/messages", body, headers=EVENTS))
    assert folded(streamed) == [unread, {"type": "text", "text": "ok"}]


@shows(requirements.failed_run, requirements.parts)
def test_a_message_whose_run_fails_was_accepted(served: Served, caller: Caller) -> None:
    call = {"name": "weather", "arguments": {"city": "Xi'an"}}
    answer = caller.begin(served.agent({"think": "hm"}, "so far", {"call": call}, {"fail": "cut"}))["answer"]
    assert (answer["status"], answer["reason"], answer["text"]) == ("failed", "error", "so far")
    assert answer["problem"] == {
        "type": "/palaver/v1/problems#upstream",
        "title": "Model failed",
        "status": 502,
        "detail": "the model's endpoint failed, reason says how",
        "code": "upstream",
        "reason": "cut",
    }
    assert answer["steps"] == {"begun": 1, "done": 1}
    assert [part["type"] for part in answer["parts"]] == ["thinking", "text", "tool_call", "tool_result"]
    tool_call, tool_result = answer["parts"][2:]
    assert list(tool_call) == ["type", "call_id", "name", "arguments", "at"]
    assert list(tool_result) == ["type", "call_id", "name", "content", "data", "error", "at"]
    assert (tool_result["call_id"], tool_result["error"]) == (tool_call["call_id"], True)


@shows(requirements.streamed)
@pytest.mark.parametrize(
    ("accept", "member", "events"),
    [
        ("text/event-stream", None, True),
        ("application/json, Text/Event-Stream;q=0.9", None, True),
        ("*/*", None, False),
        ("application/json", True, True),
        ("text/event-stream", False, False),
    ],
)
def test_accept_or_the_body_asks_for_events(
    caller: Caller, agent: Agent, accept: str, member: bool | None, events: bool
) -> None:
    body = {"agent": agent.id, "content": "hi", "stream": member}
    answer = caller.ask("POST", "messages", body, headers={"Accept": accept})
    if not events:
        assert good(answer)["answer"]["text"] == "turn 1: hi"
        return
    first, *rest = heard(answer)
    sent = first.data
    assert (first.name, first.id) == ("run.created", 0)
    assert answer.header("Location") == f"{ROOT}/runs/{sent['answer']['uid']}"
    assert (sent["answer"]["status"], sent["answer"]["parts"], sent["answer"]["cursor"]) == ("live", [], 0)
    assert folded(rest) == [{"type": "text", "text": "turn 1: hi"}]
    whole = caller.run(sent["answer"]["uid"])
    assert rest[-1].id == whole["cursor"]
    assert rest[-1].data == {name: whole[name] for name in ("status", "reason", "problem", "usage", "ended")}


@shows(requirements.respond_async)
def test_who_does_not_want_to_wait_is_told_where_the_answer_will_be(served: Served, caller: Caller) -> None:
    agent = served.agent("so far", HOLD)
    for prefer, applied in (
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ('foo; bar, Respond-Async, wait="0"', "respond-async, wait=0"),
    ):
        answer = sending(caller, agent, Prefer=prefer)
        answer_document = good(answer, 202)["answer"]
        assert answer.header("Preference-Applied") == applied
        assert answer.header("Location") == f"{ROOT}/runs/{answer_document['uid']}"
        assert (answer_document["status"], answer_document["ended"], answer_document["reason"]) == ("live", None, None)
        good(caller.ask("POST", f"runs/{answer_document['uid']}/stop"))
    answer = sending(caller, served.agent("soon"), Prefer="respond-async, wait=999999999")
    assert good(answer)["answer"]["text"] == "soon"
    assert answer.header("Preference-Applied") == "respond-async, wait=300"


@shows(requirements.turns, requirements.sent_at_once)
def test_a_waiting_message_is_named_at_once_and_above_the_limit_refused(served: Served, caller: Caller) -> None:
    first = good(sending(caller, served.agent("turn ${turn}", HOLD), **LATER), 202)
    path = f"conversations/{first['conversation']['uid']}/messages"
    second = served.exchange(caller.request("POST", path, {"content": "2"}, headers=EVENTS))
    second.head()
    (sent,) = frames([second.write() or b""])
    assert (sent.name, sent.data["answer"]["status"]) == ("run.created", "waiting")
    answer = caller.ask("POST", path, {"content": "3"})
    assert problem(answer, 429, "busy")["retry_after"] == 1
    assert answer.header("Retry-After") == "1"
    for run in (first, sent.data):
        good(caller.ask("POST", f"runs/{run['answer']['uid']}/stop"))
    assert frames(second.rest())[-1].data["status"] == "stopped"
    assert len(caller.messages(first["conversation"]["uid"])) == 4


# Files --------------------------------------------------------------------------------------------------------------


def uploaded(caller: Caller, content: bytes, **headers: str) -> Document:
    return good(caller.ask("POST", "files", content, query=f"name={quote('菜单 1.txt')}", headers=headers), 201)


@shows(requirements.upload, requirements.download, requirements.documents)
def test_a_file_is_kept_and_handed_out(served: Served, caller: Caller) -> None:
    content = bytes(range(256)) * 10
    file = uploaded(caller, content, **{"Content-Type": "text/html; charset=utf-8"})
    assert list(file) == ["id", "uid", "key", "name", "media_type", "size", "created"]
    assert (file["name"], file["media_type"], file["size"]) == ("菜单 1.txt", "text/html; charset=utf-8", 2560)
    answer = caller.get(f"files/{file['key']}")
    assert (answer.status, answer.body) == (200, content)
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    assert answer.header("Content-Disposition") == f"attachment; filename*=UTF-8''{quote('菜单 1.txt')}"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    problem(Caller(served, caller.key, user="bob").get(f"files/{file['key']}"), 404, "not_found", noun="file")


@shows(requirements.upload, requirements.upload_rules)
def test_a_file_has_bytes_a_name_and_a_type(caller: Caller) -> None:
    plain = good(caller.ask("POST", "files", b"x", headers={"Content-Type": "no type"}), 201)
    assert (plain["name"], plain["media_type"]) == ("file", "application/octet-stream")
    problem(caller.ask("POST", "files", b""), 400, "invalid", field="file", rule="required")
    answer = caller.ask("POST", "files", b"x", query=f"name={'x' * 256}")
    problem(answer, 400, "invalid", field="name", rule="length")


# The same call again ------------------------------------------------------------------------------------------------


@shows(requirements.replay_whole)
def test_a_repeated_call_is_answered_byte_for_byte(served: Served, caller: Caller, agent: Agent) -> None:
    place = caller.begin(agent)["conversation"]["uid"]
    for path, body in (
        ("messages", {"agent": agent.id, "content": "hi 🙂"}),
        (f"conversations/{place}/messages", {"content": "hi"}),
        ("conversations", {"agent": agent.id}),
        ("files", b"soup"),
    ):
        key = {"Idempotency-Key": served.new_name("key")}
        first, *others = (caller.ask("POST", path, body, headers=key) for _ in range(3))
        assert first.status in {200, 201}
        assert first.header("Idempotency-Replayed") is None
        for again in others:
            assert (again.status, again.body) == (first.status, first.body)
            assert again.header("Idempotency-Replayed") == "true"
            assert again.header("Location") == first.header("Location")
    assert len(caller.messages(place)) == 4


@shows(requirements.replay_stream, requirements.replay_in_another_form)
def test_a_repeated_call_may_ask_for_another_form(served: Served, caller: Caller, agent: Agent) -> None:
    key = {"Idempotency-Key": served.new_name("key")}
    streamed = sending(caller, agent, **key, **EVENTS)
    again = sending(caller, agent, **key, **EVENTS)
    whole = good(sending(caller, agent, **key))
    later = sending(caller, agent, **key, **LATER)
    assert again.header("Idempotency-Replayed") == later.header("Idempotency-Replayed") == "true"
    assert heard(streamed)[0] == heard(again)[0]
    assert folded(heard(streamed)) == folded(heard(again)) == whole["answer"]["parts"]
    assert good(later) == whole


@shows(requirements.replay_stream)
def test_a_repeated_call_follows_the_run_that_lives(served: Served, caller: Caller) -> None:
    agent, key = served.agent("so far", HOLD), served.new_name("key")
    first, second = (caller.stream(agent, **{"Idempotency-Key": key}) for _ in range(2))
    replayed = [exchange.head().header("Idempotency-Replayed") for exchange in (first, second)]
    assert sorted(map(str, replayed)) == ["None", "true"]
    begun = [[exchange.write() for _ in range(3)] for exchange in (first, second)]
    assert begun[0] == begun[1]
    (sent, *_) = frames([one for one in begun[0] if one is not None])
    good(caller.ask("POST", f"runs/{sent.data['answer']['uid']}/stop"))
    assert frames(first.rest()) == frames(second.rest())


@shows(requirements.idempotency_conflict)
def test_a_key_is_good_for_one_body(served: Served, caller: Caller, agent: Agent) -> None:
    key = {"Idempotency-Key": served.new_name("key")}
    good(sending(caller, agent, **key))
    answer = caller.ask("POST", "messages", {"agent": agent.id, "content": "else"}, headers=key)
    problem(answer, 422, "idempotency_conflict")
    blank = {"Idempotency-Key": "a b"}
    problem(sending(caller, agent, **blank), 400, "invalid", field="Idempotency-Key", rule="range")
