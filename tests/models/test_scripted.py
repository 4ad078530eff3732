"""The scripted model plays what the instructions say, step by step."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import msgspec
import pytest
from support.model_runner import asked, called, finished, listen, listen_to_the_end, run, said, thought

from palaver.core.ports.models import ContentDelta, ModelDelta, ModelMessage, ModelRequest, StepFinished, ThinkingDelta
from palaver.core.problems import Upstream
from palaver.core.types import AnyPart, Text, ToolResult, Usage
from palaver.models import scripted
from palaver.models.scripted import ScriptedModel, ScriptStep


def play(script: str, question: str = "Hello?") -> list[ModelDelta]:
    return run(listen(ScriptedModel().stream(asked(question, instructions=script))))


def wrong(script: str) -> str:
    with pytest.raises(Upstream) as caught:
        play(script)
    assert caught.value.reason == "configuration"
    return caught.value.detail


def test_a_script_is_played_in_order() -> None:
    assert play("- think: Hm.\n- text: Yes.\n- text: No.") == [
        ThinkingDelta(text="Hm."),
        ContentDelta(text="Yes."),
        ContentDelta(text="No."),
        StepFinished(),
    ]


def test_a_script_may_stand_in_a_fence_among_other_words() -> None:
    assert said(play("# Test agent\n\nIt says yes.\n\n```yaml\n- text: Yes.\n```\n")) == "Yes."


def test_the_users_words_the_turn_and_dollars_are_filled_in() -> None:
    assert said(play('- text: "${turn}: ${content} costs $5 or $$5, ${unknown}"', "Tea?")) == (
        "1: Tea? costs $5 or $5, ${unknown}"
    )


def test_the_users_words_are_no_part_of_the_script() -> None:
    assert said(play("- text: ${content}", "x\n- fail: cut ${turn}")) == "x\n- fail: cut ${turn}"


def test_the_turn_counts_the_users_messages() -> None:
    history = (
        *asked("a").history,
        ModelMessage(role="assistant", parts=(Text(text="b"),)),
        *asked("c").history,
    )
    request = ModelRequest(model="", instructions="- text: ${turn} ${content}", history=history)
    assert said(run(listen(ScriptedModel().stream(request)))) == "2 c"


def test_pieces_have_the_size_they_are_given() -> None:
    heard = play("- pieces: {of: 你好，世界!, size: 2}\n- pieces: {of: ab}")
    assert [delta.text for delta in heard if isinstance(delta, ContentDelta)] == ["你好", "，世", "界!", "a", "b"]


def test_a_repeated_text_comes_so_many_times() -> None:
    heard = play("- repeat: {times: 200, text: x}")
    assert heard == [ContentDelta(text="x")] * 200 + [StepFinished()]


def test_a_pause_lasts_as_long_as_it_says() -> None:
    began = time.monotonic()
    play("- wait: 0.05\n- repeat: {times: 5, every: 0.01, text: x}")
    assert time.monotonic() - began >= 0.1


async def test_a_pause_ends_with_its_task() -> None:
    async with aclosing(ScriptedModel().stream(asked(instructions="- text: a\n- wait: 60"))) as deltas:
        assert await anext(deltas) == ContentDelta(text="a")
        task = asyncio.ensure_future(anext(deltas))
        await asyncio.wait({task}, timeout=0.01)
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        assert task.cancelled()


def test_a_call_ends_the_step_and_the_script_goes_on_after_the_result() -> None:
    script = """
    - text: Looking.
    - usage: {prompt: 3, completion: 5}
    - call: {name: weather, arguments: {city: "${content}", days: [1, "${turn}"]}}
    - text: "It is ${result}. "
    - call: {name: time}
    - text: "At ${result}."
    """
    request = asked("Kyiv", instructions=script)
    said_so_far: list[AnyPart] = []
    texts: list[str] = []
    ends: list[StepFinished] = []
    for result in ("sunny", "noon", ""):
        turn = ModelMessage(role="assistant", parts=tuple(said_so_far))
        history = (*request.history, turn) if said_so_far else request.history
        heard = run(listen(ScriptedModel().stream(msgspec.structs.replace(request, history=history))))
        texts.append(said(heard))
        ends.append(finished(heard))
        for call in called(heard):
            said_so_far += [call, ToolResult(call_id=call.call_id, name=call.name, content=result)]
    assert texts == ["Looking.", "It is sunny. ", "At noon."]
    assert [end.reason for end in ends] == ["tool_calls", "tool_calls", "stop"]
    assert [end.usage for end in ends] == [Usage(prompt=3, completion=5), Usage(), Usage()]
    first = said_so_far[0]
    assert msgspec.to_builtins(first)["arguments"] == {"city": "Kyiv", "days": [1, "1"]}


def test_finish_ends_the_answer_with_its_reason() -> None:
    heard = play("- text: a\n- usage: {completion: 7}\n- finish: length\n- text: b")
    assert said(heard) == "a"
    assert finished(heard) == StepFinished(reason="length", usage=Usage(completion=7))


@pytest.mark.parametrize("reason", ["timeout", "refused", "limit", "cut", "connect", "rejected", "malformed"])
def test_fail_fails_after_what_was_said(reason: str) -> None:
    heard, problem = run(listen_to_the_end(ScriptedModel().stream(asked(instructions=f"- text: a\n- fail: {reason}"))))
    assert said(heard) == "a"
    assert problem is not None
    assert problem.reason == reason


def test_texts_that_come_out_empty_are_not_said() -> None:
    assert play('- text: "${result}"\n- think: ""\n- repeat: {times: 3, text: ""}\n- pieces: {of: ""}') == [
        StepFinished()
    ]


@pytest.mark.parametrize(
    "instructions", ["", "Be kind: to all: always.", "text: x", "Just words.", "- - -\nfoo: ]"[6:]]
)
def test_without_a_script_it_repeats_the_question(instructions: str) -> None:
    heard = play(instructions, "Is anybody there?")
    assert said(heard) == "You said: Is anybody there?"
    assert 1 < len(heard) - 1 <= 4
    assert not thought(heard)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("- text: a\n- sing: la", "step 2: 'sing' is not a step"),
        ("- text: a\n- be polite", "step 2 must be one of"),
        ("- text: a\n  think: b", "step 1 must be one of"),
        ("- text:", "step 1: 'text' has no value"),
        ("- text: [a]", "step 1: Expected `str"),
        ("- wait: soon", "step 1: Expected `float"),
        ("- wait: -1", "step 1: Expected `float` >= 0"),
        ("- pieces: {of: a, size: 0}", "step 1: Expected `int` >= 1"),
        ("- pieces: {of: a, sise: 3}", "unknown field `sise`"),
        ("- repeat: {text: a}", "required field `times`"),
        ("- call: weather", "step 1: Expected `object"),
        ("- fail: oops", "step 1: Invalid enum value 'oops'"),
        ("- text: 'a\n- text: b", "not YAML"),
        ("```yaml\ntext: a\n```", "must be a list of steps"),
        ("```yaml\n- 'a\n```", "not YAML"),
    ],
)
def test_a_mistake_in_a_script_is_told_with_its_step(script: str, words: str) -> None:
    detail = wrong(script)
    assert words in detail
    if "step " in words and "list" not in words:
        assert "think, text, pieces, repeat, wait, call, usage, finish, fail" in detail


def test_a_number_may_be_written_as_text() -> None:
    assert play('- wait: "0"\n- repeat: {times: "2", text: a}') == [ContentDelta(text="a")] * 2 + [StepFinished()]


def test_the_description_names_every_step() -> None:
    assert scripted.__doc__ is not None
    assert [name for name in ScriptStep.__struct_fields__ if f"`- {name}: " not in scripted.__doc__] == []
