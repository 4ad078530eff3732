"""``docs/native.md`` as tests read it: its tables, its examples, its code."""

from __future__ import annotations

import re

from support.survey import ROOT, blocks

PAGE = ROOT / "docs" / "native.md"


def code(language: str) -> str:
    """The page's one block in that language."""
    (text,) = [text for each, text in blocks(PAGE) if each == language]
    return text


def examples() -> list[str]:
    """Its JSON documents, in their order."""
    return [text.strip() for language, text in blocks(PAGE) if language == "json"]


def without_chance(stream: str) -> str:
    """The text with ids, uids and times as they are in no two runs."""
    for pattern, replacement in (
        (r"[0-9a-f]{32}", "UID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME"),
        (r'"id":\d+', '"id":N'),
    ):
        stream = re.sub(pattern, replacement, stream)
    return stream
