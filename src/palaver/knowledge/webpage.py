"""HTML to blocks: the visible text, without scripts, styles and navigation."""

from __future__ import annotations

import re
from collections.abc import Callable

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from palaver.core.ports.documents import UnreadableDocument
from palaver.knowledge.blocks import Block, heading, prose
from palaver.knowledge.tags import check

MAX_DEPTH = 512
"""Maximum nesting of elements, the same as in browsers."""

_UNSEEN = frozenset(
    (
        *("annotation", "audio", "button", "canvas", "dialog", "iframe", "input", "nav", "noscript", "object"),
        *("script", "select", "style", "svg", "template", "textarea", "video"),
    )
)
_UNSEEN_ROLES = ("navigation", "search")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset(("ul", "ol", "menu"))
_BLOCKS = """
address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form header hgroup
html legend li main p section summary table tbody td tfoot th thead tr caption
"""
_APART = frozenset(_BLOCKS.split())
"""Elements that start a new line."""
_ANCHORS = frozenset(("", "#", "¶", "§", "🔗", "[src]"))
"""Texts of links that documentation generators put into headings."""
_LONGEST_ANCHOR = max(map(len, _ANCHORS))
_LAYOUT = frozenset((*_HEADINGS, "table", "pre", "ul", "ol", "blockquote"))
"""A table that contains one of these, or two paragraphs in one row, is used for layout, not for data."""
_SPACE = re.compile(r"[ \t\r\n\f]+")
_SPACES = re.compile(r" {2,}")
_LINE_SPACE = re.compile(r" *\n *")


def read(html: str) -> tuple[str, list[Block]]:
    """The page's title and its blocks, those of ``<main>`` if there is one. Raises ``UnreadableDocument``."""
    check(html)
    try:
        page = LexborHTMLParser(html)
    except SelectolaxError as error:  # any HTML can be parsed, so memory is exhausted
        raise MemoryError from error
    element = page.css_first("head > title") or page.css_first("title")
    title = " ".join(element.text().split()) if element is not None else ""
    if page.body is None:
        return title, []
    survey = _Survey()
    _visit(page.body, survey.enter, survey.leave)
    reading = _Reading(survey.layouts)
    _visit(survey.mains[0] if len(survey.mains) == 1 else page.body, reading.enter, reading.leave)
    return title, reading.blocks()


def fragment(html: str) -> list[Block]:
    """The blocks of HTML embedded in Markdown. Raises ``UnreadableDocument``."""
    return read(html)[1]


def _visit(root: LexborNode, enter: Callable[[LexborNode], bool], leave: Callable[[LexborNode], None]) -> None:
    """Call ``enter`` for every visible node in order and, if that returns True, ``leave`` after its content."""
    todo: list[tuple[LexborNode, bool]] = [(root, False)]
    depth = 0
    while todo:
        node, leaving = todo.pop()
        if leaving:
            depth -= 1
            leave(node)
        elif (node.is_text_node or (node.is_element_node and not _is_unseen(node))) and enter(node):
            depth += 1
            if depth > MAX_DEPTH:
                raise UnreadableDocument(f"too deeply nested (more than {MAX_DEPTH} levels)")
            todo.append((node, True))
            todo += [(child, False) for child in reversed(list(node.iter(include_text=True)))]


def _is_unseen(node: LexborNode) -> bool:
    if node.tag in _UNSEEN:
        return True
    attributes = node.attributes
    return bool(attributes) and ("hidden" in attributes or attributes.get("role") in _UNSEEN_ROLES)


class _Survey:
    """Finds layout tables and main elements, before the page is read."""

    def __init__(self) -> None:
        self.layouts: set[int] = set()
        """The layout tables, by ``mem_id``."""
        self.mains: list[LexborNode] = []
        """The main elements that are not empty."""
        self._tables: list[int] = []
        self._open_mains: list[tuple[LexborNode, bool]] = []

    def enter(self, node: LexborNode) -> bool:
        if node.is_text_node:
            if self._open_mains and not self._open_mains[-1][1] and (node.text_content or "").strip():
                self._open_mains[-1] = (self._open_mains[-1][0], True)
            return False
        tag = node.tag or ""
        if self._tables and (tag in _LAYOUT or (tag == "p" and _follows_paragraph(node))):
            self.layouts.add(self._tables[-1])
        if tag == "table":
            self._tables.append(node.mem_id)
        if _is_main(node):
            self._open_mains.append((node, False))
        return True

    def leave(self, node: LexborNode) -> None:
        if node.tag == "table":
            self._tables.pop()
        if _is_main(node):
            main, filled = self._open_mains.pop()
            if filled:
                self.mains.append(main)
                if self._open_mains:
                    self._open_mains[-1] = (self._open_mains[-1][0], True)


