"""Two processes on one database behave as one."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import requests
from support.databases import Databases
from support.model_endpoint import Upstream, chunk, silence
from support.server_process import Installation, endpoint, heard, lines
from support.tcp_proxies import Neighbours, neighbours

from palaver.core.types import Agent, ApiKey
from palaver.store.postgres import PostgresStore

pytestmark = pytest.mark.e2e

T = TypeVar("T")
SLOWLY = {"repeat": {"text": "ab ", "times": 60, "every": 0.02}}
UPSTREAM_TEXT = "begun"


@pytest.fixture(scope="module")
def upstream() -> Generator[Upstream]:
    """A model that begins to speak and never ends."""
    with endpoint(silence(chunk({"content": UPSTREAM_TEXT}))) as model:
        yield model


@pytest.fixture(scope="module")
def two(cluster: Databases, upstream: Upstream) -> Generator[Neighbours]:
    with neighbours(cluster, OPENAI_BASE_URL=upstream.url, PALAVER_MAX_WAITING_TURNS="100") as pair:
        together(Installation.start, pair.servers)
        yield pair
        together(Installation.stop, pair.servers)


def together(work: Callable[..., T], *given: Sequence[Any]) -> list[T]:
    """``work`` on everything that is given, all at the same time."""
    with ThreadPoolExecutor(max_workers=64) as threads:
        return list(threads.map(work, *given))


def eventually(ask: Callable[[], bool], *, within: float) -> None:
    """``AssertionError`` when it is not true ``within`` seconds."""
    until = time.monotonic() + within
    while not ask():
        assert time.monotonic() < until, f"not within {within} s"


def recovered(server: Installation) -> float:
    """Runs that it has ended for a dead process, as ``/metrics`` counts them."""
    text = requests.get(f"{server.url}/metrics", timeout=5).text
    return sum(map(float, re.findall(r"^palaver_runs_recovered_total (\S+)$", text, re.MULTILINE)))


def answer(server: Installation, key: ApiKey, agent: Agent, content: str = "hi", **members: Any) -> str:
    """The whole text of an answer."""
    return list(lines(server.chat(key.secret, agent.id, content, **members)))[-1]["fullText"]


def refusal(server: Installation, key: ApiKey, agent: Agent) -> str:
    """What a call is refused with; empty when it is not."""
    said = list(lines(server.chat(key.secret, agent.id)))
    return said[0]["msg"] if said[-1]["type"] == "error" else ""


def test_a_stream_is_taken_up_on_the_other_process_live_and_after_its_end(two: Neighbours) -> None:
    key, agent, repeated = two.key(), two.agent(SLOWLY), {"Idempotency-Key": "resumed"}
    response = two.first.chat(key.secret, agent.id, headers=repeated)
    assert next(lines(response))["content"].startswith("ab ")
    response.close()  # a client that goes away
    live = two.second.chat(key.secret, agent.id, headers=repeated)
    assert live.headers["Idempotency-Replayed"] == "true"
    said = list(lines(live))
    assert "".join(event["content"] for event in said if event["type"] == "text") == "ab " * 60
    assert said[-1]["fullText"] == "ab " * 60
    for server in two.servers:
        assert answer(server, key, agent, headers=repeated) == "ab " * 60


class XSpace:
    """A caller of the dialect that has a call for stopping; the calls may go to different processes."""

    def __init__(self, key: ApiKey) -> None:
        self._headers = {"Authorization": f"Bearer {key.secret}"}

    def post(self, server: Installation, path: str, **body: Any) -> Any:
        answer = requests.post(f"{server.url}/api/v1/chat/{path}", json=body, headers=self._headers, timeout=20)
        return answer.json()["data"]

    def stream(self, server: Installation, conversation: int) -> Iterator[bytes]:
        """The pieces of an answer, as they come."""
        url = f"{server.url}/api/v1/chat/{conversation}"
        answer = requests.post(url, json={"message": "hi"}, headers=self._headers, stream=True, timeout=20)
        return answer.iter_content(None)


def test_a_stop_reaches_the_process_that_works_within_a_second(two: Neighbours, upstream: Upstream) -> None:
    caller, agent = XSpace(two.key("xspace")), two.agent(model="openai:endless")
    conversation = caller.post(two.first, "conversation/add", agentId=agent.id)
    stream = caller.stream(two.first, conversation)
    while UPSTREAM_TEXT.encode() not in next(stream):
        assert not upstream.abandoned.is_set()
    caller.post(two.second, f"{conversation}/stop")
    eventually(upstream.abandoned.is_set, within=1)
    assert b"FINAL_RESULT" in b"".join(stream)
    rows = two.sql("SELECT status, parts FROM message WHERE role = 'assistant' AND conversation = $1", conversation)
    assert [row["status"] for row in rows] == ["stopped"]
    assert UPSTREAM_TEXT in rows[0]["parts"]
    assert len(upstream.bodies) == 1, "no later step begins"


def test_a_key_that_is_disabled_is_refused_by_both_within_a_second(two: Neighbours) -> None:
    key, agent = two.key(), two.agent("hello")
    assert [refusal(server, key, agent) for server in two.servers] == ["", ""]
    two.do(lambda store: store.keys.set_enabled(key.id, enabled=False))
    for server in two.servers:
        eventually(lambda server=server: refusal(server, key, agent) == f"应用已禁用: {key.id}", within=1)


def test_a_rotated_key_counts_for_both_within_a_second(two: Neighbours) -> None:
    key, agent = two.key(), two.agent("hello")
    assert [refusal(server, key, agent) for server in two.servers] == ["", ""]

    async def rotate(store: PostgresStore) -> ApiKey:
        return await store.keys.rotate(key, "another-secret")

    rotated = two.do(rotate)
    for server in two.servers:
        eventually(lambda server=server: refusal(server, key, agent) == "Token 验证失败", within=1)
        assert refusal(server, rotated, agent) == ""


def test_limits_are_exact_over_both(two: Neighbours) -> None:
    key, agent = two.key(rpm=23), two.agent("hello")

    def call(server: Installation) -> str:
        return refusal(server, key, agent)

    calls = together(call, two.servers * 30)
    assert sorted(calls) == [""] * 23 + ["请求过于频繁，请稍后再试"] * 37


def test_messages_of_one_conversation_keep_their_order_over_both(two: Neighbours) -> None:
    key, agent, conversation = two.key(), two.agent("you said ${content}"), two.new_name("talk")

    def say(server: Installation, number: int) -> str:
        return answer(server, key, agent, f"word {number}", conversationId=conversation)

    answers = together(say, two.servers * 20, range(40))
    assert answers == [f"you said word {number}" for number in range(40)]
    said = two.said(conversation)
    assert [role for role, _, _ in said] == ["user", "assistant"] * 40
    assert [text for _, text, _ in said[1::2]] == [f"you said {text}" for _, text, _ in said[0::2]]


def test_fifty_equal_calls_at_once_over_both_are_one_run(two: Neighbours) -> None:
    key, agent, conversation = two.key(), two.agent("turn ${turn}", {"wait": 0.3}, "."), two.new_name("once")
    repeated = {"Idempotency-Key": "fifty"}

    def say(server: Installation) -> str:
        return answer(server, key, agent, conversationId=conversation, headers=repeated)

    assert together(say, two.servers * 25) == ["turn 1."] * 50
    assert two.said(conversation) == [("user", "hi", None), ("assistant", "turn 1.", "complete")]


def test_what_a_killed_process_worked_on_is_ended_by_another_within_ten_seconds(
    cluster: Databases, two: Neighbours
) -> None:
    key, conversation = two.key(), two.new_name("killed")
    agent, quick = two.agent("begun", {"wait": 60}), two.agent("hello")
    doomed = Installation(two.first.folder, **{name: two.first.environment[name] for name in _SHARED})
    doomed.start()
    stream = lines(doomed.chat(key.secret, agent.id, conversationId=conversation))
    assert next(stream)["content"] == "begun"
    eventually(lambda: two.said(conversation)[-1][1] == "begun", within=3)  # saved
    doomed.stop(signal.SIGKILL)
    assert heard(stream)[1], "a client learns at once that the stream broke off"
    assert answer(two.second, key, quick) == "hello", "the other one goes on"
    eventually(lambda: two.said(conversation)[-1] == ("assistant", "begun", "interrupted"), within=10)
    eventually(lambda: sum(map(recovered, two.servers)) == 1, within=3)
    followed = two.second.chat(key.secret, agent.id, "again", conversationId=conversation)
    assert next(lines(followed))["content"] == "begun"
    followed.close()


def test_messages_that_wait_in_a_killed_process_are_answered_by_another_in_order_and_once(two: Neighbours) -> None:
    key = two.key(max_runs=100)
    names = [two.new_name("waiting") for _ in range(5)]
    agent = two.agent("begun", {"wait": 60})
    doomed = Installation(two.first.folder, **{name: two.first.environment[name] for name in _SHARED})
    doomed.start()
    streams = [lines(doomed.chat(key.secret, agent.id, conversationId=name)) for name in names]
    assert [next(stream)["content"] for stream in streams] == ["begun"] * 5
    two.change(agent, instructions='- text: "you said ${content}"')
    waiting = [
        lines(doomed.chat(key.secret, agent.id, f"word {number}", conversationId=name))
        for number in range(20)
        for name in [names[number % 5]]
    ]
    eventually(lambda: all(len(two.said(name)) == 10 for name in names), within=5)
    two.change(agent, instructions="- text: too late")  # they are answered by the agent that accepted them
    doomed.stop(signal.SIGKILL)
    assert all(heard(stream)[1] for stream in (*streams, *waiting))

    def answered() -> bool:
        return all(two.said(name)[-1][2] == "complete" for name in names)

    eventually(answered, within=10)
    for index, name in enumerate(names):
        said = two.said(name)
        assert said[:2] == [("user", "hi", None), ("assistant", "begun", "interrupted")]
        words = [f"word {number}" for number in range(index, 20, 5)]
        assert said[2:] == [
            line for word in words for line in (("user", word, None), ("assistant", f"you said {word}", "complete"))
        ]


_SHARED = ("PALAVER_DATABASE_URL", "PALAVER_MASTER_KEY", "PALAVER_DEMO", "PALAVER_DRAIN_S")
