"""What the documents show works: files that are applied, scripts that are played, commands that there are."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer
import yaml
from support.survey import ROOT, blocks, documents, shown

from palaver.agentfile import AgentFileError, parse
from palaver.cli import cli
from palaver.config import Settings
from palaver.core.ports.models import ModelDelta, ModelMessage, ModelRequest, ThinkingDelta, ToolCallDelta
from palaver.core.problems import Upstream
from palaver.core.types import AgentSpec, Text, ToolCall, ToolResult
from palaver.models.scripted import ScriptedModel, parse_script

MODELS = ROOT / "docs" / "models.md"


def _agents() -> Iterator[tuple[Path, AgentSpec]]:
    for document in documents():
        for language, text in blocks(document):
            if language == "markdown":
                yield document, parse(text)


def test_every_agent_file_shown_can_be_applied() -> None:
    assert {spec.name for _, spec in _agents()} >= {"front-desk", "helper", "rehearsal", "unlucky", "slow", "librarian"}


def test_the_mistake_shown_is_the_one_reported() -> None:
    with pytest.raises(AgentFileError) as caught:
        parse("---\nname: helper\nmodle: scripted\n---\n")
    said = str(caught.value.in_file("helper.md"))
    assert f"palaver: {said}\n" in [text for _, text in blocks(ROOT / "docs" / "agents.md")]


@pytest.mark.parametrize("name", ["rehearsal", "unlucky", "librarian"])
def test_every_script_shown_plays(name: str) -> None:
    spec = next(spec for document, spec in _agents() if document == MODELS and spec.name == name)
    said, failure = asyncio.run(_played(spec))
    match name:
        case "rehearsal":
            assert said == "[The caller wants to know something.]This is answer 1. You asked: Is it open?"
        case "unlucky":
            assert (said, failure) == ("It begins well, ", "cut")
        case _:
            assert said == "[I will look it up.]I found: the result for Is it open?"


def test_the_slow_script_is_twenty_seconds_of_silence_and_fifty_pieces() -> None:
    steps = parse_script(next(spec.instructions for _, spec in _agents() if spec.name == "slow"))
    assert steps is not None
    silence, pieces = steps
    assert (silence.wait, pieces.repeat and pieces.repeat.times) == (20, 50)


async def _played(spec: AgentSpec) -> tuple[str, str]:
    """What the script says to one question (thinking in brackets), and what it fails with. Tools answer at once."""
    asked = ModelMessage(role="user", parts=(Text(text="Is it open?"),))
    history = [asked]
    said, again = "", True
    while again:
        request = ModelRequest(model="", instructions=spec.instructions, history=tuple(history))
        deltas: list[ModelDelta] = []
        try:
            async for delta in ScriptedModel().stream(request):
                deltas.append(delta)  # noqa: PERF401  what came before a failure counts
        except Upstream as problem:
            return said + _text(deltas), problem.reason
        said += _text(deltas)
        calls = [delta.call for delta in deltas if isinstance(delta, ToolCallDelta)]
        again = bool(calls)
        history = [asked, ModelMessage(role="assistant", parts=(*calls, *map(_result, calls)))]
    return said, ""


def _text(deltas: list[ModelDelta]) -> str:
    spoken = (f"[{one.text}]" if isinstance(one, ThinkingDelta) else getattr(one, "text", "") for one in deltas)
    return "".join(spoken)


def _result(call: ToolCall) -> ToolResult:
    return ToolResult(call_id=call.call_id, name=call.name, content=f"the result for {call.arguments['query']}")


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_every_block_is_what_it_says_it_is(document: Path) -> None:
    for language, text in blocks(document):
        match language:
            case "json":
                json.loads(text)
            case "yaml":
                yaml.safe_load(text)
            case "toml":
                assert tomllib.loads(text).keys() <= set(Settings.__struct_fields__)
            case "python":
                compile(text, shown(document), "exec")
            case "" | "sh" | "markdown" | "javascript":
                pass
            case _:
                pytest.fail(f"a block in {language!r}")


def _commands(document: Path) -> Iterator[list[str]]:
    """Every ``palaver …`` that the document tells its reader to run."""
    for language, text in blocks(document):
        if language == "sh":
            lines = text.replace("\\\n", " ").splitlines()
            yield from (shlex.split(line)[1:] for line in lines if line.startswith("palaver "))
    for quoted in re.findall(r"(?<!`)`palaver( [a-z][^`\n]*)`(?!`)", document.read_text()):
        yield shlex.split(quoted)


@pytest.mark.parametrize("document", documents(), ids=shown)
def test_every_command_shown_exists_with_its_options(document: Path) -> None:
    # Its types are the library's own secret.
    palaver: Any = cast("Any", typer).main.get_command(cli)
    for words in _commands(document):
        command = palaver
        rest = list(words)
        while rest and (below := getattr(command, "commands", None)):
            assert rest[0] in below, words
            command = below[rest.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} - known == set(), words