def _is_main(node: LexborNode) -> bool:
    return node.tag == "main" or node.attributes.get("role") == "main"


def _follows_paragraph(node: LexborNode) -> bool:
    before = node.prev
    while before is not None and not before.is_element_node:
        before = before.prev
    return before is not None and before.tag == "p"


class _Reading:
    """Collects the blocks while a page is visited."""

    def __init__(self, layouts: set[int]) -> None:
        self._layouts = layouts
        self._blocks: list[Block] = []
        self._said: list[str] = []
        self._lists: list[int | None] = []
        """The number of the next item of every enclosing list; ``None`` if it is unordered."""
        self._bullet = ""
        self._items: list[str] = []
        self._rows: list[list[str]] | None = None
        self._level = 0

    def blocks(self) -> list[Block]:
        self._flush()
        self._end_list()
        return self._blocks

    def enter(self, node: LexborNode) -> bool:
        """Whether to visit the node's content."""
        if node.is_text_node:
            self._said.append(_SPACE.sub(" ", node.text_content or ""))
            return False
        tag = node.tag or ""
        if tag == "br":
            self._said.append("\n")
        elif tag == "img":
            self._said.append(node.attributes.get("alt") or "")
        elif tag == "a" and self._level and _is_anchor(node):
            return False
        elif tag == "hr":
            self._flush()
        elif tag == "pre" and self._rows is None:
            self._code(node)
        elif tag in _HEADINGS or tag in _LISTS or tag in _APART:
            self._flush()
            self._open(node, tag)
            return True
        else:
            return True
        return False

    def _open(self, node: LexborNode, tag: str) -> None:
        if tag in _HEADINGS:
            self._end_list()
            self._level = _HEADINGS[tag]
        elif tag in _LISTS:
            start = node.attributes.get("start") or "1"
            number = int(start) if start.isascii() and start.isdigit() and len(start) < 10 else 1
            self._lists.append(number if tag == "ol" else None)
        elif tag == "li":
            self._bullet = self._next_bullet()
        elif tag == "table" and self._rows is None and node.mem_id not in self._layouts:
            self._end_list()
            self._rows = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag == "dd":
            self._bullet = ": "

    def _next_bullet(self) -> str:
        number = self._lists[-1] if self._lists else None
        if number is None:
            return "- "
        self._lists[-1] = number + 1
        return f"{number}. "

    def leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in {"td", "th"} and self._rows:
            self._rows[-1].append(self._taken().replace("\n", " "))
        elif tag == "caption" and self._rows is not None:
            self._blocks.append(prose(self._taken()))
        elif tag == "table" and self._rows is not None:
            self._table()
        elif tag in _HEADINGS:
            self._flush()
            self._level = 0
        elif tag in _LISTS:
            self._flush()
            if self._lists:
                self._lists.pop()
            if not self._lists:
                self._end_list()
        elif tag in _APART:
            self._flush()
        if tag in {"li", "dd"}:
            self._bullet = ""

    def _taken(self) -> str:
        text = _LINE_SPACE.sub("\n", _SPACES.sub(" ", "".join(self._said))).strip()
        self._said = []
        return text

    def _flush(self) -> None:
        """End the current paragraph, heading or item."""
        if self._rows is not None:  # a cell ends with its own tag only
            self._said.append(" ")
            return
        text = self._taken()
        if not text:
            return
        if self._level:
            self._blocks.append(heading(text, self._level))
        elif self._lists:
            indent = "  " * (len(self._lists) - 1)
            self._items.append(f"{indent}{self._bullet or '  '}{text.replace(chr(10), chr(10) + indent + '  ')}")
            self._bullet = ""
        else:
            self._blocks.append(prose(f"{self._bullet}{text}"))
            self._bullet = ""

    def _end_list(self) -> None:
        if self._items:
            self._blocks.append(prose("\n".join(self._items)))
            self._items = []

    def _code(self, node: LexborNode) -> None:
        self._flush()
        self._end_list()
        if text := node.text().strip("\n"):
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            self._blocks.append(Block(kind="lines", head=fence, text=text, tail=fence))

    def _table(self) -> None:
        rows = [f"| {' | '.join(row)} |" for row in self._rows or () if any(row)]
        if rows:
            rule = f"|{' --- |' * len(max(self._rows or [[]], key=len))}"
            self._blocks.append(Block(kind="lines", head=f"{rows[0]}\n{rule}", text="\n".join(rows[1:])))
        self._rows = None
        self._said = []


def _is_anchor(link: LexborNode) -> bool:
    """Whether ``link`` is an anchor from a documentation generator."""
    text = ""
    for node in link.traverse(include_text=True):
        if node.is_text_node:
            text += (node.text_content or "").strip()
            if len(text) > _LONGEST_ANCHOR:
                return False
    return text in _ANCHORS
