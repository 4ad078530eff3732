"""What becomes of an endpoint's answer in a conversation: what is stored, counted, and sent back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.core_stage import stage
from support.model_endpoint import DONE, Act, Upstream, chunk, endless, event, silence, speech, stream

from palaver.core.problems import Upstream as Failure
from palaver.core.types import Status, Text, Thinking, ToolCall, Usage


def counted(text: str, completion: int) -> bytes:
    return chunk({"content": text}, usage={"prompt_tokens": 3, "completion_tokens": completion})


@pytest.mark.parametrize("reports", [[1], [1, 2, 7]])
async def test_the_usage_in_the_last_piece_counts_when_a_run_is_stopped(
    database_url: str, tmp_path: Path, reports: list[int]
) -> None:
    pieces = [counted("so ", completion) for completion in reports]

    async with (
        Upstream.serving(silence(*pieces)) as upstream,
        stage(database_url, tmp_path, environment={"OPENAI_BASE_URL": upstream.url}) as on,
    ):
        sent = await on.say(await on.agent(model="openai:m"))
        await on.begun(sent, "so " * len(reports))
        assert await on.core.chat.stop_run(sent)
        ended = await on.ended(sent)
        assert (ended.status, ended.usage) == (Status.STOPPED, Usage(prompt=3, completion=reports[-1]))


async def test_the_usage_in_the_last_piece_counts_when_a_run_fails(database_url: str, tmp_path: Path) -> None:
    failing = stream(counted("so ", 4), event({"error": {"message": "broken"}}))

    async with (
        Upstream.serving(failing) as upstream,
        stage(database_url, tmp_path, environment={"OPENAI_BASE_URL": upstream.url}) as on,
    ):
        ended = await on.ended(await on.say(await on.agent(model="openai:m")))
        assert (ended.status, ended.usage) == (Status.FAILED, Usage(prompt=3, completion=4))


@pytest.mark.parametrize(
    ("spec", "thought"), [("openai:m", "a plan"), ("openai:m?thinking=open", "a plan"), ("openai:m?thinking=text", "")]
)
async def test_thinking_in_an_answer_is_stored_as_such_and_not_sent_back(
    database_url: str, tmp_path: Path, spec: str, thought: str
) -> None:
    acts = stream(speech("<think>a pl", "an</thi", "nk>\n\nyes")), stream(speech("again"))

    async with (
        Upstream.serving(*acts) as upstream,
        stage(database_url, tmp_path, environment={"OPENAI_BASE_URL": upstream.url}) as on,
    ):
        agent = await on.agent(model=spec)
        sent = await on.say(agent)
        await on.ended(sent)
        (answer,) = await on.answers(sent)
        assert "".join(part.text for part in answer.parts if isinstance(part, Thinking)) == thought
        text = "".join(part.text for part in answer.parts if isinstance(part, Text))
        assert text == ("yes" if thought else "<think>a plan</think>\n\nyes")
        await on.ended(await on.say(agent, conversation=sent.conversation.id))
        assert [body["model"] for body in upstream.bodies] == ["m", "m"]
        assert [one["content"] for one in upstream.bodies[-1]["messages"]] == ["hi", text, "hi"]


@pytest.mark.parametrize(
    ("act", "status", "reason", "text"),
    [
        (stream(DONE), Status.FAILED, "cut", ""),
        (stream(event({"code": "Throttling", "message": "slow"}), DONE), Status.FAILED, "refused", ""),
        (stream(chunk({"content": "x"}, finish="abort"), DONE), Status.FAILED, "refused", "x"),
        (stream(chunk({"content": "x"}, finish="length"), DONE), Status.COMPLETE, "length", "x"),
        (stream(chunk({"content": "x"}, finish="sensitive"), DONE), Status.COMPLETE, "content_filter", "x"),
        (endless(chunk({"content": "x" * 30})), Status.COMPLETE, "length", "x" * 100),
    ],
    ids=["nothing", "an error", "aborted", "at its limit", "filtered", "without end"],
)
async def test_how_an_answer_ends_is_how_its_run_ends(
    database_url: str, tmp_path: Path, act: Act, status: Status, reason: str, text: str
) -> None:
    async with (
        Upstream.serving(act) as upstream,
        stage(database_url, tmp_path, environment={"OPENAI_BASE_URL": upstream.url}, max_answer_bytes=400) as on,
    ):
        sent = await on.say(await on.agent(model="openai:m"))
        ended = await on.ended(sent)
        assert ended.status is status
        assert isinstance(ended.problem, Failure) is (status is Status.FAILED)
        assert (ended.problem.reason if isinstance(ended.problem, Failure) else ended.reason) == reason
        (answer,) = await on.answers(sent)
        assert "".join(part.text for part in answer.parts if isinstance(part, Text)) == text
        assert answer.ended == ended


async def test_what_cannot_be_stored_is_the_same_live_and_in_the_history(database_url: str, tmp_path: Path) -> None:
    odd: Any = {"tool_calls": [{"index": 0, "id": "a\0b", "function": {"name": "f\0", "arguments": '{"x":"\\u0000"}'}}]}
    acts = stream(chunk(odd, finish="tool_calls"), DONE), stream(speech("done"))

    async with (
        Upstream.serving(*acts) as upstream,
        stage(database_url, tmp_path, environment={"OPENAI_BASE_URL": upstream.url}) as on,
    ):
        sent = await on.say(await on.agent(model="openai:m"))
        await on.ended(sent)
        (answer,) = await on.answers(sent)
        (call,) = (part for part in answer.parts if isinstance(part, ToolCall))
        assert (call.call_id, call.name, call.arguments) == ("a\ufffdb", "f\ufffd", {"x": "\ufffd"})
        *_, result = upstream.bodies[-1]["messages"]
        assert result["tool_call_id"] == "a\ufffdb"
