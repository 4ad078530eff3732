"""Markdown to blocks. The text of a block is the source's own lines, so lists, links and emphasis stay as written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from palaver.knowledge import webpage
from palaver.knowledge.blocks import LARGE, Block, heading, prose

_MATTER = re.compile(r"\ufeff?(?P<mark>---|\+\+\+)[ \t]*\n(?P<body>.*?\n)?(?P=mark)[ \t]*(?:\n|$)", re.DOTALL)
_MATTER_LINE = re.compile(r"\s*(?:#.*)?$|\s+.*$|-\s.*$|\[.*\]\s*$|[\]})].*$|[\w\"'.-]+\s*[:=].*$")
_TITLE = re.compile(r"^title[ \t]*[:=](?P<title>.*)$", re.MULTILINE | re.IGNORECASE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_MARKS = re.compile(r"(?<!\\)(\*\*|__|\*|`+|~~)|(?<!\w)_|_(?!\w)")
_ANCHOR = re.compile(r"\s*\{[#.:][^{}]*\}\s*$")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")

LONGEST_HEADING = 1000
"""Characters of a line that is read as a heading."""

_parser = MarkdownIt("commonmark").enable("table").disable("reference")
# What is inside a line stays as written; reading it would take most of the time. A link's definition is text to us.
_parser.core.ruler.disable("inline")


def front_matter(text: str) -> tuple[str, str]:
    """The title that the front matter (YAML or TOML) of ``text`` gives, and the text without it."""
    found = _MATTER.match(text)
    if found is None or not all(map(_MATTER_LINE.match, (found["body"] or "").split("\n"))):
        return "", text
    title = _TITLE.search(found["body"] or "")
    return (title["title"].strip().strip("\"'").strip() if title else ""), text[found.end() :]


def read(text: str) -> list[Block]:
    lines = text.split("\n")
    return list(_blocks(_parser.parse(text), lines))


def _blocks(tokens: Sequence[Token], lines: Sequence[str]) -> Iterator[Block]:
    """The blocks of ``tokens``, which stand side by side; a container that is too large by what is in it."""
    for first, last in _spans(tokens):
        token = tokens[first]
        if token.map is None:
            continue
        start, end = token.map
        source = "\n".join(lines[start:end]).rstrip()
        match token.type:
            case "heading_open" if token.level == 0:
                yield heading(_plain(tokens[first + 1].content), int(token.tag[1]))
            case "html_block" if token.level == 0:
                yield from webpage.fragment(source)
            case "fence" | "code_block":
                yield _code(token, source)
            case "table_open":
                rows = source.split("\n")
                yield Block(kind="lines", head="\n".join(rows[:2]), text="\n".join(rows[2:]))
            case "hr":
                continue
            case _ if len(source) > LARGE and last > first + 3:
                yield from _blocks(tokens[first + 1 : last], lines)
            case _ if source.strip():
                yield prose(source.strip("\n"))
            case _:
                continue


def _spans(tokens: Sequence[Token]) -> Iterator[tuple[int, int]]:
    """First and last token of every block in ``tokens``, without those inside them."""
    depth = first = 0
    for place, token in enumerate(tokens):
        if depth == 0:
            first = place
        depth += token.nesting
        if depth == 0:
            yield first, place


def _code(token: Token, source: str) -> Block:
    if token.type == "code_block":
        return Block(kind="lines", text=source.strip("\n"))
    head, *rest = source.split("\n")
    closed = bool(rest) and rest[-1].lstrip(" >").startswith(token.markup) and not rest[-1].strip(" >`~")
    return Block(
        kind="lines",
        head=head,
        text="\n".join(rest[:-1] if closed else rest),
        tail=rest[-1] if closed else token.markup,
    )


def _plain(text: str) -> str:
    """A heading as its reader sees it; one that is too long to be a heading as it is written."""
    if len(text) > LONGEST_HEADING:
        return text
    plain = _TAG.sub("", _LINK.sub(r"\1", _ANCHOR.sub("", text)))
    return _ESCAPE.sub(r"\1", _MARKS.sub("", plain)).strip() or text
