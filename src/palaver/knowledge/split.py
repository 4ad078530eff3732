"""Splits blocks into passages, the units of search results.

A passage never crosses a heading unless the sections are tiny, and never splits a paragraph, code block or table that
fits. Larger ones are split between sentences (also Chinese ones) or lines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from palaver.core.types import Value
from palaver.knowledge.blocks import LARGE, Block

TINY_CHARACTERS = 200
"""Adjacent sections below this size are joined. In bytes: a Chinese character counts, and says, as much as three Latin
ones."""
STUB_CHARACTERS = 60
"""A section below this size, in bytes, is joined with any adjacent one."""
TARGET_CHARACTERS = 800
"""Maximum characters of joined sections, so that a hit is still specific."""
MAX_HEADING = 200
"""Maximum characters of a heading; a longer one is treated as a paragraph."""
SEPARATOR = " › "

_CLOSING = "\"'”’」』）)\\]"
_BORDERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\n[ \t]*\n",
        r"\n(?=[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t])",
        rf"[。！？…；]++[{_CLOSING}]*+|(?<![.!?;])[.!?;]++[{_CLOSING}]*+(?=\s)",
        r"\n",
        r"[，、,：:—]+",
        r"\s+",
    )
)
"""Where to split prose, in order of preference: paragraphs, items, sentences, lines, clauses, words."""


class PassageDraft(Value, frozen=True, kw_only=True):
    """A passage. ``heading`` is its path of headings without the document's title; ``inner`` has the headings in its
    text, where sections were joined."""

    text: str
    heading: str = ""
    inner: tuple[str, ...] = ()


@dataclass(slots=True)
class _Section:
    """The text between two headings, split to size. ``path`` has the enclosing headings."""

    path: tuple[str, ...]
    level: int = 0
    texts: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class _Group:
    """Sections to join into one passage, all at ``path`` or directly below it."""

    path: tuple[str, ...]
    text: str
    inner: tuple[str, ...] = ()


def split(title: str, blocks: Sequence[Block]) -> list[PassageDraft]:
    """The passages of a document with that title, in order."""
    group: _Group | None = None
    pieces: list[PassageDraft] = []
    for section in _without_empty(_sections(title, blocks)):
        pages = _pages(section.texts) or [""]
        joined = _join(group, section, pages[0]) if group is not None and len(pages) == 1 else None
        if joined is not None:
            group = joined
            continue
        if group is not None:
            pieces.append(_piece(group))
        group = _Group(path=section.path, text=pages.pop())
        if pages:
            pieces += [_piece(_Group(path=section.path, text=page)) for page in (*pages, group.text)]
            group = None
    if group is not None:
        pieces.append(_piece(group))
    return pieces or ([PassageDraft(text=title)] if blocks and title else [])


def _piece(group: _Group) -> PassageDraft:
    text = group.text or (group.path[-1] if group.path else "")
    return PassageDraft(text=text, heading=SEPARATOR.join(group.path), inner=group.inner)


def _sections(title: str, blocks: Iterable[Block]) -> Iterator[_Section]:
    open_headings: list[tuple[int, str]] = []
    section = _Section(path=())
    first = True
    for block in blocks:
        if block.kind != "heading" or len(block.text) > MAX_HEADING or not block.text:
            section.texts += _cut(block)
            continue
        yield section
        while open_headings and open_headings[-1][0] >= block.level:
            open_headings.pop()
        if not (first and block.text == title):  # the title is stored separately
            open_headings.append((block.level, block.text))
        first = False
        section = _Section(path=tuple(name for _, name in open_headings), level=block.level)
    yield section


def _without_empty(sections: Iterable[_Section]) -> Iterator[_Section]:
    """Omit empty sections, unless nothing else contains their heading."""
    pending: _Section | None = None
    for section in sections:
        if pending is not None and section.path[: len(pending.path)] != pending.path:
            yield pending
        pending = None
        if section.texts:
            yield section
        elif section.path:
            pending = section
    if pending is not None:
        yield pending


def _join(group: _Group, section: _Section, page: str) -> _Group | None:
    """Add ``section`` to ``group`` if both are small and close in the tree of headings, else return ``None``."""
    shared = _shared(group.path, section.path)
    smaller, larger = sorted((len(group.text.encode()), len(page.encode())))
    if (smaller >= STUB_CHARACTERS and larger >= TINY_CHARACTERS) or max(len(group.path), len(section.path)) > len(
        shared
    ) + 1:
        return None
    own, inner = group.text, group.inner
    if group.path != shared:
        own = _headed(group.path[-1], section.level if section.path != shared else section.level + 1, own)
        inner = (*inner, group.path[-1])
    if section.path != shared:
        page = _headed(section.path[-1], section.level, page)
        inner = (*inner, section.path[-1])
    text = "\n\n".join(filter(None, (own, page)))
    return _Group(path=shared, text=text, inner=inner) if len(text) <= TARGET_CHARACTERS else None


def _headed(name: str, level: int, text: str) -> str:
    line = f"{'#' * min(max(level, 1), 6)} {name}"
    return f"{line}\n\n{text}" if text else line


def _shared(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    length = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        length += 1
    return tuple(one[:length])


def _pages(texts: Sequence[str]) -> list[str]:
    """Join ``texts`` into as few passages as possible, of similar size."""
    total = sum(map(len, texts)) + 2 * len(texts)
    target = total / math.ceil(total / LARGE) if total else LARGE
    pages: list[list[str]] = []
    size = 0
    for text in texts:
        fits = pages and size + 2 + len(text) <= LARGE
        if fits and (size + len(text) / 2 <= target or size < TINY_CHARACTERS or _announces(pages[-1][-1])):
            pages[-1].append(text)
            size += 2 + len(text)
        else:
            pages.append([text])
            size = len(text)
    if len(pages) > 1 and size < TINY_CHARACTERS and size + 2 + sum(len(text) + 2 for text in pages[-2]) <= LARGE + 2:
        last = pages.pop()
        pages[-1] += last
    return ["\n\n".join(page) for page in pages]


def _announces(text: str) -> bool:
    """Whether ``text`` introduces the next text, like "Run this:"."""
    return len(text) < TINY_CHARACTERS and text.endswith((":", "："))


def _cut(block: Block) -> list[str]:
    if len(block.whole) <= LARGE:
        return [block.whole] if block.whole.strip() else []
    if block.kind == "lines":
        around = len(block.head) + len(block.tail) + 2
        if around < LARGE // 2:
            return [
                "\n".join(filter(None, (block.head, piece.rstrip("\n"), block.tail)))
                for piece in _gather(block.text.splitlines(keepends=True), LARGE - around, _hard)
            ]
    return [piece.strip() for piece in _cut_prose(block.whole, 0) if piece.strip()]


def _cut_prose(text: str, border: int) -> list[str]:
    if len(text) <= LARGE:
        return [text]
    if border == len(_BORDERS):
        return _hard(text, LARGE)
    ends = [match.end() for match in _BORDERS[border].finditer(text)]
    parts = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if start < end]
    return _gather(parts, LARGE, lambda part, _: _cut_prose(part, border + 1))


def _hard(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _gather(parts: Sequence[str], size: int, smaller: Callable[[str, int], list[str]]) -> list[str]:
    """Join ``parts`` into pieces of similar size, none above ``size``; ``smaller`` splits parts above it."""
    total = sum(map(len, parts))
    target = total / math.ceil(total / size) if total else size
    gathered: list[list[str]] = []
    room = 0
    for part in parts:
        if len(part) > size:
            gathered += [[piece] for piece in smaller(part, size)]
            room = size - len(gathered[-1][0])
        elif gathered and len(part) <= room and size - room + len(part) / 2 <= target:
            gathered[-1].append(part)
            room -= len(part)
        else:
            gathered.append([part])
            room = size - len(part)
    return ["".join(pieces) for pieces in gathered]
