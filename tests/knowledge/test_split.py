"""Passages: nothing is lost, nothing is torn, nothing is too large."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaver.knowledge import markdown, plaintext
from palaver.knowledge.blocks import LARGE
from palaver.knowledge.split import PassageDraft, split

WORD = st.sampled_from(["a", "word", "structure", "中", "文档", "知识库", "很长很长的一个词", "x" * 40])
LINE = st.tuples(st.lists(WORD, min_size=1, max_size=6), st.integers(1, 9)).map(
    lambda pair: " ".join(f"{word}{'abcdefghi'[turn]}" for turn in range(pair[1]) for word in pair[0])
)
PARAGRAPH = st.one_of(
    LINE,
    st.lists(LINE, min_size=1, max_size=4).map("。".join),
    st.lists(LINE, min_size=1, max_size=6).map(lambda lines: "\n".join(f"- {line}" for line in lines)),
    st.lists(LINE, min_size=1, max_size=6).map(lambda lines: "```\n" + "\n".join(lines) + "\n```"),
    st.tuples(st.integers(1, 6), WORD).map(lambda pair: f"{'#' * pair[0]} {pair[1]}"),
)
DOCUMENT = st.tuples(st.lists(PARAGRAPH, max_size=8), st.integers(1, 3)).map(
    lambda pair: "\n\n".join(pair[0] * pair[1])
)


def of(text: str, title: str = "Title") -> list[PassageDraft]:
    return split(title, markdown.read(text))


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z一-龥]+", text))


@settings(max_examples=60, deadline=None)
@given(DOCUMENT)
def test_no_word_is_lost_and_no_passage_is_too_large(text: str) -> None:
    pieces = of(text)
    assert words(text) <= words(" ".join(f"{piece.heading}\n{piece.text}" for piece in pieces))
    assert all(0 < len(piece.text) <= LARGE for piece in pieces)


@settings(max_examples=60, deadline=None)
@given(DOCUMENT)
def test_plain_text_loses_no_word_either(text: str) -> None:
    pieces = split("Title", plaintext.read(text))
    assert words(text) <= words(" ".join(f"{piece.heading}\n{piece.text}" for piece in pieces))
    assert all(0 < len(piece.text) <= LARGE for piece in pieces)


@given(st.text(max_size=300))
def test_no_markdown_is_too_strange(text: str) -> None:
    of(text)


def test_a_section_is_a_passage_and_its_path_leads_to_it() -> None:
    text = (
        f"# Title\n\n## Install\n\n### Linux\n\n{'Use the archive. ' * 20}\n\n### Windows\n\n{'Use the setup. ' * 20}"
    )
    assert [piece.heading for piece in of(text)] == ["Install › Linux", "Install › Windows"]


def test_a_first_heading_that_is_not_the_title_stays_in_the_path() -> None:
    assert [piece.heading for piece in of("# Manual\n\n" + "text " * 60, title="Other")] == ["Manual"]


def test_tiny_sections_side_by_side_are_put_together() -> None:
    pieces = of("# Title\n\n## Colours\n\n### Red\n\nLike fire.\n\n### Blue\n\nLike the sea.\n")
    assert pieces == [
        PassageDraft(
            text="### Red\n\nLike fire.\n\n### Blue\n\nLike the sea.", heading="Colours", inner=("Red", "Blue")
        )
    ]


def test_a_long_section_is_cut_between_paragraphs_into_even_pieces() -> None:
    paragraphs = [f"Paragraph {number}. " + "word " * 60 for number in range(9)]
    pieces = of("\n\n".join(paragraphs))
    assert [piece.text.count("Paragraph") for piece in pieces] == [3, 3, 3]


@pytest.mark.parametrize("mark", ["。", "！", "？", "”。", ". ", "! ", "?) "])
def test_a_long_paragraph_is_cut_after_a_sentence(mark: str) -> None:
    sentence = ("这是一句比较长的话" * 6) + mark
    pieces = of(sentence * 40)
    assert len(pieces) > 1
    assert all(piece.text.endswith(mark.strip()) for piece in pieces)


def test_code_that_fits_is_not_cut() -> None:
    code = "```py\n" + "\n".join(f"line_{number} = {number}\n" for number in range(50)) + "\n```"
    assert len(code) < LARGE
    pieces = of(f"{'Before. ' * 100}\n\n{code}\n\n{'After. ' * 100}")
    assert sum(code in piece.text for piece in pieces) == 1


def test_code_that_does_not_fit_is_fenced_in_every_piece() -> None:
    code = "```py\n" + "\n".join(f"line_{number} = {number}" for number in range(200)) + "\n```"
    pieces = of(f"# Title\n\n{code}")
    assert len(pieces) > 2
    assert all(piece.text.startswith("```py\nline_") and piece.text.endswith("\n```") for piece in pieces)


def test_every_piece_of_a_long_table_has_its_head() -> None:
    rows = "\n".join(f"| {number} | some words for number {number} |" for number in range(100))
    pieces = of(f"| No | Words |\n|---|---|\n{rows}")
    assert len(pieces) > 2
    assert all(piece.text.startswith("| No | Words |\n|---|---|\n| ") for piece in pieces)


def test_a_line_that_announces_code_stays_with_it() -> None:
    code = "```\n" + "run\n" * 150 + "```"
    pieces = of(f"{'Intro. ' * 80}\n\nRun this:\n\n{code}")
    assert any("Run this:\n\n```" in piece.text for piece in pieces)


def test_a_list_in_which_code_stands_is_cut_between_its_items() -> None:
    item = "- Step\n\n  ```sh\n  " + "x" * 300 + "\n  ```\n"
    pieces = of(item * 8)
    assert len(pieces) > 1
    assert all(piece.text.count("```") % 2 == 0 for piece in pieces)


def test_a_document_of_headings_alone_is_found_by_them() -> None:
    assert [piece.text for piece in of("# Hello", title="Hello")] == ["Hello"]


def test_a_word_longer_than_a_passage_is_cut() -> None:
    assert "".join(piece.text for piece in of("x" * 5000)) == "x" * 5000


def test_nothing_gives_nothing() -> None:
    assert of("") == of("\n\n---\n") == []
