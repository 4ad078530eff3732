"""Limits of credentials and of the server, and what it says when it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from dialects.snail.client import FAR, USER, Caller, done, error_frame, events, frames, joined, jwt, refused
from support.databases import Databases
from support.http_clients import Answer, Exchange
from support.kit import run
from support.live_server import HOLD, Served, serving
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.snail import requirements

SETTINGS = {"max_waiting_turns": 0, "max_live_runs": 2}

TOO_OFTEN = "请求过于频繁，请稍后再试"
BUSY = "会话繁忙，请稍后再试"
UNFORESEEN = "系统异常"
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def agent(served: Served) -> Agent:
    return served.agent("yes")


@pytest.fixture(scope="module")
def holding(served: Served) -> Agent:
    return served.agent("so far", HOLD)


def limited(served: Served, **limits: Any) -> Caller:
    return Caller(served, served.key("snail", **limits))


def too_often(answer: Answer) -> int:
    """Asserts the refusal, and gives the seconds to wait."""
    refused(answer, TOO_OFTEN, http=429)
    wait = answer.header("Retry-After")
    assert wait is not None
    assert wait.isdigit()
    return int(wait)


def begun(caller: Caller, agent: Agent, conversation: str) -> Exchange:
    """A message whose answer has begun."""
    exchange = caller.begin(agent, conversationId=conversation)
    exchange.head()
    assert (exchange.write() or b"").startswith(b'{"type":"text","content":"so far')
    return exchange


def ended(caller: Caller, conversation: str, exchange: Exchange) -> None:
    """Stop a conversation's turn, and see its stream end."""
    caller.served.stop_conversation(caller.key, USER, conversation)
    exchange.rest()


# Of a credential ----------------------------------------------------------------------------------------------------


@shows(requirements.rpm_window, requirements.rate_limited)
def test_rpm_admits_so_many_calls_a_minute(served: Served, agent: Agent) -> None:
    caller = limited(served, rpm=2)
    assert [done(caller.say(agent))["fullText"] for _ in range(2)] == ["yes", "yes"]
    assert all(1 <= too_often(caller.say(agent)) <= 60 for _ in range(3))
    served.sql("UPDATE usage SET minute_start = minute_start - interval '60 seconds'")
    assert done(caller.say(agent))
    assert done(caller.say(agent))
    too_often(caller.say(agent))


@shows(requirements.rpm_window)
def test_calls_at_once_are_counted_one_by_one(served: Served) -> None:
    caller = limited(served, rpm=3)
    answers = [exchange.answer() for exchange in [caller.begin(999) for _ in range(10)]]
    assert sorted(answer.status for answer in answers) == [200] * 3 + [429] * 7


@shows(requirements.used_up)
def test_total_admits_so_many_calls_in_all(served: Served, agent: Agent) -> None:
    caller = limited(served, total=2)
    for _ in range(2):
        assert done(caller.say(agent))
    assert too_often(caller.say(agent)) >= 1
    served.sql("UPDATE usage SET minute_start = minute_start - interval '1 day'")
    assert too_often(caller.say(agent)) >= 1


@shows(requirements.failed_calls_count)
def test_calls_that_come_to_nothing_count_and_so_do_replays(served: Served, agent: Agent) -> None:
    caller = limited(served, rpm=5)
    key = {"Idempotency-Key": "counted"}
    caller.post(b"{")
    caller.post({})
    caller.say(999)
    assert done(caller.say(agent, headers=key))
    assert caller.say(agent, headers=key).header("Idempotency-Replayed") == "true"
    too_often(caller.say(agent))


@shows(requirements.refused_calls_are_free)
def test_calls_that_are_not_let_in_count_for_nothing(served: Served, agent: Agent) -> None:
    caller = limited(served, rpm=1, total=2)
    good, caller.auth = caller.auth, jwt({"appId": caller.key.id, "exp": FAR}, "wrong")
    for _ in range(3):
        refused(caller.say(agent), "Token 验证失败", status=5001)
    caller.auth = good
    caller.post(b"x" * 1_048_577)
    assert done(caller.say(agent))
    for _ in range(3):
        too_often(caller.say(agent))
    served.sql("UPDATE usage SET minute_start = minute_start - interval '60 seconds'")
    assert done(caller.say(agent)), "the refused calls were not counted for the total"


@shows(requirements.rate_before_json, requirements.credential_before_json)
def test_the_rate_is_looked_at_after_the_credential_and_before_the_body(served: Served, agent: Agent) -> None:
    caller = limited(served, rpm=1)
    assert done(caller.say(agent))
    too_often(caller.post(b"{"))
    too_often(caller.say(999))
    caller.auth = "wrong"
    refused(caller.post(b"{"), "Token 验证失败", status=5001)


