"""Runs: followed from any place, stopped with a receipt."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import pytest
from dialects.native.client import LATER, Caller, Document, Frame, folded, frames, good, heard, problem
from support.databases import Databases
from support.http_clients import Exchange
from support.kit import run
from support.live_server import HOLD, Served, Step, serving
from support.requirements import shows

from palaver.core.types import Agent
from palaver.dialects.native import requirements

CALL: Step = {"call": {"name": "weather", "arguments": {"city": "西安"}}}
RICH: tuple[Step, ...] = (
    {"think": "hm 🤔"},
    {"text": "苹果\u2028 🍏🧑‍🌾\n\ndata: x"},
    CALL,
    {"pieces": {"of": "and so on", "size": 2}},
)


def begun(caller: Caller, agent: Agent) -> Document:
    """A run that goes on."""
    return good(caller.ask("POST", "messages", {"agent": agent.id, "content": "hi"}, headers=LATER), 202)


def taken(exchange: Exchange, count: int) -> list[Frame]:
    """The next events, one by one."""
    frames_read: list[Frame] = []
    while len(frames_read) < count:
        write = exchange.write()
        assert write is not None
        frames_read += frames([write])
    return frames_read


def stopped(caller: Caller, run: str) -> Document:
    return good(caller.ask("POST", f"runs/{run}/stop"))


def cut(parts: list[Document], cursor: int) -> list[Document]:
    """The parts as somebody knows them who stopped reading at that place."""
    known: list[Document] = []
    for part in parts:
        if cursor == 0:
            break
        cursor -= 1
        if part["type"] in {"text", "thinking"}:
            known.append({**part, "text": part["text"][:cursor]})
            cursor -= len(known[-1]["text"])
        else:
            known.append(part)
    return known


# Following ----------------------------------------------------------------------------------------------------------


@shows(requirements.from_any_cursor, requirements.nothing_behind)
def test_what_follows_any_cursor_completes_what_was_before_it(served: Served, caller: Caller) -> None:
    answer = caller.begin(served.agent(*RICH))["answer"]
    uid, parts, end = answer["uid"], answer["parts"], answer["cursor"]
    assert end > 30
    for cursor in range(end):
        events = heard(caller.follow(uid, cursor).answer())
        assert folded(events, cut(parts, cursor)) == parts, cursor
        ids = [event.id for event in events]
        assert ids == sorted(set(ids))
        assert ids[0] > cursor
        assert (events[-1].name, ids[-1]) == ("run.ended", end)
        for event in events[:-1]:
            assert folded(heard(caller.follow(uid, event.id).answer()), cut(parts, event.id)) == parts
    for cursor in (end, end + 1, 2**53 - 1):
        nothing = caller.follow(uid, cursor).answer()
        assert (nothing.status, nothing.body, nothing.header("Content-Type")) == (204, b"", None)


@shows(requirements.live_resume)
def test_a_run_that_lives_is_taken_up_where_the_connection_broke(served: Served, caller: Caller) -> None:
    first = caller.stream(served.agent("one two", HOLD))
    first.head()
    sent, *rest = taken(first, 3)
    first.hang_up()
    uid = sent.data["answer"]["uid"]
    second = caller.follow(uid, rest[-1].id - 4)
    assert second.head().status == 200
    (more,) = taken(second, 1)
    assert (more.name, more.id, more.data, more.retry) == ("text.delta", rest[-1].id, {"text": " two"}, 1000)
    receipt = stopped(caller, uid)
    (last,) = frames(second.rest())
    assert (last.name, last.id, last.data["status"]) == ("run.ended", receipt["cursor"], "stopped")


@shows(requirements.ahead)
def test_a_cursor_ahead_of_the_run_is_waited_for(served: Served, caller: Caller) -> None:
    uid = begun(caller, served.agent("abc", {"wait": 0.2}, "def", HOLD))["answer"]["uid"]
    exchange = caller.follow(uid, 6)
    exchange.head()
    (event,) = taken(exchange, 1)
    assert (event.id, event.data) == (7, {"text": "f"})
    stopped(caller, uid)
    exchange.rest()


@shows(requirements.last_event_id)
def test_last_event_id_comes_before_after(served: Served, caller: Caller) -> None:
    uid = caller.begin(served.agent("0123456789"))["answer"]["uid"]
    assert heard(caller.follow(uid, 2, last="9").answer())[0].data == {"text": "89"}
    assert heard(caller.follow(uid, 9, last="2").answer())[0].data == {"text": "123456789"}
    assert heard(caller.follow(uid, 9, last="").answer())[0].data == {"text": "89"}
    assert caller.follow(uid, last="12").answer().status == 204


@shows(requirements.bad_cursor)
@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "9007199254740992", "٣", " 1", "1e3"])
def test_a_cursor_that_is_none_is_refused(served: Served, caller: Caller, cursor: str) -> None:
    uid = caller.begin(served.agent("x"))["answer"]["uid"]
    by_query = caller.get(f"runs/{uid}/events", f"after={cursor.replace(' ', '%20')}")
    problem(by_query, 400, "invalid", field="after", rule="range")
    if cursor.strip() == cursor:
        by_header = caller.get(f"runs/{uid}/events", **{"Last-Event-ID": cursor})
        problem(by_header, 400, "invalid", field="Last-Event-ID", rule="range")


@shows(requirements.heartbeat)
def test_an_idle_stream_shows_that_it_lives(served: Served, caller: Caller) -> None:
    uid = begun(caller, served.agent(HOLD))["answer"]["uid"]
    exchange = caller.follow(uid)
    exchange.head()
    assert exchange.write() == b": alive\n\n"
    stopped(caller, uid)
    exchange.rest()


@shows(requirements.failed_stream)
def test_a_failed_runs_stream_ends_normally_with_its_problem(served: Served, caller: Caller) -> None:
    answer = caller.stream(served.agent("so far", {"fail": "limit"})).answer()
    last = heard(answer)[-1]
    assert (last.name, last.data["status"], last.data["problem"]["code"]) == ("run.ended", "failed", "upstream_busy")
    assert answer.complete


@shows(requirements.nothing_behind)
def test_who_knows_more_than_an_interrupted_run_kept_is_told_that_nothing_comes(served: Served, caller: Caller) -> None:
    uid = caller.begin(served.agent("0123456789"))["answer"]["uid"]
    served.sql(
        "UPDATE message SET status = 'interrupted', reason = 'error', problem = $1::text::jsonb,"
        """ parts = '[{"type": "text", "text": "0123"}]' WHERE uid = $2::text::uuid""",
        '{"kind": "internal", "reason": "interrupted"}',
        uid,
    )
    assert caller.follow(uid, 11).answer().status == 204
    kept = caller.run(uid)
    assert (kept["status"], kept["text"], kept["problem"]["code"]) == ("interrupted", "0123", "interrupted")


@shows(requirements.not_found)
def test_there_is_no_run_of_another_user_and_none_without_a_uid(served: Served, caller: Caller) -> None:
    uid = caller.begin(served.agent("x"))["answer"]["uid"]
    for other in (Caller(served, caller.key, user="bob"), Caller(served, served.key("native", application="rival"))):
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/stop")):
            problem(other.ask(method, f"runs/{uid}{path}"), 404, "not_found", noun="run")
    for name in ("7", "x", "0" * 32):
        problem(caller.get(f"runs/{name}"), 404, "not_found", noun="run")


# Stopping -----------------------------------------------------------------------------------------------------------


@shows(requirements.receipt, requirements.answer_state)
def test_a_stop_answers_how_far_the_run_came(served: Served, caller: Caller) -> None:
    agent = served.agent({"think": "hm"}, "one 🙂", {"usage": {"prompt": 30, "completion": 5}}, CALL, "two", HOLD)
    exchange = caller.stream(agent)
    exchange.head()
    sent, *seen = taken(exchange, 9)
    assert seen[-1].data == {"text": "two"}
    receipt = stopped(caller, sent.data["answer"]["uid"])
    assert (receipt["status"], receipt["text"], receipt["problem"]) == ("stopped", "one 🙂two", None)
    assert receipt["position"] == 8
    assert receipt["cursor"] == seen[-1].id + 1
    assert receipt["steps"] == {"begun": 1, "done": 1}
    assert receipt["usage"] == {"prompt_tokens": 30, "completion_tokens": 5}, "what the first step used"
    assert receipt["ended"] is not None
    (last,) = frames(exchange.rest())
    assert (last.id, last.data["status"], last.data["usage"]) == (receipt["cursor"], "stopped", receipt["usage"])


@shows(requirements.stop_again)
def test_a_stop_may_be_repeated_and_changes_nothing_that_has_ended(served: Served, caller: Caller) -> None:
    uid = begun(caller, served.agent("so far", HOLD))["answer"]["uid"]
    receipt = stopped(caller, uid)
    assert [stopped(caller, uid), stopped(caller, uid), caller.run(uid)] == [receipt] * 3
    done = caller.begin(served.agent("whole"))["answer"]
    assert stopped(caller, done["uid"]) == done
    assert done["status"] == "complete"


@shows(requirements.stop_waiting)
def test_a_waiting_run_is_dropped(served: Served, caller: Caller) -> None:
    first = begun(caller, served.agent("turn ${turn}", HOLD))
    path = f"conversations/{first['conversation']['uid']}/messages"
    second = good(caller.ask("POST", path, {"content": "2"}, headers=LATER), 202)
    assert caller.run(second["answer"]["uid"])["status"] == "waiting"
    receipt = stopped(caller, second["answer"]["uid"])
    assert (receipt["status"], receipt["parts"], receipt["cursor"]) == ("stopped", [], 1)
    assert caller.run(first["answer"]["uid"])["status"] == "live"
    stopped(caller, first["answer"]["uid"])


@shows(requirements.stop_all)
def test_a_conversations_stop_ends_all_of_its_runs(served: Served, caller: Caller) -> None:
    first = begun(caller, served.agent("turn ${turn}", HOLD))
    place = f"conversations/{first['conversation']['uid']}"
    second = good(caller.ask("POST", f"{place}/messages", {"content": "2"}, headers=LATER), 202)
    runs = [one["answer"]["uid"] for one in (first, second)]
    followed = [caller.follow(uid) for uid in runs]
    assert good(caller.ask("POST", f"{place}/stop")) == {"stopped": 2}
    assert [heard(exchange.answer())[-1].data["status"] for exchange in followed] == ["stopped", "stopped"]
    assert good(caller.ask("POST", f"{place}/stop")) == {"stopped": 0}
    assert not good(caller.get(place))["working"]


# Several processes --------------------------------------------------------------------------------------------------


@pytest.fixture
def two(cluster: Databases, tmp_path: Path) -> Generator[tuple[Served, Served]]:
    """Two servers on one database, which are two processes to each other."""
    name, url = run(cluster.acquire())
    with serving(url, tmp_path / "one") as one, serving(url, tmp_path / "two") as other:
        yield one, other
    run(cluster.release(name))


@shows(requirements.any_process)
def test_a_run_is_followed_and_stopped_from_another_process(two: tuple[Served, Served]) -> None:
    caller = Caller(two[0])
    elsewhere = Caller(two[1], caller.key)
    first = caller.stream(two[0].agent("one ", {"wait": 0.4}, "two", HOLD))
    first.head()
    sent, *seen = taken(first, 4)
    uid = sent.data["answer"]["uid"]
    # It knows "one two"; what the other process can see may be less as yet.
    second = elsewhere.follow(uid, seen[-1].id - 1)
    second.head()
    (event,) = taken(second, 1)
    assert (event.name, event.id, event.data) == ("text.delta", seen[-1].id, {"text": "o"})
    receipt = stopped(elsewhere, uid)
    assert (receipt["status"], receipt["text"]) == ("stopped", "one two")
    for exchange in (first, second):
        (last,) = frames(exchange.rest())
        assert (last.id, last.data["status"]) == (receipt["cursor"], "stopped")
    assert caller.run(uid) == elsewhere.run(uid) == receipt


# The bytes ----------------------------------------------------------------------------------------------------------


@shows(requirements.frames)
def test_every_write_is_one_event_in_ascii(served: Served, caller: Caller) -> None:
    answer = caller.stream(served.agent(*RICH)).answer()
    first, *others = [write for write in answer.writes if not write.startswith(b":")]
    assert re.fullmatch(rb"retry: 1000\nid: 0\nevent: run\.created\ndata: \{[\x20-\x7e]*\}\n\n", first)
    assert all(re.fullmatch(rb"id: \d+\nevent: [a-z]+\.[a-z]+\ndata: \{[\x20-\x7e]*\}\n\n", write) for write in others)
