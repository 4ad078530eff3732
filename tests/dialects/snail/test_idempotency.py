"""``Idempotency-Key``: the same call made again."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from dialects.snail.client import USER, Caller, Event, done, envelope, events, frames, joined, refused
from support.http_clients import Answer
from support.live_server import HOLD, Served
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.snail import requirements

CONFLICT = "Idempotency-Key already used with a different request"
EVENTS = {"Accept": "text/event-stream"}
NewKey = Callable[[], dict[str, str | bytes]]


@pytest.fixture
def new_key(served: Served) -> NewKey:
    """Makes headers with a key that was never used."""
    return lambda: {"Idempotency-Key": served.new_name("key")}


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent({"think": "hm "}, {"think": "hm"}, "Answer ${turn} ", "to ${content}")


def replayed(answer: Answer) -> bool:
    flag = answer.header("Idempotency-Replayed")
    assert flag in {None, "true"}
    return flag == "true"


def said(answer: Answer) -> tuple[str, str, Event]:
    """Thinking, text and last line: what two answers of one run have in common, however they are cut."""
    all_of_it = events(answer)
    return joined(all_of_it, "thinking"), joined(all_of_it), all_of_it[-1]


def runs(served: Served) -> int:
    return len(served.sql("SELECT FROM message WHERE role = 'assistant'"))


@shows(requirements.replay_finished, requirements.replay_is_one_run)
def test_the_same_call_again_is_answered_by_the_same_run(
    served: Served, caller: Caller, agent: Agent, new_key: NewKey
) -> None:
    key = new_key()
    first = caller.say(agent, headers=key)
    before = runs(served)
    again = [caller.say(agent, headers=key) for _ in range(3)]
    assert not replayed(first)
    assert all(replayed(answer) for answer in again)
    assert [said(answer) for answer in again] == [said(first)] * 3
    assert {answer.header("X-Conversation-Id") for answer in again} == {first.header("X-Conversation-Id")}
    assert runs(served) == before


@shows(requirements.n1, requirements.retry_is_a_new_message)
def test_without_a_key_the_same_call_is_a_new_message(caller: Caller, agent: Agent) -> None:
    answers = [caller.say(agent, conversationId="no key") for _ in range(2)]
    assert [done(answer)["fullText"] for answer in answers] == ["Answer 1 to hi", "Answer 2 to hi"]
    assert not any(replayed(answer) for answer in answers)


@shows(requirements.replay_is_one_run, requirements.replay_live)
def test_n19_the_same_call_while_the_first_one_streams_follows_the_same_run(
    served: Served, caller: Caller, new_key: NewKey
) -> None:
    agent = served.agent({"think": "hm"}, "one ", HOLD)
    key = new_key()
    first = caller.begin(agent, headers=key, conversationId="n19")
    first.head()
    begun = first.write(), first.write()
    second = caller.begin(agent, headers=key, conversationId="n19")
    head = second.head()
    assert replayed(head)
    assert (second.write(), second.write()) == begun
    served.stop_conversation(caller.key, USER, "n19")
    rests = [[write for write in exchange.rest() if write != b"\n"] for exchange in (first, second)]
    assert rests[0] == rests[1]
    assert [json.loads(write) for write in rests[0]] == [{"type": "done", "conversationId": "n19", "fullText": "one "}]
    assert len(served.history(caller.key, USER, "n19")) == 2


@shows(requirements.replay_live)
def test_many_equal_calls_at_once_are_one_run(served: Served, caller: Caller, agent: Agent, new_key: NewKey) -> None:
    key = new_key()
    exchanges = [caller.begin(agent, headers=key, conversationId="at once") for _ in range(8)]
    answers = [exchange.answer() for exchange in exchanges]
    assert len({json.dumps(said(answer)) for answer in answers}) == 1
    assert sum(not replayed(answer) for answer in answers) == 1
    assert len(served.history(caller.key, USER, "at once")) == 2


@shows(requirements.replay_live, requirements.turns_wait)
def test_a_waiting_message_is_replayed_as_waiting(served: Served, caller: Caller, new_key: NewKey) -> None:
    agent = served.agent(HOLD)
    key = new_key()
    first = caller.begin(agent, conversationId="queue")
    first.head()
    waiting = [caller.begin(agent, headers=key, conversationId="queue") for _ in range(2)]
    assert sorted(replayed(exchange.head()) for exchange in waiting) == [False, True]
    served.stop_conversation(caller.key, USER, "queue")
    lasts = [[write for write in exchange.rest() if write != b"\n"] for exchange in (first, *waiting)]
    assert lasts[0] == lasts[1] == lasts[2]
    assert len(served.history(caller.key, USER, "queue")) == 4


@shows(requirements.replay_failed)
def test_a_run_that_failed_is_replayed_with_its_failure(served: Served, caller: Caller, new_key: NewKey) -> None:
    agent = served.agent("so far", {"fail": "cut"})
    key = new_key()
    first, again = (caller.say(agent, headers=key) for _ in range(2))
    assert [event["type"] for event in events(again)] == ["text", "error"]
    assert events(again) == events(first)
    assert not first.complete
    assert not again.complete
    assert replayed(again)


@shows(requirements.interrupted_run, requirements.replay_failed)
def test_a_run_that_the_servers_death_interrupted_is_a_failed_one(
    served: Served, caller: Caller, agent: Agent, new_key: NewKey
) -> None:
    key = new_key()
    first = caller.say(agent, headers=key)
    served.sql(
        "UPDATE message SET status = 'interrupted', reason = 'error', problem = $1::text::jsonb"
        " WHERE uid = (SELECT run FROM claim WHERE key = $2)",
        '{"kind": "internal", "reason": "interrupted"}',
        key["Idempotency-Key"],
    )
    again = caller.say(agent, headers=key)
    assert said(again)[:2] == said(first)[:2]
    assert events(again)[-1]["type"] == "error"
    assert not again.complete


@shows(requirements.replay_in_any_form, requirements.events_sid)
def test_a_replay_has_the_form_that_is_asked_for(caller: Caller, agent: Agent, new_key: NewKey) -> None:
    key = new_key()
    lines = caller.say(agent, headers=key)
    again = [caller.say(agent, headers=key | EVENTS) for _ in range(2)]
    assert all(replayed(answer) for answer in again)
    assert frames(again[0].body) == frames(again[1].body)
    *parts, last = frames(again[0].body)
    assert "".join(data["content"] for name, data in parts if name == "text") == said(lines)[1]
    assert "".join(data["content"] for name, data in parts if name == "thinking") == said(lines)[0]
    assert last[1] == {name: value for name, value in said(lines)[2].items() if name != "type"}


# What is the same call ----------------------------------------------------------------------------------------------


@shows(requirements.idempotency_conflict, requirements.same_request)
def test_the_same_key_with_another_request_is_a_conflict(
    served: Served, caller: Caller, agent: Agent, new_key: NewKey
) -> None:
    key = new_key()
    members = caller.members(agent)
    body = json.dumps(members).encode()
    first = caller.post(body, headers=key)
    assert caller.post(body, headers=key).header("Idempotency-Replayed") == "true"
    before = runs(served)
    for other in (
        members | {"content": "something else"},
        members | {"conversationId": "c"},
        dict(reversed(members.items())),
        body + b" ",
    ):
        refused(caller.post(other, headers=key), CONFLICT, http=422)
    refused(caller.post(body, headers=key, query="x=1"), CONFLICT, http=422)
    assert runs(served) == before
    assert said(caller.post(body, headers=key)) == said(first)


@shows(requirements.idempotency_conflict, requirements.events_refusal)
def test_a_conflict_where_events_are_asked_for_is_a_frame(caller: Caller, agent: Agent, new_key: NewKey) -> None:
    key = new_key()
    caller.say(agent, headers=key)
    answer = caller.say(agent, "other", headers=key | EVENTS)
    assert answer.status == 200
    ((event, data),) = frames(answer.body)
    assert (event, data["message"], data["status"]) == ("error", CONFLICT, 0)


@shows(requirements.same_request)
def test_headers_are_no_part_of_the_request(caller: Caller, agent: Agent, new_key: NewKey) -> None:
    key = new_key()
    caller.say(agent, headers=key)
    more: dict[str, str | bytes] = {"Content-Type": "text/plain", "X-Anything": "x", "Origin": "https://shop.example"}
    assert replayed(caller.say(agent, headers=key | more))


@shows(requirements.key_scope)
def test_a_key_belongs_to_one_credential_and_one_user(
    served: Served, caller: Caller, agent: Agent, new_key: NewKey
) -> None:
    key = new_key()
    other = Caller(served)
    answers = [caller.say(agent, headers=key), caller.say(agent, user="another", headers=key)]
    answers += [other.say(agent, headers=key), other.say(agent, user="another", headers=key)]
    assert not any(replayed(answer) for answer in answers)
    assert len({done(answer)["conversationId"] for answer in answers}) == 4


@shows(requirements.key_is_free_again)
def test_a_key_is_free_again_when_the_call_was_refused(
    served: Served, caller: Caller, agent: Agent, new_key: NewKey
) -> None:
    key = new_key()
    caller.say(agent, conversationId="mine")
    other = served.agent("other")
    for refusal in (
        caller.say(999, headers=key),
        caller.post({}, headers=key),
        caller.post(b"{", headers=key),
        caller.say(other, conversationId="mine", headers=key),
    ):
        assert refusal.body.startswith(b'{"code":0,')
    answer = caller.say(agent, headers=key)
    assert done(answer)
    assert not replayed(answer)


@shows(requirements.key_is_free_again)
def test_a_key_is_free_again_when_its_conversation_is_deleted(
    served: Served, caller: Caller, agent: Agent, new_key: NewKey
) -> None:
    key = new_key()
    first = caller.say(agent, headers=key)
    served.sql("DELETE FROM conversation WHERE uid = $1::text::uuid", done(first)["conversationId"])
    again = caller.say(agent, "something else", headers=key)
    assert done(again)
    assert not replayed(again)


@shows(requirements.key_expires)
def test_a_key_is_forgotten_after_its_time(served: Served, caller: Caller, agent: Agent, new_key: NewKey) -> None:
    key = new_key()
    caller.say(agent, headers=key)
    (claim,) = served.sql("SELECT expires - now() AS left FROM claim WHERE key = $1", key["Idempotency-Key"])
    assert 86_300 < claim["left"].total_seconds() <= 86_400
    served.sql("UPDATE claim SET expires = now() WHERE key = $1", key["Idempotency-Key"])
    answer = caller.say(agent, "something else", headers=key)
    assert not replayed(answer)
    assert replayed(caller.say(agent, "something else", headers=key))


# The key ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", "x" * 255, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "{}", "null"])
@shows(requirements.key_form)
def test_a_key_is_up_to_255_visible_characters(caller: Caller, agent: Agent, key: str) -> None:
    answers = [caller.say(agent, headers={"Idempotency-Key": key}) for _ in range(2)]
    assert [replayed(answer) for answer in answers] == [False, True]


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a b", "a\tb", "钥匙", b"k\xa0", b"\x85k", b"k\x7f"])
@shows(requirements.malformed_idempotency_key, requirements.key_form)
def test_any_other_key_is_malformed(caller: Caller, agent: Agent, key: str | bytes) -> None:
    refused(caller.say(agent, headers={"Idempotency-Key": key}), "Idempotency-Key 格式错误")


@shows(requirements.key_form)
def test_a_key_has_case(caller: Caller, agent: Agent) -> None:
    answers = [caller.say(agent, headers={"Idempotency-Key": key}) for key in ("Case", "case", "CASE")]
    assert not any(replayed(answer) for answer in answers)


@shows(requirements.malformed_idempotency_key)
def test_an_empty_key_on_a_socket_is_malformed_too(served: Served, caller: Caller, agent: Agent) -> None:
    with served.connection() as connection:
        connection.send(caller.request(caller.members(agent), headers={"Idempotency-Key": ""}))
        assert connection.answer().body == envelope("Idempotency-Key 格式错误")
