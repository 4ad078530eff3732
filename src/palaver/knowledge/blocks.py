"""The common form of every document before splitting: a flat list of headings, paragraphs, code and tables."""

from __future__ import annotations

from typing import Literal

from palaver.core.types import Value

LARGE = 1200
"""Maximum characters of a passage. A longer list or quotation becomes one block per item."""

BlockKind = Literal["heading", "prose", "lines"]


class Block(Value, frozen=True, kw_only=True):
    """One piece of a document, its text as Markdown.

    ``prose`` may be split between sentences; ``lines`` (code, tables) only between lines, each piece then between
    ``head`` and ``tail``: a fence, a table's first two rows. ``level`` is a heading's, 1 to 6.
    """

    kind: BlockKind
    text: str
    level: int = 0
    head: str = ""
    tail: str = ""

    @property
    def whole(self) -> str:
        return "\n".join(part for part in (self.head, self.text, self.tail) if part)


def heading(text: str, level: int) -> Block:
    return Block(kind="heading", text=" ".join(text.split()), level=min(max(level, 1), 6))


def prose(text: str) -> Block:
    return Block(kind="prose", text=text)
