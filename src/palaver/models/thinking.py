"""Separates thinking from an answer that begins with ``<think>…</think>``.

Servers without a parser for their model's thinking send it as the beginning of the answer. It is recognized only where
it is unambiguous: the answer begins with ``<think>``, after optional white space. Tags in the middle of an answer,
``<thinking>``, and an unopened ``</think>`` are text.
"""

from __future__ import annotations

from typing import Literal

Mode = Literal["tags", "open", "text"]
"""How an answer may begin: thinking between tags, thinking that the model's chat template has opened, text."""

_OPENING = "<think>"
_CLOSING = "</think>"
_MOST_BLANK = 1024
"""Maximum characters of white space before a tag."""

Piece = tuple[bool, str]
"""Whether it is thinking, and the text (never empty)."""


class ThinkingSplitter:
    """Text in as it arrives, pieces out; how the text was split makes no difference. White space around thinking is
    dropped.

    ``settled``: only text follows, so ``feed`` need not be called any more.
    """

    __slots__ = ("_has_output", "_has_thought", "_is_thinking", "_pending", "_template_opened", "settled")

    def __init__(self, mode: Mode = "tags") -> None:
        self._pending = ""
        self._is_thinking = self._template_opened = mode == "open"
        self._has_output = False
        """Whether some of this thinking has been returned."""
        self._has_thought = False
        """Whether thinking has ended before."""
        self.settled = mode == "text"

    def feed(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        text, self._pending = self._pending + text, ""
        while text and not self.settled:
            text = self._thinking(text, pieces) if self._is_thinking else self._start(text)
        if text:
            pieces.append((False, text))
        return pieces

    def end(self) -> list[Piece]:
        """Return the text that was held back because it might have become a tag."""
        text, self._pending = self._pending, ""
        if self._is_thinking or self._has_thought:
            text = text.rstrip() if self._has_output and self._is_thinking else text.strip()
        return [(self._is_thinking, text)] if text else []

    def _start(self, text: str) -> str:
        """Handle ``text`` where no answer text has come yet. Returns the rest to process."""
        rest = text.lstrip()
        if rest.startswith(_OPENING) and len(text) - len(rest) <= _MOST_BLANK:
            self._is_thinking, self._has_output = True, False
            return rest[len(_OPENING) :]
        if self._has_thought:
            text = rest
        if _OPENING.startswith(rest) and len(text) - len(rest) <= _MOST_BLANK:  # true as well for white space alone
            self._pending = text
            return ""
        self.settled = True
        return text

    def _thinking(self, text: str, pieces: list[Piece]) -> str:
        if not self._has_output:
            text = text.lstrip()
            if self._template_opened and _OPENING.startswith(text):
                self._pending = text
                return ""
            if self._template_opened:  # by the template, and perhaps again by the model
                self._template_opened = False
                text = text.removeprefix(_OPENING).lstrip()
        thought, closing, rest = text.partition(_CLOSING)
        settled = len(thought) if closing else len(thought) - _partial_tag_length(thought)
        size = max(len(thought[:settled].rstrip()), settled - _MOST_BLANK)
        if size:
            self._has_output = True
            pieces.append((True, thought[:size]))
        if not closing:
            self._pending = thought[size:]
            return ""
        self._is_thinking, self._has_thought = False, True
        return rest


def _partial_tag_length(text: str) -> int:
    """The number of characters at the end of ``text`` that may begin the closing tag."""
    return next((size for size in range(len(_CLOSING) - 1, 0, -1) if text.endswith(_CLOSING[:size])), 0)
