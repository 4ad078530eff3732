"""Thinking in an answer's first words, however it is cut."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palaver.models.thinking import Mode, ThinkingSplitter


def split(*pieces: str, mode: Mode = "tags") -> list[tuple[bool, str]]:
    """The pieces, neighbours of one kind joined."""
    splitter = ThinkingSplitter(mode)
    found = [piece for text in pieces for piece in splitter.feed(text)] + splitter.end()
    assert all(text for _, text in found)
    return [(thinks, "".join(text for _, text in run)) for thinks, run in groupby(found, key=lambda piece: piece[0])]


@pytest.mark.parametrize(
    ("text", "thought", "said"),
    [
        ("<think>a</think>b", "a", "b"),
        ("<think>\na b\n</think>\n\nc\n", "a b", "c\n"),
        ("\n <think>a</think>b", "a", "b"),
        ("<think></think>b", "", "b"),
        ("<think>\n\n</think>\n\nb", "", "b"),
        ("<think>a</think>", "a", ""),
        ("<think>a</think>\n\n", "a", ""),
        ("<think>a", "a", ""),
        ("<think>a</thin", "a</thin", ""),
        ("<think>a < b </ c</think>d", "a < b </ c", "d"),
        ("<think>a</thinking>b</think>c", "a</thinking>b", "c"),
        ("<think>a<think>b</think>c", "a<think>b", "c"),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("<think>a</think><think>b</think>c", "ab", "c"),
        ("<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
    ],
)
def test_thinking_at_the_beginning_is_told_apart(text: str, thought: str, said: str) -> None:
    found = split(text)
    assert "".join(text for thinks, text in found if thinks) == thought
    assert "".join(text for thinks, text in found if not thinks) == said


@pytest.mark.parametrize(
    "text",
    [
        "```html\n<think>a</think>\n```",
        "The tag <think>a</think> is",
        "<thinking about>",
        "<thinking>a</thinking>b",
        "<Think>a</Think>",
        "< think>a",
        "<think",
        "<thi",
        "<",
        " ",
        "\n\n",
        "a</think>b",
        "</think>b",
        "  indented",
        " " * 2000 + "<think>a</think>b",
        "`<think>`",
    ],
)
def test_what_is_not_thinking_stays_as_it_is(text: str) -> None:
    assert split(text) == [(False, text)]
    assert split(*text) == [(False, text)]


@pytest.mark.parametrize("text", ["a\n</think>\n\nb", "<think>a</think>b", "\n<think>\na</think>b"])
def test_a_template_that_opens_the_thinking_is_a_setting(text: str) -> None:
    assert split(text, mode="open") == split(*text, mode="open") == [(True, "a"), (False, "b")]


def test_tags_may_be_left_alone() -> None:
    assert split("<think>a</think>b", mode="text") == [(False, "<think>a</think>b")]


texts = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<", "</", "think", ">", "a", "b c", " ", "\n", " " * 600, "\x85", "🍎", "</thi"]
    ),
    max_size=12,
).map("".join)


@given(text=texts, cuts=st.lists(st.integers(0, 80), max_size=10), mode=st.sampled_from(["tags", "open", "text"]))
@example(text="<think>a" + " " * 3000 + "</think>b", cuts=[500, 1200, 2000], mode="tags")
def test_how_an_answer_is_cut_changes_nothing(text: str, cuts: list[int], mode: Mode) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert split(*pieces, mode=mode) == split(text, mode=mode) == split(*text, mode=mode)


@given(texts)
def test_nothing_is_lost_but_tags_and_white_space_around_thinking(text: str) -> None:
    kept = "".join(piece for _, piece in split(text))
    assert "".join(kept.split()) == "".join(text.split()) or "<think>" in text


def test_an_endless_blank_in_thinking_costs_its_length_once() -> None:
    splitter = ThinkingSplitter()
    splitter.feed("<think>a")
    for _ in range(20_000):
        splitter.feed(" ")
    assert sum(len(text) for _, text in splitter.feed("b")) <= 1026
