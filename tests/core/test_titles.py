"""A conversation's title, by the agent's model."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from palaver.core.observer import NullObserver
from palaver.core.ports.models import ChatModel, ImageModel, SpeechModel
from palaver.core.problems import Upstream
from palaver.core.suggestions import generate_suggestions
from palaver.core.titles import generate_title
from palaver.core.types import Agent, AgentSpec, Usage, new_uid
from palaver.models.scripted import ScriptedModel


class One:
    """The scripted model under a name, as an endpoint's model has one."""

    def __init__(self, name: str = "small") -> None:
        self.name = name

    def chat_model(self, spec: str | None, fallback: str | None = None) -> tuple[ChatModel, str]:
        if spec == "none":
            raise Upstream(reason="configuration")
        return ScriptedModel(), self.name

    def image_model(self, spec: str | None) -> tuple[ImageModel, str] | None:
        return None

    def speech_model(self, spec: str | None) -> tuple[SpeechModel, str] | None:
        return None


def agent(*script: dict[str, Any], model: str = "openai:small") -> Agent:
    now = datetime.now(UTC)
    spec = AgentSpec(name="guide", model=model, instructions=json.dumps(script))
    return Agent(app=1, id=1, uid=new_uid(), spec=spec, created=now, modified=now)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("天气\n\n of today ", "天气 of today"), ('"Quoted"', "Quoted"), ("「天气」", "天气"), (" \n", "")],
)
async def test_a_title_is_what_the_model_says_in_one_line_without_quotes(text: str, expected: str) -> None:
    assert (
        await generate_title(One(), NullObserver(), agent({"think": "hm"}, {"text": text}), "hello", None) == expected
    )


async def test_the_model_reads_the_message_and_the_summary() -> None:
    title = await generate_title(One(), NullObserver(), agent({"text": "${content}"}), "the message", "the summary")
    assert "the message So far: the summary" in title


async def test_without_a_model_that_answers_there_is_no_title() -> None:
    assert await generate_title(One(), NullObserver(), agent({"text": "half"}, {"fail": "cut"}), "hello", None) == ""
    assert await generate_title(One(), NullObserver(), agent(model="none"), "hello", None) == ""
    assert await generate_title(One(""), NullObserver(), agent({"text": "x"}), "hello", None) == ""


class Recorder(NullObserver):
    """Keeps what it observes."""

    def __init__(self) -> None:
        self.tokens: list[tuple[str, Usage]] = []
        self.failures: list[str] = []

    def tokens_used(self, model: str, usage: Usage) -> None:
        self.tokens.append((model, usage))

    def model_failed(self, model: str, problem: Upstream) -> None:
        self.failures.append(problem.reason)


async def test_the_tokens_of_titles_and_suggestions_are_counted_however_they_end() -> None:
    observer, used = Recorder(), {"prompt": 7, "completion": 2}
    good, cut = agent({"text": "hi"}, {"usage": used}), agent({"text": "hi"}, {"usage": used}, {"fail": "cut"})
    assert await generate_title(One(), observer, good, "hello", None) == "hi"
    assert await generate_suggestions(One(), observer, good, []) == ["hi"]
    assert await generate_title(One(), observer, cut, "hello", None) == ""
    assert observer.tokens[:2] == [("small", Usage(prompt=7, completion=2))] * 2
    assert len(observer.tokens) == 3
    assert observer.failures == ["cut"]
