"""What the model gets to see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palaver.core.context import MAX_HISTORY_CHARACTERS, alternate_roles, fill_template, format_passages, history_window
from palaver.core.ports.models import ModelMessage
from palaver.core.types import AnyPart, File, Message, Passage, Text, Thinking, ToolCall, new_uid

NOW = datetime.now(UTC)


def message(role: Literal["user", "assistant"], *parts: AnyPart) -> Message:
    return Message(app=1, id=1, uid=new_uid(), conversation=1, role=role, parts=parts, created=NOW)


@pytest.mark.parametrize(
    ("instructions", "filled"),
    [
        ("{{a}} {{ a }} {{b}}", "x x "),
        ("{{n}}{{l}}{{t}}", '7["你"]true'),
        ("{a} {{}} {{ }} {{{{", "{a} {{}} {{ }} {{{{"),
        ("{{a b}}", "spaced"),
        ("{{x}}", "{{a}}"),
    ],
)
def test_names_in_braces_are_replaced_once(instructions: str, filled: str) -> None:
    variables = {"a": "x", "n": 7, "l": ["你"], "t": True, "a b": "spaced", "x": "{{a}}", "b": None}
    assert fill_template(instructions, variables) == filled


@given(st.text())
def test_any_instructions_can_be_filled(instructions: str) -> None:
    fill_template(instructions, {})


def test_earlier_turns_are_told_by_their_words_alone() -> None:
    call = ToolCall(call_id="1", name="t", arguments={})
    turns = history_window(
        [
            message("assistant", Text(text="an answer whose question is out of the window")),
            message("user", Text(text="q"), File(ref="f")),
            message("assistant", Thinking(text="hm"), call, Text(text="a")),
            message("user", Text(text="q2")),
            message("assistant"),
        ]
    )
    assert [(turn.role, turn.parts) for turn in turns] == [
        ("user", (Text(text="q"), File(ref="f"))),
        ("assistant", (Text(text="a"),)),
        ("user", (Text(text="q2"),)),
    ]


def test_the_window_holds_the_newest_that_fit_and_the_newest_in_any_case() -> None:
    long = Text(text="x" * (MAX_HISTORY_CHARACTERS // 2))
    turns = history_window([message("user", long), message("assistant", long), message("user", Text(text="new"))])
    assert [turn.parts[0] for turn in turns] == [Text(text="new")]
    huge = Text(text="x" * (MAX_HISTORY_CHARACTERS + 1))
    assert len(history_window([message("user", Text(text="old")), message("user", huge)])) == 1


def test_passages_are_numbered_and_name_their_source() -> None:
    passages = [Passage(text="T1", source="a.md", title="A", heading="B › C"), Passage(text="T2", source="b.txt")]
    assert format_passages(passages) == "[1] A › B › C (a.md)\nT1\n\n[2] b.txt (b.txt)\nT2"


def test_neighbours_of_one_role_are_joined_and_nothing_of_them_is_lost() -> None:
    def turn(role: Literal["user", "assistant"], *parts: AnyPart) -> ModelMessage:
        return ModelMessage(role=role, parts=parts)

    picture = File(ref="f")
    assert alternate_roles(
        [
            turn("user", Text(text="a")),
            turn("user", Text(text="b"), picture),
            turn("user", Text(text="c")),
            turn("assistant", Text(text="d")),
            turn("assistant", Text(text="e")),
            turn("user", picture),
        ]
    ) == (
        turn("user", Text(text="a\n\nb"), picture, Text(text="c")),
        turn("assistant", Text(text="d\n\ne")),
        turn("user", picture),
    )


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["", " ", "x"]))))
def test_what_a_model_reads_alternates_and_has_words_whatever_turns_came_to(
    turns: list[tuple[Literal["user", "assistant"], str]],
) -> None:
    read = alternate_roles(history_window([message(role, Text(text=text)) for role, text in turns]))
    assert [turn.role for turn in read] == [("user", "assistant")[at % 2] for at in range(len(read))]
    assert all(isinstance(part, Text) and part.text.strip() for turn in read for part in turn.parts)
