"""Agent files: what they may say, and what a mistake in one is answered with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.agentfile import AgentFileError, parse, write
from palaver.core.types import AgentSpec, Variable, clean, parse_uid

FULL = """---
name: guide
model: openai:deepseek-chat
alias: [help, helpdesk]
description: Answers questions.
opening_message: |
  Hello.
  What is it?
suggested_questions:
  - How do I configure a model?
  - 怎么配置模型？
enabled: false
auto_title: model
variables:
  - name: city
    required: true
    description: where the user lives
  - name: tone
knowledge: palaver
knowledge_mode: tool
history: 100
---

Answer from the documents. The user lives in {{city}}.
"""


def test_every_key_of_a_file_arrives_in_the_agent() -> None:
    assert parse(FULL) == AgentSpec(
        name="guide",
        model="openai:deepseek-chat",
        alias=("help", "helpdesk"),
        description="Answers questions.",
        opening_message="Hello.\nWhat is it?\n",
        suggested_questions=("How do I configure a model?", "怎么配置模型？"),
        enabled=False,
        auto_title="model",
        variables=(
            Variable(name="city", required=True, description="where the user lives"),
            Variable(name="tone"),
        ),
        knowledge=("palaver",),
        knowledge_mode="tool",
        history=100,
        instructions="Answer from the documents. The user lives in {{city}}.",
    )


def test_a_name_is_enough() -> None:
    assert parse("---\nname: a\n---\n") == AgentSpec(name="a")


def test_windows_line_ends_and_a_byte_order_mark_change_nothing() -> None:
    assert parse("\ufeff" + FULL.replace("\n", "\r\n")) == parse(FULL)


def test_numbers_and_dates_are_the_text_they_are_written_as() -> None:
    assert parse("---\nname: 2026-11-21\nmodel: 4.10\n---\n") == AgentSpec(name="2026-11-21", model="4.10")


def test_a_key_left_empty_is_as_if_it_were_not_there() -> None:
    assert parse("---\nname: a\ndescription:\nalias:\n---\n") == AgentSpec(name="a")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("name: a", 1, "begins with front matter"),
        ("", 1, "begins with front matter"),
        ("---\nname: a\n", 1, "is not closed"),
        ("---\n---\n", 1, "has no name"),
        ("---\ndescription: x\n---\n", 1, "has no name"),
        ("---\nname: ' '\n---\n", 2, "must not be blank"),
        (f"---\nname: {'x' * 256}\n---\n", 2, "at most 255"),
        ("---\nname: a\nopening_mesage: hi\n---\n", 3, "did you mean 'opening_message'?"),
        ("---\nname: a\nOpening-Message: hi\n---\n", 3, "did you mean 'opening_message'?"),
        ("---\nname: a\n\nzzz: hi\n---\n", 4, "the valid ones are: name, model, fallback_model"),
        ("---\nname: a\nmcp: [x]\n---\n", 3, "not available in this version"),
        ("---\nname: a\ninstructions: x\n---\n", 3, "the text below"),
        ("---\nname: a\nname: b\n---\n", 3, "is repeated"),
        ("---\nname: [a]\n---\n", 2, "expected text"),
        ("---\nname: yes\n---\n", 2, "write it in quotes: 'yes'"),
        ("---\nname: a\nenabled: maybe\n---\n", 3, "true or false"),
        ("---\nname: a\nauto_title: never\n---\n", 3, "first_message or model"),
        ("---\nname: a\nknowledge_mode: [tool]\n---\n", 3, "always or tool"),
        ("---\nname: a\nhistory: 1001\n---\n", 3, "from 0 to 1000"),
        ("---\nname: a\nhistory: '40'\n---\n", 3, "a whole number"),
        ("---\nname: a\nhistory: true\n---\n", 3, "a whole number"),
        ("---\nname: a\nalias: [b, '42']\n---\n", 3, "mistaken for an agent's id"),
        ("---\nname: a\nalias: 0190a1b2c3d4e5f60718293a4b5c6d7e\n---\n", 3, "mistaken for an agent's id"),
        ("---\nname: a\nalias:\n  - b\n  - b\n---\n", 5, "is repeated"),
        ("---\nname: a\nalias: {b: c}\n---\n", 3, "expected text"),
        ("---\nname: a\nvariables: city\n---\n", 3, "expected a list"),
        ("---\nname: a\nvariables:\n  - name: b\n    requird: true\n---\n", 5, "did you mean 'required'?"),
        ("---\nname: a\nvariables:\n  - required: true\n---\n", 4, "needs a name"),
        ("---\nname: a\nvariables:\n  - name: b\n  - name: b\n---\n", 5, "is repeated"),
        ("---\nname: a\nvariables:\n  - name: '{b}'\n---\n", 4, "must not contain braces"),
        ("---\nname: a\ndescription: 'x\n---\n", 3, "not YAML"),
        ("---\nname: a\n\tdescription: x\n---\n", 3, "not YAML"),
        ("---\nname: a\x07\n---\n", 2, "U+0007"),
        ("---\n- name\n---\n", 2, "name: value"),
        ("---\nname: a\nalias: " + "[" * 5000 + "\n---\n", 2, "nested too deeply"),
    ],
)
def test_a_mistake_is_an_error_with_its_line_and_what_would_be_right(text: str, line: int, says: str) -> None:
    with pytest.raises(AgentFileError) as caught:
        parse(text)
    assert caught.value.line == line
    assert says in str(caught.value)


def test_an_error_names_the_file() -> None:
    with pytest.raises(AgentFileError) as caught:
        parse("---\nnam: x\n---\n")
    assert str(caught.value.in_file("guide.md")) == "guide.md, line 2: there is no key 'nam'; did you mean 'name'?"


def test_a_written_file_is_short_and_readable() -> None:
    assert write(parse(FULL)) == FULL.replace("[help, helpdesk]", "\n  - help\n  - helpdesk").replace(
        "alias: \n", "alias:\n"
    ).replace("knowledge: palaver", "knowledge:\n  - palaver").replace("---\n\nAnswer", "---\nAnswer")


texts = st.text(max_size=40).map(clean)
names = st.text(min_size=1, max_size=40).map(clean).map(str.strip).filter(bool)
aliases = names.filter(lambda name: not name.isdecimal() and parse_uid(name) is None)
variables: st.SearchStrategy[Any] = st.builds(
    Variable,
    name=names.filter(lambda name: "{" not in name and "}" not in name),
    required=st.booleans(),
    description=texts,
)
specs: st.SearchStrategy[AgentSpec] = st.builds(
    AgentSpec,
    name=names,
    instructions=st.text(max_size=200).map(clean).map(lambda text: text.replace("\r\n", "\n").strip()),
    model=st.none() | names,
    alias=st.lists(aliases, unique=True, max_size=3).map(tuple),
    description=texts,
    opening_message=texts,
    suggested_questions=st.lists(texts, unique=True, max_size=3).map(tuple),
    enabled=st.booleans(),
    auto_title=st.sampled_from(["first_message", "model"]),
    variables=st.lists(variables, unique_by=lambda one: one.name, max_size=3).map(tuple),
    knowledge=st.lists(names, unique=True, max_size=3).map(tuple),
    knowledge_mode=st.sampled_from(["always", "tool"]),
)


@given(specs)
def test_what_is_written_reads_as_it_was(spec: AgentSpec) -> None:
    assert parse(write(spec)) == spec
