"""Tokens: what finds what, in any spelling and any script, and what PostgreSQL makes of it."""

from __future__ import annotations

import asyncio
import gc
import re
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaver.core.types import clean
from palaver.knowledge.tokenize import MAX_QUERY_LEXEMES, index, query_lexemes
from palaver.store.driver import connect

HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), min_size=2, max_size=60)
ANY = st.text(st.characters(exclude_categories=()), max_size=400)
SIGNS = st.text(st.sampled_from("ab中文カ한 '\"\\:/@-_.+#&|!*()<>,0189\t\n\0’ßİ️é\u0301\u00ad"), max_size=200)


def lexemes(text: str) -> set[str]:
    return {found.replace("''", "'") for found in re.findall(r"'((?:[^']|'')+)'", index([(text, "D")]).literal)}


def wanted(question: str) -> list[str]:
    return [one.lexeme for one in query_lexemes(question)]


def found(question: str, text: str) -> bool:
    return bool(wanted(question)) and set(wanted(question)) <= lexemes(text)


@given(HAN, st.data())
def test_every_two_characters_of_a_chinese_text_are_found(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 2))
    assert found(text[place : place + 2], f"before {text} after")


@given(HAN)
def test_every_single_character_is_found(text: str) -> None:
    assert all(found(character, text) for character in text)


@given(st.one_of(ANY, SIGNS))
def test_no_text_and_no_question_is_too_strange(text: str) -> None:
    index([(text, "A"), (text, "D")])
    assert all(one.lexeme for one in query_lexemes(text))


@given(st.lists(st.from_regex(r"[a-zA-Z]{1,12}[0-9]{0,3}", fullmatch=True), min_size=1, max_size=30))
def test_every_word_of_a_text_is_found(words: list[str]) -> None:
    text = " ".join(words)
    assert all(found(word, text) for word in words)


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("安装", "请先安装客户端"),
        ("换行", "在这里换\n行的中文"),
        ("ﾃｽﾄ", "テストをする"),
        ("검색", "한국어 검색"),
        ("ＡＰＩ", "the api"),
        ("openai:gpt-4o", "use openai:gpt-4o here"),
        ("gpt-4o", "use openai:gpt-4o here"),
        ("GPT4o", "use openai:gpt-4o here"),
        ("openai", "use openai:gpt-4o here"),
        ("PALAVER_MODEL", "set PALAVER_MODEL=x"),
        ("palaver", "set PALAVER_MODEL=x"),
        ("max_body_bytes", "the `max_body_bytes` key"),
        ("max-body-bytes", "the `max_body_bytes` key"),
        ("maxBodyBytes", "the `max_body_bytes` key"),
        ("body bytes", "the `maxBodyBytes` key"),
        ("email", "send an E-Mail"),
        ("C++", "in C++ and C#"),
        ("C#", "in C++ and C#"),
        ("10.0.0.1", "from 10.0.0.1 to"),
        ("1000000", "costs 1,000,000 yuan"),
        ("cafe", "le Café"),
        ("installing", "it was installed"),
        ("servers", "the server’s address"),
        ("Docker", "使用Docker部署"),
        ("部署", "使用Docker部署"),
        ("没有", "如果没有声音"),
        ("it", "made by the IT department"),
    ],
)
def test_this_question_finds_this_text(question: str, text: str) -> None:
    assert found(question, text)


@pytest.mark.parametrize(
    ("question", "text"),
    [("3.11", "chapter 311"), ("java", "all of JavaScript"), ("C++", "in C"), ("文中", "中文"), ("产品", "生产 品种")],
)
def test_this_question_does_not_find_this_text(question: str, text: str) -> None:
    assert not found(question, text)


@pytest.mark.parametrize("question", ["", " \n", "what is it", "怎么可以的话", "'", "\\", "& | ! : * ( )", "😀", "���"])
def test_questions_that_ask_for_nothing(question: str) -> None:
    assert query_lexemes(question) == []


def test_stop_words_are_left_out_of_questions_but_not_of_texts() -> None:
    assert wanted("How do I install the client?") == ["instal", "client"]
    assert wanted("请问如何安装插件？") == ["安装", "装插", "插件"]
    assert {"how", "如何", "的"} <= lexemes("how 如何 的")


def test_one_spelling_of_a_word_finds_another_and_its_pieces_are_missed_half() -> None:
    assert [(one.lexeme, one.weight, one.missed) for one in query_lexemes("e-mail")] == [
        ("e", 0.5, 0.25),
        ("mail", 0.5, 0.25),
        ("email", 1, 1),
    ]
    assert "email" in lexemes("send an email")


def test_pairs_across_the_border_of_two_words_are_not_missed() -> None:
    first, across, second = query_lexemes("安装插件")
    assert (first.beside, across.beside, second.beside) == (None, (0, 2), None)
    assert (first.missed, first.weight) == (0.5, 1)


def test_places_tell_title_heading_and_text_apart() -> None:
    assert index([("指南", "A"), ("Run it", "B"), ("run", "D")]).literal == (
        "'指':1A '指南':1A '南':2A 'run':3B,5 'it':4B"
    )


def test_the_length_counts_the_words_of_the_text_alone() -> None:
    assert index([("title", "A"), ("three small words", "D"), ("两字", "D")]).length == 5


def test_a_very_long_question_is_quick_and_short() -> None:
    started = time.process_time()
    question = " ".join(f"word{number}" for number in range(20_000)) + "最后的问题"
    result = query_lexemes(question)
    assert time.process_time() - started < 0.5
    assert len(question) > 100_000
    assert len(result) == MAX_QUERY_LEXEMES
    assert result[0].lexeme == "word0"
    assert result[-1].lexeme == "问题"


def test_postgresql_takes_every_literal(database_url: str) -> None:
    words = " ".join(f"word{number}" for number in range(60_000))
    huge = [words, "again " * 20_000, "x" * 100_000, "".join(map(chr, range(0x4E00, 0x9FFF))) * 3]
    with asyncio.Runner() as runner:
        connection = runner.run(connect(database_url, timeout=10))

        def take(texts: list[str]) -> None:
            literals = [index([(clean(text), "B"), (clean(text), "D")]).literal for text in texts]
            runner.run(connection.execute("SELECT l::tsvector FROM unnest($1::text[]) l", literals))

        @settings(deadline=None, max_examples=40)
        @given(st.lists(st.one_of(ANY, SIGNS), max_size=5))
        def check(texts: list[str]) -> None:
            take(texts)

        check()
        take(huge)
        runner.run(connection.close())


def test_long_words_of_questions_are_not_remembered() -> None:
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(300):
            query_lexemes(f"{number:05}{'x' * 7_000}")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 500_000
