"""Life cycle of a server: it starts with one command, shuts down gracefully, and loses nothing when killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.model_endpoint import chunk, endless, silence, speech, stream
from support.server_process import Installation, endpoint, heard, installed, lines

from bench.machine import Slowness

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

SLOW = "---\nname: slow\nmodel: scripted\n---\n- text: begun\n- wait: 60\n- text: never\n"
QUICK = "---\nname: quick\nmodel: scripted\n---\n- text: 'turn ${turn}'\n"


@pytest.fixture
def place() -> Generator[Installation]:
    with installed(True) as installation:
        yield installation


def first_text(events: Any) -> str:
    return next(event["content"] for event in events if event["type"] == "text")


@pytest.fixture
def empty_place() -> Generator[Installation]:
    with installed() as installation:
        yield installation


def test_one_command_makes_a_server_that_answers_and_a_second_start_finds_everything(
    empty_place: Installation,
) -> None:
    place = empty_place
    place.start()
    demo = place.json("demo")
    assert demo["base_url"] == place.url
    assert demo["app"] == "demo"
    assert demo["agent"]["name"] == "guide"
    secret = demo["credentials"]["snail"]["secret"]
    events = list(lines(place.chat(secret, demo["agent"]["id"], "How do I configure a model?")))
    assert events[-1]["type"] == "done"
    assert "PALAVER_MODEL" in events[-1]["fullText"]
    printed = place.log.read_text()
    assert "'palaver demo' shows" in printed
    assert secret not in printed
    assert f"{place.url}/snail-ai/open-api/chat" in place.palaver("demo", "--dialect", "snail")
    assert place.stop() < 10
    assert place.left() == []
    machine = Slowness()
    for _ in range(5):
        machine.look()
    took = place.start()
    for _ in range(5):
        machine.look()
    assert took < 5 * machine.times, "as many times longer as a computation took beside the other tests"
    assert place.json("demo") == demo
    again = place.chat(secret, demo["agent"]["id"], "再说一遍", conversationId=events[-1]["conversationId"])
    assert list(lines(again))[-1]["conversationId"] == events[-1]["conversationId"]
    assert place.stop(signal.SIGINT) < 10
    assert place.server is not None
    assert place.server.returncode == 0
    assert place.left() == []


def test_a_kill_in_mid_stream_loses_no_question_and_no_finished_answer(place: Installation) -> None:
    slowly = endless(chunk({"content": "word "}))
    with endpoint(stream(speech("first answer")), slowly, stream(speech("third answer"))) as upstream:
        place.environment["OPENAI_BASE_URL"] = upstream.url
        place.start()
        secret = place.key()["secret"]
        agent = place.agent("---\nname: remote\nmodel: openai:gpt\n---\nBe brief.\n")["id"]
        done = list(lines(place.chat(secret, agent, "one", conversationId="c")))[-1]
        assert done["fullText"] == "first answer"
        response = place.chat(secret, agent, "two", conversationId="c", headers={"Idempotency-Key": "two"})
        events = lines(response)
        seen = ""
        while len(seen) < 400:
            seen += next(events)["content"]
        place.stop(signal.SIGKILL)
        assert heard(events)[1]
        place.start()
        replay = place.chat(secret, agent, "two", conversationId="c", headers={"Idempotency-Key": "two"})
        assert replay.headers["Idempotency-Replayed"] == "true"
        events, broken_off = heard(lines(replay))
        kept = "".join(event["content"] for event in events if event["type"] == "text")
        assert (events[-1]["type"], broken_off) == ("error", True)
        assert kept.startswith("word word ")
        assert list(lines(place.chat(secret, agent, "three", conversationId="c")))[-1]["fullText"] == "third answer"
        told = [(said["role"], said["content"]) for said in upstream.bodies[-1]["messages"]]
        assert told == [
            ("system", "Be brief."),
            ("user", "one"),
            ("assistant", "first answer"),
            ("user", "two"),
            ("assistant", kept),
            ("user", "three"),
        ]
    place.stop()
    assert place.left() == []


def test_stopping_saves_running_turns_and_ends_their_streams(place: Installation) -> None:
    place.environment["PALAVER_DRAIN_S"] = "0.3"
    place.start()
    secret, slow, quick = place.key()["secret"], place.agent(SLOW)["id"], place.agent(QUICK)["id"]
    assert list(lines(place.chat(secret, quick)))[-1]["type"] == "done"
    response = place.chat(secret, slow, headers={"Idempotency-Key": "s"})
    stream = lines(response)
    assert first_text(stream) == "begun"
    with ThreadPoolExecutor() as threads:
        rest = threads.submit(heard, stream)
        assert place.stop() < 5
        ended, broken_off = rest.result(5)
    assert [event["type"] for event in ended] == ["error"]
    assert broken_off
    assert place.left() == []
    place.start()
    replay = place.chat(secret, slow, headers={"Idempotency-Key": "s"})
    events, broken_off = heard(lines(replay))
    assert [event.get("content", event["type"]) for event in events] == ["begun", "error"]
    assert broken_off


def test_the_endpoints_connection_is_closed_when_the_server_stops(place: Installation) -> None:
    with endpoint(silence(chunk({"content": "a"}))) as upstream:
        place.environment |= {"OPENAI_BASE_URL": upstream.url, "PALAVER_MODEL": "openai:m", "PALAVER_DRAIN_S": "0"}
        place.start()
        secret, agent = place.key()["secret"], place.agent("---\nname: remote\n---\n")["id"]
        assert first_text(lines(place.chat(secret, agent))) == "a"
        place.stop()
        assert upstream.abandoned.is_set()


def test_a_client_that_goes_away_does_not_stop_the_answer(place: Installation) -> None:
    place.start()
    secret = place.key()["secret"]
    script = "---\nname: long\nmodel: scripted\n---\n- repeat: {text: 'ab', times: 40, every: 0.02}\n"
    agent = place.agent(script)["id"]
    response = place.chat(secret, agent, headers={"Idempotency-Key": "k"})
    assert first_text(lines(response)).startswith("ab")
    response.close()
    replay = place.chat(secret, agent, headers={"Idempotency-Key": "k"})
    assert list(lines(replay))[-1]["fullText"] == "ab" * 40


def test_a_key_that_is_disabled_is_refused_within_a_second(place: Installation) -> None:
    place.start()
    key, agent = place.key(), place.agent(QUICK)["id"]
    assert list(lines(place.chat(key["secret"], agent)))[-1]["type"] == "done"
    place.palaver("key", "disable", key["id"])
    assert place.chat(key["secret"], agent).json()["msg"] == f"应用已禁用: {key['id']}"
    place.palaver("key", "enable", key["id"])
    rotated = place.json("key", "rotate", key["id"])
    assert place.chat(key["secret"], agent).json()["msg"] == "Token 验证失败"
    assert list(lines(place.chat(rotated["secret"], agent)))[-1]["type"] == "done"


def test_two_servers_on_one_data_folder_share_everything(place: Installation) -> None:
    place.start()
    first, port = place.server, place.port
    secret, agent = place.key()["secret"], place.agent(QUICK)["id"]
    other = Installation(place.folder)
    other.start()
    assert list(lines(other.chat(secret, agent, conversationId="c")))[-1]["fullText"] == "turn 1"
    assert list(lines(place.chat(secret, agent, conversationId="c")))[-1]["fullText"] == "turn 2"
    other.stop()
    assert list(lines(place.chat(secret, agent, conversationId="c")))[-1]["fullText"] == "turn 3"
    assert (place.server, place.port) == (first, port)
    place.stop()
    assert place.left() == []


def test_a_taken_port_is_an_error_that_says_what_to_do(place: Installation) -> None:
    place.start()
    second = Installation(place.folder)
    second.environment["PALAVER_PORT"] = str(place.port)
    with pytest.raises(AssertionError, match="--port"):
        second.start()


def test_no_secret_is_in_the_log(place: Installation) -> None:
    place.environment |= {"PALAVER_DEMO": "false", "PALAVER_LOG_LEVEL": "debug", "OPENAI_API_KEY": "sk-very-secret"}
    place.start()
    key, agent = place.key(), place.agent(QUICK)["id"]
    list(lines(place.chat(key["secret"], agent, "private words")))
    place.chat(key["secret"] + "x", agent).json()
    place.stop()
    logged = place.log.read_text()
    assert '"event": "request"' in logged
    for secret in (key["secret"], "sk-very-secret", "private words"):
        assert secret not in logged
    for line in logged.splitlines():
        if line.startswith("{"):
            json.loads(line)


def test_asked_twice_the_server_waits_no_longer(place: Installation) -> None:
    place.environment["PALAVER_DRAIN_S"] = "60"
    place.start()
    secret, slow = place.key()["secret"], place.agent(SLOW)["id"]
    assert first_text(lines(place.chat(secret, slow))) == "begun"
    assert place.server is not None
    place.server.send_signal(signal.SIGINT)
    while '"event": "stopping"' not in place.log.read_text():
        place.server.poll()
    assert place.stop(signal.SIGINT) < 10
    assert place.left() == []
