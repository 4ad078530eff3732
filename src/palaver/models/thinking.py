"""Thinking that a model writes into its answer: ``<think>…</think>`` at its beginning.

Servers without a parser for their model's thinking send it as the answer's first words. It is told apart only where
it can be nothing else: the answer begins with ``<think>``, white space before it aside. What stands in the middle of
an answer, ``<thinking>``, and a ``</think>`` that nothing has opened are text.
"""

from __future__ import annotations

from typing import Literal

Mode = Literal["tags", "open", "text"]
"""What an answer's first words may be: thinking between tags, thinking that the model's template has opened, text."""

_OPENING = "<think>"
_CLOSING = "</think>"
_MOST_BLANK = 1024
"""Characters of white space before a tag that are waited for."""

Piece = tuple[bool, str]
"""Whether it is thinking, and the text (never empty)."""


class ThinkingSplitter:
    """Text in as it comes, pieces out; how the text was cut changes nothing. White space around thinking is left out.

    ``settled`` says that only text will come: then ``feed`` need not be asked any more.
    """

    __slots__ = ("_after", "_begun", "_held", "_opened", "_thinks", "settled")

    def __init__(self, mode: Mode = "tags") -> None:
        self._held = ""
        self._thinks = self._opened = mode == "open"
        self._begun = False
        """Whether some of this thinking has been given out."""
        self._after = False
        """Whether there was thinking before."""
        self.settled = mode == "text"

    def feed(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        text, self._held = self._held + text, ""
        while text and not self.settled:
            text = self._thinking(text, pieces) if self._thinks else self._start(text)
        if text:
            pieces.append((False, text))
        return pieces

    def end(self) -> list[Piece]:
        """What was held back, because it might have become a tag."""
        text, self._held = self._held, ""
        if self._thinks or self._after:
            text = text.rstrip() if self._begun and self._thinks else text.strip()
        return [(self._thinks, text)] if text else []

    def _start(self, text: str) -> str:
        """Where no text has come yet; what is left to be looked at."""
        rest = text.lstrip()
        if rest.startswith(_OPENING) and len(text) - len(rest) <= _MOST_BLANK:
            self._thinks, self._begun = True, False
            return rest[len(_OPENING) :]
        if self._after:
            text = rest
        if _OPENING.startswith(rest) and len(text) - len(rest) <= _MOST_BLANK:  # also where there is nothing yet
            self._held = text
            return ""
        self.settled = True
        return text

    def _thinking(self, text: str, pieces: list[Piece]) -> str:
        if not self._begun:
            text = text.lstrip()
            if self._opened and _OPENING.startswith(text):
                self._held = text
                return ""
            if self._opened:  # by the template, and perhaps by the model once more
                self._opened = False
                text = text.removeprefix(_OPENING).lstrip()
        thought, closing, rest = text.partition(_CLOSING)
        sure = len(thought) if closing else len(thought) - _open_end(thought)
        kept = max(len(thought[:sure].rstrip()), sure - _MOST_BLANK)
        if kept:
            self._begun = True
            pieces.append((True, thought[:kept]))
        if not closing:
            self._held = thought[kept:]
            return ""
        self._thinks, self._after = False, True
        return rest


def _open_end(text: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of the closing tag."""
    return next((size for size in range(len(_CLOSING) - 1, 0, -1) if text.endswith(_CLOSING[:size])), 0)
