"""A dialect's manifest: one row for every promise. ``behaviours.py`` of a dialect's folder assigns rows to names.

Rows are values; that every row has a test is what the tests look after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal

Kind = Literal["seed", "spec", "ours", "open point", "differs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One promise. ``source`` is the page or section it stands in, empty for what is our own."""

    kind: Kind
    source: str
    words: str
    id: str = ""
    """The name it has in the manifest, once it was gathered."""


def vendor(page: str, words: str) -> Requirement:
    """The vendor's promise; ``page`` is the heading it stands under."""
    return Requirement(kind="seed", source=page, words=words)


def spec(section: str, words: str) -> Requirement:
    """What the wire specification says; ``section`` is ``3``, ``4.2`` … of the dialect's file, ``README 5`` of the
    shared one."""
    return Requirement(kind="spec", source=section, words=words)


def choice(words: str) -> Requirement:
    """A choice of ours where nobody says anything."""
    return Requirement(kind="ours", source="", words=words)


def open_point(section: str, words: str) -> Requirement:
    """A gap or a contradiction in what we go by, and how it is read here. The dialect's README says it."""
    return Requirement(kind="open point", source=section, words=words)


def deviation(section: str, words: str) -> Requirement:
    """A known deviation from what we go by. The dialect's README says it."""
    return Requirement(kind="differs", source=section, words=words)


def collect_requirements(behaviours: ModuleType) -> tuple[Requirement, ...]:
    """The rows of a manifest in their order, each with its name."""
    return tuple(replace(value, id=name) for name, value in vars(behaviours).items() if isinstance(value, Requirement))