@shows(requirements.rate_limited, requirements.events_refusal)
def test_a_rate_limit_where_events_are_asked_for_is_a_frame(served: Served) -> None:
    caller = limited(served, rpm=1)
    caller.say(999)
    answer = caller.say(999, headers=EVENTS)
    assert answer.status == 200
    assert frames(answer.body) == error_frame(TOO_OFTEN)


# Of the server ------------------------------------------------------------------------------------------------------


@shows(requirements.none_may_wait, requirements.too_many_waiting)
def test_where_none_may_wait_a_second_message_is_refused(caller: Caller, agent: Agent, holding: Agent) -> None:
    exchange = begun(caller, holding, "busy")
    refused(caller.say(holding, conversationId="busy"), BUSY)
    assert frames(caller.say(holding, conversationId="busy", headers=EVENTS).body) == error_frame(BUSY)
    assert done(caller.say(agent, conversationId="another"))
    ended(caller, "busy", exchange)
    ended(caller, "busy", begun(caller, holding, "busy"))


@shows(requirements.none_may_wait, requirements.key_is_free_again)
def test_a_message_refused_as_busy_leaves_nothing_behind(served: Served, caller: Caller, holding: Agent) -> None:
    exchange = begun(caller, holding, "left")
    key = {"Idempotency-Key": "busy"}
    refused(caller.say(holding, conversationId="left", headers=key), BUSY)
    assert len(served.history(caller.key, USER, "left")) == 2
    ended(caller, "left", exchange)
    again = caller.begin(holding, "other words", conversationId="left", headers=key)
    assert again.head().header("Idempotency-Replayed") is None
    ended(caller, "left", again)


@shows(requirements.too_many_runs)
def test_above_max_live_runs_a_new_message_is_refused(caller: Caller, agent: Agent, holding: Agent) -> None:
    exchanges = [begun(caller, holding, name) for name in ("run 1", "run 2")]
    refused(caller.say(agent), BUSY)
    ended(caller, "run 1", exchanges[0])
    assert done(caller.say(agent))
    ended(caller, "run 2", exchanges[1])


@shows(requirements.replay_needs_no_room)
def test_above_max_live_runs_a_replay_is_still_answered(caller: Caller, agent: Agent, holding: Agent) -> None:
    key = {"Idempotency-Key": "no-room"}
    first = caller.say(agent, headers=key)
    assert done(first)
    exchanges = [begun(caller, holding, name) for name in ("run 3", "run 4")]
    again = caller.say(agent, headers=key)
    for name, exchange in zip(("run 3", "run 4"), exchanges, strict=True):
        ended(caller, name, exchange)
    assert done(again) == done(first)


@shows(requirements.too_many_runs)
def test_a_server_that_is_stopping_takes_no_more_messages(served: Served, caller: Caller, agent: Agent) -> None:
    served.core.runs.closing = True
    try:
        refused(caller.say(agent), BUSY)
    finally:
        served.core.runs.closing = False
    assert done(caller.say(agent))


@shows(requirements.database_away, requirements.unforeseen)
def test_while_the_database_is_away_nothing_new_is_taken_and_streams_go_on(
    cluster: Databases, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, url = run(cluster.acquire())
    with serving(url, tmp_path_factory.mktemp("data")) as served:
        caller = Caller(served)
        agent = served.agent("yes")
        talking = served.agent("so far", {"repeat": {"text": ".", "times": 1000, "every": 0.01}}, HOLD)
        assert done(caller.say(agent))
        stream = begun(caller, talking, "goes on")
        served.do(served.core.store.db.close())
        try:
            refused(caller.say(agent), UNFORESEEN)
            stranger = Caller(served, caller.key)
            stranger.auth = "a token that nobody has asked about before"
            refused(stranger.say(agent), UNFORESEEN)
            assert frames(caller.say(agent, headers=EVENTS).body) == error_frame(UNFORESEEN)
            for _ in range(5):
                assert stream.write() is not None
        finally:
            served.do(served.core.store.db.open())
        assert done(caller.say(agent))
        served.stop_conversation(caller.key, USER, "goes on")
        stream.rest()
        assert joined(events(caller.say(agent))) == "yes"
    run(cluster.release(name))


@shows(requirements.full)
def test_a_quota_that_is_used_up_is_told(served: Served, caller: Caller, agent: Agent) -> None:
    with served.full("conversations"):
        refused(caller.say(agent), "存储配额已用完")
