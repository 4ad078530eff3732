"""A dialect's requirements, one per row. ``requirements.py`` in a dialect's folder assigns the rows to names.

Rows are plain values. A test checks that every row has a test, and that every test of a requirement has a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal

Kind = Literal["vendor", "spec", "choice", "open point", "deviation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One requirement. ``source`` is the page or section that states it; empty if it is palaver's own."""

    kind: Kind
    source: str
    words: str
    id: str = ""
    """Its name in the module, set by ``collect_requirements``."""


def vendor(page: str, words: str) -> Requirement:
    """A requirement from the vendor's documentation; ``page`` is the heading there."""
    return Requirement(kind="vendor", source=page, words=words)


def spec(section: str, words: str) -> Requirement:
    """A rule of the wire specification. ``section`` is ``3``, ``4.2`` … of the dialect's file, or ``README 5`` of the
    shared one."""
    return Requirement(kind="spec", source=section, words=words)


def choice(words: str) -> Requirement:
    """A choice made by palaver that neither the vendor nor the specification prescribes."""
    return Requirement(kind="choice", source="", words=words)


def open_point(section: str, words: str) -> Requirement:
    """A gap or contradiction in the sources, and how palaver reads it. Listed in the dialect's README."""
    return Requirement(kind="open point", source=section, words=words)


def deviation(section: str, words: str) -> Requirement:
    """A known deviation from the sources. Listed in the dialect's README."""
    return Requirement(kind="deviation", source=section, words=words)


def collect_requirements(module: ModuleType) -> tuple[Requirement, ...]:
    """All rows of a module in order, each with its name as ``id``."""
    return tuple(replace(value, id=name) for name, value in vars(module).items() if isinstance(value, Requirement))
