"""HTML to blocks: what a reader of the page sees, without scripts, styles and navigation."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from palaver.knowledge.blocks import Block, heading, prose

_UNSEEN = (
    "script, style, nav, noscript, template, svg, math annotation, iframe, object, canvas, audio, video, select,"
    " button, input, textarea, dialog, [role=navigation], [role=search], [hidden]"
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset(("ul", "ol", "menu"))
_BLOCKS = """
address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form header hgroup
html legend li main p section summary table tbody td tfoot th thead tr caption
"""
_APART = frozenset(_BLOCKS.split())
"""What begins on a line of its own."""
_ANCHORS = frozenset(("", "#", "¶", "§", "🔗", "[src]"))
"""Links that generators of documentation put into headings."""
_LAYOUT = "h1, h2, h3, h4, h5, h6, table, pre, ul, ol, p + p, blockquote"
"""A table with one of these in it does not hold data, it holds the page."""
_SPACE = re.compile(r"[ \t\r\n\f]+")
_SPACES = re.compile(r" {2,}")
_LINE_SPACE = re.compile(r" *\n *")


def read(html: str) -> tuple[str, list[Block]]:
    """The page's title and its blocks; of ``<main>`` alone where there is one."""
    page = LexborHTMLParser(html)
    found = page.css_first("head > title") or page.css_first("title")
    title = " ".join(found.text().split()) if found is not None else ""
    for node in page.css(_UNSEEN):
        node.decompose()
    mains = [node for node in page.css("main, [role=main]") if node.text().strip()]
    root = mains[0] if len(mains) == 1 else page.body
    return title, [] if root is None else _Reading().blocks_of(root)


def fragment(html: str) -> list[Block]:
    """The blocks of a piece of HTML, as it stands in Markdown."""
    return read(html)[1]


class _Reading:
    """Walks a tree without recursion (pages may nest as deep as they like) and collects."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._said: list[str] = []
        self._lists: list[int | None] = []
        """Of every list around: the next item's number, or ``None``."""
        self._bullet = ""
        self._items: list[str] = []
        self._rows: list[list[str]] | None = None
        self._level = 0

    def blocks_of(self, root: LexborNode) -> list[Block]:
        todo: list[tuple[LexborNode, bool]] = [(root, False)]
        while todo:
            node, leaving = todo.pop()
            if leaving:
                self._leave(node.tag or "")
            elif node.is_text_node:
                self._said.append(_SPACE.sub(" ", node.text_content or ""))
            elif node.is_element_node and self._enter(node, node.tag or ""):
                todo.append((node, True))
                todo += [(child, False) for child in reversed(list(node.iter(include_text=True)))]
        self._flush()
        self._end_list()
        return self._blocks

    def _enter(self, node: LexborNode, tag: str) -> bool:
        """Whether to go on into the node."""
        if tag == "br":
            self._said.append("\n")
        elif tag == "img":
            self._said.append(node.attributes.get("alt") or "")
        elif tag == "a" and self._level and node.text().strip() in _ANCHORS:
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
        elif tag == "table" and self._rows is None and not self._is_layout(node):
            self._end_list()
            self._rows = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag == "dd":
            self._bullet = ": "

    @staticmethod
    def _is_layout(table: LexborNode) -> bool:
        return any(node.mem_id != table.mem_id for node in table.css(_LAYOUT))

    def _next_bullet(self) -> str:
        number = self._lists[-1] if self._lists else None
        if number is None:
            return "- "
        self._lists[-1] = number + 1
        return f"{number}. "

    def _leave(self, tag: str) -> None:
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
        """End the paragraph, heading or item that is being read."""
        if self._rows is not None:  # a cell ends with its own tag, whatever is in it
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
