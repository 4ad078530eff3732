"""Plain text to blocks: paragraphs and recognizable headings (reStructuredText's, and 第三章 …)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from palaver.knowledge.blocks import Block, heading, prose

_UNDERLINE = re.compile(r"([=\-~^\"'#*+`])\1{2,}\s*$")
_CHAPTER = re.compile(r"\s*第[〇零一二三四五六七八九十百千\d]{1,7}(?P<kind>[编篇卷部章节])(?:[\s:：].{0,40}|\S{0,20})$")
_LEVELS = {"编": 1, "篇": 1, "卷": 1, "部": 1, "章": 2, "节": 3}
_SENTENCE_END = ("。", "；", "，", "！", "？")


def read(text: str) -> list[Block]:
    return list(_blocks(text.split("\n")))


def _blocks(lines: list[str]) -> Iterator[Block]:
    styles: list[str] = []
    paragraph: list[str] = []
    skip = 0
    for place, line in enumerate(lines):
        if skip:
            skip -= 1
            continue
        title, line_count = _heading(lines, place, styles) if not paragraph else (None, 0)
        chapter = _CHAPTER.match(line)
        if chapter is not None and not line.rstrip().endswith(_SENTENCE_END):
            title, line_count = heading(line, _LEVELS[chapter["kind"]]), 1
        if title is not None or not line.strip():
            if paragraph:
                yield prose("\n".join(paragraph))
                paragraph = []
            if title is not None:
                yield title
                skip = line_count - 1
        else:
            paragraph.append(line.rstrip())
    if paragraph:
        yield prose("\n".join(paragraph))


def _heading(lines: list[str], place: int, styles: list[str]) -> tuple[Block | None, int]:
    """The heading that begins at line ``place`` and its number of lines: a title underlined with one character,
    optionally overlined too. The document chooses which style is which level: ``styles`` lists them in order of
    appearance."""
    above = _UNDERLINE.match(lines[place]) is not None and place + 2 < len(lines)
    title = place + above
    if title + 1 >= len(lines) or not lines[title].strip() or (lines[title][:1].isspace() and not above):
        return None, 0
    under = _UNDERLINE.match(lines[title + 1])
    if under is None or len(lines[title].strip()) > len(under.group().rstrip()):
        return None, 0
    if above and lines[place].rstrip() != lines[title + 1].rstrip():
        return None, 0
    style = under.group(1) * (1 + above)
    if style not in styles:
        styles.append(style)
    return heading(lines[title], styles.index(style) + 1), 2 + above
