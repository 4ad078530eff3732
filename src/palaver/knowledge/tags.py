"""Limits a page's tags before it is parsed.

HTML parsers compare each attribute with those before it in its tag, and search the open elements at most tags. So a
page may have a limited number of either.
"""

from __future__ import annotations

import re
from collections import Counter

from palaver.core.ports.documents import UnreadableDocument

MAX_ATTRIBUTES = 200
"""Maximum attributes of one tag."""
MAX_OPEN = 2_000
"""Maximum elements open at one place. Unclosed inline elements count until the end."""

_ATTRIBUTE = r"""[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|[^\s>"'][^\s>]*+)?+)?+"""
"""An attribute, as the HTML standard parses it."""
_EACH_ATTRIBUTE = re.compile(_ATTRIBUTE, re.ASCII)
_TAG = re.compile(
    rf"<(?:(?P<comment>!--)|(?P<end>/?)(?P<name>[a-zA-Z][^\s/>]*+)(?P<attributes>(?:[\s/]++|{_ATTRIBUTE})*+))", re.ASCII
)
_COMMENT_END = re.compile(r"--!?>")
_RAW_END = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style")}
_FOREIGN = ("svg", "math")
_NEVER_NESTED = frozenset(
    (
        *("a", "area", "base", "body", "br", "button", "caption", "col", "colgroup", "dd", "dt", "embed", "form"),
        *("head", "hr", "html", "img", "input", "li", "link", "meta", "nobr", "optgroup", "option", "p", "param"),
        *("rp", "rt", "source", "tbody", "td", "tfoot", "th", "thead", "tr", "track", "wbr"),
    )
)


def check(html: str) -> None:
    """Raise ``UnreadableDocument`` for a page that would be slow to parse."""
    opened: Counter[str] = Counter()
    depth = place = 0
    while (tag := _TAG.search(html, place)) is not None:
        place = tag.end()
        if tag["comment"]:
            end = _COMMENT_END.search(html, place - 2)
            place = len(html) if end is None else end.end()
            continue
        name = tag["name"].lower()
        if tag["end"]:
            if opened[name]:
                opened[name] -= 1
                depth -= 1
            continue
        attributes = tag["attributes"]
        if len(attributes) > MAX_ATTRIBUTES and len(_EACH_ATTRIBUTE.findall(attributes)) > MAX_ATTRIBUTES:
            raise UnreadableDocument(f"a tag in it has more than {MAX_ATTRIBUTES} attributes")
        foreign = any(opened[tag_name] for tag_name in _FOREIGN)
        if name in _RAW_END and not foreign:
            end = _RAW_END[name].search(html, place)
            place = len(html) if end is None else end.end()
        elif name not in _NEVER_NESTED and not (foreign and attributes.endswith("/")):
            opened[name] += 1
            depth += 1
            if depth > MAX_OPEN:
                raise UnreadableDocument(f"too deeply nested (more than {MAX_OPEN} elements are open at once)")
