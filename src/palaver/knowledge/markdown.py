"""Markdown to blocks. A block's text is the source's own lines, so lists, links and emphasis stay as written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from palaver.knowledge import webpage
from palaver.knowledge.blocks import LARGE, Block, heading, prose

_FRONT_MATTER = re.compile(r"\ufeff?(?P<mark>---|\+\+\+)[ \t]*\n(?P<body>.*?\n)?(?P=mark)[ \t]*(?:\n|$)", re.DOTALL)
_FRONT_MATTER_LINE = re.compile(r"\s*(?:#.*)?$|\s+.*$|-\s.*$|\[.*\]\s*$|[\]})].*$|[\w\"'.-]+\s*[:=].*$")
_TITLE = re.compile(r"^title[ \t]*[:=](?P<title>.*)$", re.MULTILINE | re.IGNORECASE)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_MARKS = re.compile(r"(?<!\\)(\*\*|__|\*|`+|~~)|(?<!\w)_|_(?!\w)")
_ANCHOR = re.compile(r"\s*\{[#.:][^{}]*\}\s*$")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")

LONGEST_HEADING = 1000
"""Maximum characters of a heading whose markup is removed."""

_parser = MarkdownIt("commonmark").enable("table").disable("reference")
# Inline markup stays as written; parsing it would take most of the time. A link's definition is treated as text.
_parser.core.ruler.disable("inline")


def front_matter(text: str) -> tuple[str, str]:
    """The title in the front matter (YAML or TOML) of ``text``, and the text without the front matter."""
    matter = _FRONT_MATTER.match(text)
    if matter is None or not all(map(_FRONT_MATTER_LINE.match, (matter["body"] or "").split("\n"))):
        return "", text
    title = _TITLE.search(matter["body"] or "")
    return (title["title"].strip().strip("\"'").strip() if title else ""), text[matter.end() :]


def read(text: str) -> list[Block]:
    lines = text.split("\n")
    return list(_blocks(_parser.parse(text), lines))


def _blocks(tokens: Sequence[Token], lines: Sequence[str]) -> Iterator[Block]:
    """Yield the blocks of sibling ``tokens``; a container that is too large as the blocks inside it."""
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
    """Yield the indexes of the first and last token of every top-level block in ``tokens``."""
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
    """A heading without its markup; unchanged if it is too long."""
    if len(text) > LONGEST_HEADING:
        return text
    plain = _TAG.sub("", _LINK.sub(r"\1", _ANCHOR.sub("", text)))
    return _ESCAPE.sub(r"\1", _MARKS.sub("", plain)).strip() or text
