"""One turn: what it uses, and what the model gets to see of earlier ones."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from support.core_stage import stage
from support.model_endpoint import Act, Upstream, answer, chunk, silence, speech, stream

from palaver.core.types import Status, Usage

USED = "- usage: {prompt: 3, completion: 1}\n- text: begun\n- usage: {prompt: 3, completion: 2}\n"


@pytest.mark.parametrize(
    ("script", "status", "usage"),
    [
        (USED, Status.COMPLETE, Usage(prompt=3, completion=2)),
        (USED + "- fail: cut", Status.FAILED, Usage(prompt=3, completion=2)),
        (USED + "- text: '!'\n- wait: 60", Status.STOPPED, Usage(prompt=3, completion=2)),
        (USED + "- call: {name: none}\n" + USED + "- fail: cut", Status.FAILED, Usage(prompt=6, completion=4)),
        (USED + "- call: {name: none}\n- fail: cut", Status.FAILED, Usage(prompt=3, completion=2)),
    ],
)
async def test_the_usage_reported_last_counts_however_the_run_ends(
    database_url: str, tmp_path: Path, script: str, status: Status, usage: Usage
) -> None:
    async with stage(database_url, tmp_path) as on:
        sent = await on.say(await on.agent(script))
        if status is Status.STOPPED:
            await on.begun(sent, "begun!")
            assert await on.core.chat.stop_run(sent)
        ended = await on.ended(sent)
        assert (ended.status, ended.usage) == (status, usage)
        assert (await on.answers(sent))[0].ended == ended


REFUSED = answer(400, b'{"error":{"message":"no"}}')
SPEAKS = stream(speech("yes"))


@pytest.mark.parametrize(
    ("acts", "roles"),
    [
        ([SPEAKS, SPEAKS], ["user", "assistant", "user"]),
        ([REFUSED, SPEAKS], ["user"]),
        ([REFUSED, REFUSED, SPEAKS], ["user"]),
        ([SPEAKS, REFUSED, SPEAKS], ["user", "assistant", "user"]),
        ([silence(chunk({"reasoning": "hm"})), SPEAKS], ["user"]),
        ([silence(chunk({"content": "so"})), SPEAKS], ["user", "assistant", "user"]),
    ],
    ids=["good", "failed", "failed twice", "failed later", "stopped without words", "stopped in its words"],
)
async def test_an_endpoint_is_told_of_turns_that_alternate_however_they_ended(
    database_url: str, tmp_path: Path, acts: list[Act], roles: list[str]
) -> None:
    async with (
        Upstream.serving(*acts) as upstream,
        stage(database_url, tmp_path, environment={"OPENAI_BASE_URL": upstream.url}) as on,
    ):
        agent = await on.agent(model="openai:m")
        first = sent = await on.say(agent, "0")
        for number in range(1, len(acts)):
            if acts[number - 1] not in {SPEAKS, REFUSED}:
                await on.begun(sent)
                await on.core.chat.stop_run(sent)
            await on.ended(sent)
            sent = await on.say(agent, str(number), conversation=first.conversation.id)
        assert (await on.ended(sent)).status is Status.COMPLETE
        messages = upstream.bodies[-1]["messages"]
        assert [one["role"] for one in messages] == roles
        questions = "\n\n".join(one["content"] for one in messages if one["role"] == "user").split("\n\n")
        assert questions == [str(number) for number in range(len(acts))]


@pytest.mark.parametrize(("history", "seen"), [(0, 1), (2, 2), (40, 4)])
async def test_an_agent_says_how_many_earlier_messages_its_model_sees(
    database_url: str, tmp_path: Path, history: int, seen: int
) -> None:
    async with stage(database_url, tmp_path) as on:
        agent = await on.agent("- text: '${turn}'", history=history)
        sent = await on.say(agent)
        for _ in range(3):
            await on.ended(sent)
            sent = await on.say(agent, conversation=sent.conversation.id)
        await on.ended(sent)
        assert (await on.answers(sent))[-1].text == str(seen)


async def test_long_answers_are_not_read_only_to_be_left_out(database_url: str, tmp_path: Path) -> None:
    async with stage(database_url, tmp_path) as on:
        noise = "".join(Random(1).choices("abcdefghijklmnop", k=200_000))
        long, brief = await on.agent(f"- text: {noise}"), f"- text: '{noise[:1000]}'"
        sent = await on.say(long)
        for _ in range(9):
            await on.ended(sent)
            sent = await on.say(long, conversation=sent.conversation.id)
        await on.ended(sent)
        here, store = sent.conversation.id, on.core.store.conversations
        read = (await store.get_messages(on.who.app, here, before=2**62, limit=40, max_bytes=1_000_000)).messages
        assert len(read) == 8
        assert read == (await on.core.chat.list_messages(on.who, sent.conversation, limit=40))[-8:]
        agent = await on.agent(brief)
        for _ in range(3):
            await on.ended(await on.say(agent, conversation=here))
        read = (await store.get_messages(on.who.app, here, before=2**62, limit=6, max_bytes=1_000_000)).messages
        assert read == (await on.core.chat.list_messages(on.who, sent.conversation, limit=40))[-6:]
