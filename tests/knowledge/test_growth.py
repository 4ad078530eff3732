"""No document is read in more than proportion to its size, however it is made: time and output at n and at 2n."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Generator

import msgspec
import pytest

from palaver.core.ports.documents import UnreadableDocument
from palaver.knowledge.files import Kind
from palaver.knowledge.tokenize import query_lexemes
from palaver.knowledge.worker import extract_text, prepare_document

SIZE = 20_000
"""Characters of the smaller one."""
GROWTH = 2.5
UNNOTICED = 0.04
"""Seconds below which a time says nothing."""
TRIES = 5

PIECES = {
    # HTML
    "unclosed lists": "<ul><li>x",
    "unclosed tables": "<table><tr><td><p>x</p>",
    "unclosed elements": "<div>",
    "unclosed paragraphs": "<p>x",
    "unclosed emphasis": "<p><b><i>x",
    "unclosed links": "<a>x",
    "unclosed headings": "<h1>x",
    "links in headings": "<h1><a>x",
    "unclosed cells": "<td>x",
    "unclosed rows": "<tr><td>x",
    "unclosed main parts": "<main>x",
    "unclosed code": "<pre>`",
    "unclosed selections": "<select><option>x",
    "unclosed drawings": "<svg><style><div>",
    "unclosed formulas": "<math><mi><p>",
    "unclosed templates": "<template>",
    "unclosed objects": "<object><a>",
    "unclosed scripts": "<script>",
    "unclosed texts": "<textarea>",
    "unclosed titles": "<title>",
    "unclosed comments": "<!--",
    "unclosed data": "<![CDATA[",
    "unclosed quotation marks": "<a x='",
    "badly closed emphasis": "<b><p></b>",
    "badly nested": "<span><div></span>",
    "closed only": "</p>",
    "main parts": "<main>x</main>",
    "lists": "<ul><li>x</li></ul>",
    "tables": "<table><tr><td>x</td></tr></table>",
    "definitions": "<dl><dt>x<dd>",
    "images": "<img alt=x>",
    "line ends": "<br>",
    "rules": "<hr>",
    "HTML blocks": "<p>\n\n",
    "open brackets": "<",
    "tags in tags": "<a",
    "entities": "&amp;&lt;",
    "unfinished entities": "&",
    "large entities": "&#9",
    # Markdown and text
    "headings": "# a\n\n",
    "headings with sections": "# a\n\nt\n\n### b\n\nu\n\n",
    "underlined headings": "a\n=\n",
    "titles": "a\n===\n",
    "chapters": "第一章 x\n",
    "quotations in quotations": ">",
    "quotations": "> a\n",
    "lists in quotations": "> - a\n",
    "lists in lists": "- ",
    "deeper lists": "- a\n  - b\n    - c\n",
    "items": "- a\n",
    "numbered items": "1. a\n",
    "fences": "```\n",
    "a fence of many signs": "`",
    "cells": "|a",
    "rows": "|a|b|\n|-|-|\n",
    "link references": "[a]: b\n",
    "unfinished link references": "[a]:",
    "brackets": "[",
    "links in links": "](",
    "stars": "*",
    "rows of stars": "* * *\n",
    "backslashes": "\\",
    "front matter": "---\n",
    "front matter with keys": "---\na: b\n",
    "paragraphs": "a\n\n",
    "a paragraph of many lines": "a\n",
    "indented code": "    a\n",
    # What any text may be made of
    "one word": "a",
    "words": "ab ",
    "Chinese": "中",
    "Japanese lines": "あ\n",
    "full stops": ".",
    "full stops and brackets": ".)",
    "sentences in quotation marks": '."',
    "spaces": " ",
    "tabs": "\t",
    "line feeds": "\n",
    "carriage returns": "\r",
    "no-break spaces": "\u00a0",
    "joined words": "a-",
    "addresses": "a2:b/",
    "humps": "aB",
    "thousands": "1,",
    "apostrophes": "a'",
    "accents": "\u0301",
    "accented letters": "a\u0301",
    "ligatures of many letters": "\ufdfa",
    "emoji": "😀",
}
WHOLES: dict[str, Callable[[int], str]] = {
    "attributes": lambda n: f"<p {' '.join(f'a{i}' for i in range(n // 6))}>x",
    "quoted attributes": lambda n: "<p " + "".join(f'a{i}=">"' for i in range(n // 9)) + ">x",
    "attributes in moderation": lambda n: f"<p {' '.join(f'a{i}' for i in range(150))}>x" * (n // 750),
    "emphasis, each its own": lambda n: "".join(f"<b id={i}>x" for i in range(n // 10)),
    "fonts, each its own": lambda n: "".join(f"<div><font a={i}></div>" for i in range(n // 20)),
    "emphasis renewed": lambda n: "".join(f"<b id={i}>" for i in range(400)) + "<p>x" * (n // 4),
    "nested as far as may be": lambda n: ("<div>" * 400 + "x" + "</div>" * 400) * (n // 4400),
    "nested tables": lambda n: ("<table><tr><td>" * 100 + "x" + "</table>" * 100) * (n // 2300),
    "one heading": lambda n: f"# {'a' * n}",
    "one heading of brackets": lambda n: f"# {'[' * n}",
    "one heading of links": lambda n: f"# {'[a](' * (n // 4)}",
    "one heading of braces": lambda n: f"# {' {' * (n // 2)}",
    "one heading of spaces": lambda n: f"# a{' ' * n}b",
    "a title of spaces": lambda n: f"---\ntitle: a{' ' * n}b\n---\nx",
    "one wide table": lambda n: f"{'|a' * (n // 6)}|\n{'|-' * (n // 6)}|\n{'|b' * (n // 6)}\n",
    "wide rows": lambda n: f"{'|a' * 50}|\n{'|-' * 50}|\n" + "|b\n" * (n // 3),
    "deep lists": lambda n: "".join(f"{'  ' * (i % 50)}- a\n" for i in range(n // 50)),
    "lists that go on deeper": lambda n: "".join(f"{' ' * i}- a\n" for i in range(int((2 * n) ** 0.5))),
    "lazy quotations": lambda n: "> > > > > a\n" + "b\n" * (n // 2),
    "words, each another": lambda n: " ".join(f"w{i}x" for i in range(n // 7)),
    "words in Chinese, each another": lambda n: "".join(chr(0x4E00 + i * 7 % 20_000) for i in range(n)),
    "headings of all levels": lambda n: "".join(f"{'#' * (i % 6 + 1)} s{i}\n\nt\n\n" for i in range(n // 14)),
}
SHAPES: dict[str, Callable[[int], str]] = {
    **{name: lambda n, piece=piece: piece * (n // len(piece)) for name, piece in PIECES.items()},
    **WHOLES,
}


@pytest.fixture(autouse=True)
def without_collecting() -> Generator[None]:
    """As in the process that reads."""
    gc.disable()
    yield
    gc.enable()


def grows_in_proportion(read: Callable[[str], int], shape: Callable[[int], str]) -> None:
    small, large = shape(SIZE), shape(2 * SIZE)
    times: list[tuple[float, float]] = []
    ratios: list[float] = []
    for _ in range(TRIES):
        begun = time.process_time()
        less = read(small)
        between = time.process_time()
        more = read(large)
        times.append((between - begun, time.process_time() - between))
        assert more <= GROWTH * less + 1000, f"{less} and {more} bytes"
        ratios.append(times[-1][1] / max(UNNOTICED, times[-1][0]))  # how fast the machine is changes between two pairs
        if statistics.median(ratios) < GROWTH:
            return
    raise AssertionError(f"seconds at n and at 2n: {times}")


def size(read: Callable[[], object]) -> int:
    """Bytes of an answer; a refusal is one too."""
    try:
        return len(msgspec.msgpack.encode(read()))
    except UnreadableDocument:
        return 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["markdown", "text", "html"])
def test_a_file_is_read_split_and_indexed_in_proportion(kind: Kind, shape: str) -> None:
    grows_in_proportion(lambda text: size(lambda: prepare_document("x", kind, text.encode())), SHAPES[shape])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("html", [False, True])
def test_an_attachment_is_read_in_proportion(shape: str, *, html: bool) -> None:
    grows_in_proportion(lambda text: size(lambda: extract_text(text.encode(), 10**9, html=html)), SHAPES[shape])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_words_of_a_question_are_found_in_a_bounded_time(shape: str) -> None:
    question = SHAPES[shape](200_000)
    best = 1.0
    for _ in range(TRIES):
        begun = time.process_time()
        query_lexemes(question)
        best = min(best, time.process_time() - begun)
    assert best < 0.05


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16", "latin-1"])
@pytest.mark.parametrize("text", ["é", "中é", "\u0080", "中"])
def test_bytes_are_decoded_in_proportion(encoding: str, text: str) -> None:
    def read(text: str) -> int:
        return size(lambda: extract_text(text.encode(encoding, "replace"), 10**9, html=False))

    grows_in_proportion(read, lambda n: text * (n * 10))
